/* attacks.h - what the attacks share. An attack makes one mistake on purpose, as an exploit would, and looks what comes of it. Each runs in a
 * process of its own, on any allocator:
 *
 *   attacks --list        a line `name<TAB>title` for every attack
 *   attacks NAME          one attack; how the process ends says what came of it, and a line on stdout says more. With ATTACKS_WITHOUT_MARKS
 *                         in the environment as on a kernel that has no guards in page tables
 *
 *   ends by abort()       detected: the allocator noticed, and said so on stderr
 *   OUTCOME_GUARD         the forbidden access itself faulted
 *   OUTCOME_HARMLESS      nothing was gained, and the allocator still works
 *   OUTCOME_UNDETECTED    it went through
 *   OUTCOME_CRASH         nothing was noticed until something broke elsewhere, or nothing ended any more
 *   OUTCOME_NOT_HERE      this allocator does not have the function
 */
#ifndef TIDE_ATTACKS_H
#define TIDE_ATTACKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum outcome {
    OUTCOME_HARMLESS = 0,
    OUTCOME_UNDETECTED = 10,
    OUTCOME_GUARD = 11,
    OUTCOME_CRASH = 12,
    OUTCOME_NOT_HERE = 13,
};

struct attack {
    const char *name, *title;
    void (*run)(void);
};

/* Ended by an attack without a name. */
extern const struct attack overflow_attacks[], misuse_attacks[], stale_attacks[], guess_attacks[];

/* A size of each tier of tidemalloc. */
enum { TINY_BYTES = 48, MID_BYTES = 6000, LARGE_BYTES = 300000 };

/* End the process: print a line, leave without destructors. */
_Noreturn void verdict(enum outcome outcome, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Hidden from the compiler, which would see the mistakes. */
char *allocate(size_t size);
void release(void *block);
/* A block of at least `bytes` that is full: its usable size is what was asked for. Returns that. */
size_t full_size(size_t bytes);

/* An access that no program may make: a fault here is a guard's work. */
void illegal_write(char *at, char value);
char illegal_read(const char *at);

/* Two blocks of a size with as little as possible between them; both hold 'A'. */
struct pair {
    char *low, *high;
};
struct pair neighbours(size_t size);

/* Go on working: many blocks of all sizes come and go, and nobody else writes to them. Ends the process if two overlap. */
void aftermath(void);
/* Does malloc(size) return the same block twice now, or one of these, or one that overlaps [bait, bait + bytes)? */
bool hands_out_twice(size_t size);
bool hands_out_any(size_t size, char *const *live, int count);
bool hands_out(size_t size, const char *bait, size_t bytes);
/* The attacker has what he wanted: nothing that comes later counts. */
void gained_if(bool gained, const char *what);
/* Go on working until the aftermath is over, then say how it was: harmless, or, where damage was done, undetected. */
_Noreturn void conclude(bool damaged, const char *what);

/* A function that not every allocator has, or NULL. */
void *optional_function(const char *name);

/* The program's path, to run it again. */
extern const char *program_path;

#endif

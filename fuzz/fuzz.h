/* fuzz.h - what every fuzz target includes: the bytes of an input as numbers, checks, and a fresh state for each input.
 *
 *   libFuzzer  --+
 *                +--> LLVMFuzzerTestOneInput --> fuzz_one, in a thread of its own --> everything as it was before
 *   standalone --+     (fuzz.c)                  (the target)
 *
 * Under libFuzzer thousands of inputs run in one process, but what an input finds must not depend on those before it. So the library is
 * compiled with its static variables in sections of their own (subject.h), which are written back after each input; its mappings
 * are counted and taken away, and its thread-local variables go with the thread. The standalone runner forks for each input instead.
 */
#ifndef TIDE_FUZZ_FUZZ_H
#define TIDE_FUZZ_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* The target: one input, from the beginning of the library's life. */
void fuzz_one(const uint8_t *data, size_t size);

/* Ends in abort(), which libFuzzer takes for a finding, with a line on stderr. */
_Noreturn void fuzz_die(const char *file, int line, const char *format, ...) __attribute__((format(printf, 3, 4)));
#define must(condition) ((condition) ? (void)0 : fuzz_die(__FILE__, __LINE__, "must hold: %s", #condition))
#define must_be(condition, ...) ((condition) ? (void)0 : fuzz_die(__FILE__, __LINE__, __VA_ARGS__))
/* In a forked child a finding must be one of the parent's. Returns in both, as fork; runs the handlers that the library has registered. */
pid_t fuzz_fork(void);
_Noreturn void fuzz_child_end(void);
void fuzz_child_must_end_well(pid_t child);

/* --- the input ------------------------------------------------------------------------------------------------------- */

/* Bytes that are not there any more read as zero. */
struct input {
    const uint8_t *at, *end;
};

static inline bool input_left(const struct input *input) { return input->at < input->end; }

static inline uint8_t input_byte(struct input *input) { return input_left(input) ? *input->at++ : 0; }

static inline uint16_t input_half(struct input *input) {
    uint16_t low = input_byte(input);
    return (uint16_t)(low | input_byte(input) << 8);
}

static inline uint64_t input_bytes(struct input *input, unsigned count) {
    uint64_t value = 0;
    for (unsigned i = 0; i < count; i++) value |= (uint64_t)input_byte(input) << (8 * i);
    return value;
}

/* --- blocks with contents that tell them apart ------------------------------------------------------------------------- */

/* Large blocks are filled at their ends and once a page. */
void fuzz_fill(void *block, size_t bytes, uint64_t seed);
bool fuzz_holds(const void *block, size_t bytes,
                uint64_t seed); /* its first `bytes`, as filled by fuzz_fill with at least so many */
bool fuzz_is_zero(const void *block, size_t bytes);

#endif

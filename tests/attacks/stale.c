/* stale.c - use of a block after it was freed, and what blocks still hold of their earlier life. */
#define _GNU_SOURCE 1
#include "attacks.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* Ordinary blocks, and three of their neighbours that were freed: the last of them is the one to attack, and leads to the one before. */
#define SIBLINGS 16
static char *siblings[SIBLINGS], *free_siblings[3];

static char *make_victim(size_t size) {
    for (int i = 0; i < SIBLINGS; i++) {
        siblings[i] = allocate(size);
        memset(siblings[i], 'A', size);
    }
    free_siblings[0] = siblings[3];
    free_siblings[1] = siblings[8];
    free_siblings[2] = siblings[5];
    siblings[3] = siblings[8] = siblings[5] = NULL;
    for (int i = 0; i < 3; i++) release(free_siblings[i]);
    return free_siblings[2];
}

static void write_word(char *at, uintptr_t word) {
    for (size_t i = 0; i < sizeof word; i++) illegal_write(at + i, (char)(word >> (8 * i)));
}

static uintptr_t read_word(const char *at) {
    uintptr_t word = 0;
    for (size_t i = 0; i < sizeof word; i++) word |= (uintptr_t)(unsigned char)illegal_read(at + i) << (8 * i);
    return word;
}

/* --- the free list ------------------------------------------------------------------------------------------------- */

static _Alignas(64) char target[256];

static _Noreturn void take_target(void) {
    gained_if(hands_out(TINY_BYTES, target, sizeof target), "malloc returned an address of the attacker's choice");
    conclude(false, "");
}

/* The first word of a free block is the link in most allocators. */
static void poison(void) {
    write_word(make_victim(TINY_BYTES), (uintptr_t)target);
    take_target();
}

/* Another block of the same span, which is in use. */
static void poison_near(void) {
    char *victim = make_victim(TINY_BYTES);
    write_word(victim, (uintptr_t)siblings[10]);
    gained_if(hands_out(TINY_BYTES, siblings[10], TINY_BYTES), "malloc returned a live block");
    conclude(false, "");
}

/* Part of the link, so that its secret part stays as it is. */
static void poison_part(void) {
    char *victim = make_victim(TINY_BYTES);
    illegal_write(victim, (char)(illegal_read(victim) ^ 0x60));
    gained_if(hands_out_any(TINY_BYTES, siblings, SIBLINGS), "malloc returned a live block");
    conclude(false, "");
}

/* A link that was encoded by XOR, with a mask that depends on its place and a secret, gives the mask away to who knows what it points
 * to. The victim reads it in a forked child, which shares the secret. */
static void poison_learnt(void) {
    char *victim = make_victim(TINY_BYTES);
    int ends[2];
    uintptr_t mask = 0;
    if (pipe(ends) != 0) verdict(OUTCOME_CRASH, "no pipe");
    pid_t child = fork();
    if (child == 0) {
        mask = read_word(victim) ^ (uintptr_t)free_siblings[1];
        _exit(write(ends[1], &mask, sizeof mask) != sizeof mask);
    }
    if (child < 0 || read(ends[0], &mask, sizeof mask) != sizeof mask) verdict(OUTCOME_CRASH, "no child");
    waitpid(child, NULL, 0);
    write_word(victim, mask ^ (uintptr_t)target);
    take_target();
}

/* The same for a live block near by: passes every test of the address. */
static void poison_learnt_near(void) {
    char *victim = make_victim(TINY_BYTES);
    write_word(victim, read_word(victim) ^ (uintptr_t)free_siblings[1] ^ (uintptr_t)siblings[10]);
    gained_if(hands_out(TINY_BYTES, siblings[10], TINY_BYTES), "malloc returned a live block");
    conclude(false, "");
}

/* --- reads and writes ---------------------------------------------------------------------------------------------- */

static void read_freed(size_t size) {
    char *victim = make_victim(size);
    bool seen = illegal_read(victim + size - 8) == 'A' && illegal_read(victim + size / 2) == 'A';
    gained_if(seen, "the content was still there");
    conclude(false, "");
}

static void read_tiny(void) { read_freed(TINY_BYTES); }
static void read_mid(void) { read_freed(MID_BYTES); }
static void read_large(void) { read_freed(LARGE_BYTES); }

static void write_freed(size_t size) {
    illegal_write(make_victim(size) + 24, 'B');
    conclude(true, "nobody noticed");
}

static void write_tiny(void) { write_freed(TINY_BYTES); }
static void write_mid(void) { write_freed(MID_BYTES); }
static void write_large(void) { write_freed(LARGE_BYTES); }

/* Keep a pointer, wait until somebody else owns the block, and write to it. */
static void write_reused(size_t size, int tries, bool free_too) {
    char *victim = make_victim(size);
    for (int i = 0; i < tries; i++) {
        char *block = allocate(size);
        memset(block, 'C', size);
        if (block == victim) {
            illegal_write(victim + 24, 'B');
            gained_if(block[24] == 'B', "the next owner's block was overwritten");
        }
        if (free_too) release(block);
    }
    conclude(false, "");
}

static void reused_soon(void) { write_reused(TINY_BYTES, 100, false); }
static void reused_late(void) { write_reused(TINY_BYTES, 20000, true); }
static void reused_large(void) { write_reused(LARGE_BYTES, 10, true); }

/* --- what is left over --------------------------------------------------------------------------------------------- */

static void left_over(size_t size, int tries) {
    make_victim(size);
    for (int i = 0; i < SIBLINGS; i++) release(siblings[i]);
    for (int i = 0; i < tries; i++) {
        const char *block = allocate(size);
        gained_if(block[size - 8] == 'A' && block[size / 2] == 'A', "malloc returned a block with earlier content");
    }
    conclude(false, "");
}

static void left_over_tiny(void) { left_over(TINY_BYTES, 2000); }
static void left_over_mid(void) { left_over(MID_BYTES, 500); }
static void left_over_large(void) { left_over(LARGE_BYTES, 100); }

const struct attack stale_attacks[] = {
    {"poison", "overwrite the link of a free block: malloc returns an address of choice", poison},
    {"poison-near", "the same, with the address of a live block", poison_near},
    {"poison-part", "flip two bits of the link", poison_part},
    {"poison-fork", "the same with a mask that a forked child gave away", poison_learnt},
    {"poison-fork-near", "with a mask given away, and the address of a live block", poison_learnt_near},
    {"read-freed-tiny", "read 48 bytes after free", read_tiny},
    {"read-freed-mid", "read 6,000 bytes after free", read_mid},
    {"read-freed-large", "read 300,000 bytes after free", read_large},
    {"write-freed-tiny", "write to 48 bytes after free", write_tiny},
    {"write-freed-mid", "write to 6,000 bytes after free", write_mid},
    {"write-freed-large", "write to 300,000 bytes after free", write_large},
    {"write-reused-soon", "write to 48 freed bytes that one of the next 100 calls of malloc gets", reused_soon},
    {"write-reused-late", "the same after up to 20,000 mallocs and frees", reused_late},
    {"write-reused-large", "the same with 300,000 bytes, 10 mallocs and frees", reused_large},
    {"left-over-tiny", "find earlier content in new blocks of 48 bytes", left_over_tiny},
    {"left-over-mid", "find earlier content in new blocks of 6,000 bytes", left_over_mid},
    {"left-over-large", "find earlier content in new blocks of 300,000 bytes", left_over_large},
    {0},
};

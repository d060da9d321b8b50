/* overflow.c - reads and writes beyond the ends of a block. */
#define _GNU_SOURCE 1
#include "attacks.h"

#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* So far an overflow goes at most. */
#define REACH_BYTES ((size_t)1 << 20)

static bool is_intact(const char *block, size_t size) {
    for (size_t i = 0; i < size; i++)
        if (block[i] != 'A') return false;
    return true;
}

/* From the end of one block on, byte by byte, up to `extra` bytes into the next one. */
static void write_into_next(size_t size, size_t extra) {
    struct pair pair = neighbours(size);
    for (char *at = pair.low + size; at < pair.high + extra && at < pair.low + size + REACH_BYTES; at++)
        illegal_write(at, 'B');
    bool hit = !is_intact(pair.high, size);
    release(pair.low);
    release(pair.high);
    conclude(hit, "the next block was overwritten");
}

static void next_tiny(void) { write_into_next(TINY_BYTES, 16); }
static void next_mid(void) { write_into_next(MID_BYTES, 16); }
static void next_large(void) { write_into_next(LARGE_BYTES, 16); }

/* From the start of one block down to the end of the one before. */
static void write_into_previous(size_t size) {
    struct pair pair = neighbours(size);
    for (char *at = pair.high - 1; at >= pair.low + size - 16 && at + REACH_BYTES > pair.high; at--)
        illegal_write(at, 'B');
    bool hit = !is_intact(pair.low, size);
    release(pair.high);
    release(pair.low);
    conclude(hit, "the block before was overwritten");
}

static void previous_tiny(void) { write_into_previous(TINY_BYTES); }
static void previous_mid(void) { write_into_previous(MID_BYTES); }
static void previous_large(void) { write_into_previous(LARGE_BYTES); }

/* A zero behind a string that just fits. */
static void write_nul(size_t about) {
    size_t size = full_size(about);
    struct pair pair = neighbours(size);
    illegal_write(pair.low + size, 0);
    release(pair.low);
    release(pair.high);
    conclude(true, "a byte of somebody else's was cleared");
}

static void nul_tiny(void) { write_nul(TINY_BYTES - 8); }
static void nul_mid(void) { write_nul(MID_BYTES); }

/* One byte too many where the block is larger than what was asked for. */
static void write_slack(void) {
    char *block = allocate(TINY_BYTES - 7);
    bool outside = malloc_usable_size(block) == TINY_BYTES - 7;
    illegal_write(block + TINY_BYTES - 7, 'B');
    release(block);
    conclude(outside, "a byte of somebody else's was overwritten");
}

static void read_next(size_t size) {
    struct pair pair = neighbours(size);
    for (const char *at = pair.low + size; at < pair.high && at < pair.low + size + REACH_BYTES; at++) illegal_read(at);
    bool seen = pair.high < pair.low + size + REACH_BYTES && illegal_read(pair.high) == 'A';
    conclude(seen, "the next block was read");
}

static void read_tiny(void) { read_next(TINY_BYTES); }
static void read_large(void) { read_next(LARGE_BYTES); }

/* Enough blocks that the allocator has metadata for many. */
#define FIELD 4000
static char *field[FIELD];

static int compare(const void *a, const void *b) {
    const char *const *one = a, *const *other = b;
    return *one < *other ? -1 : *one > *other;
}

static void field_make(void) {
    for (int i = 0; i < FIELD; i++) {
        field[i] = allocate(64);
        memset(field[i], 'A', 64);
    }
    qsort(field, FIELD, sizeof *field, compare);
}

static _Noreturn void field_end(void) {
    for (int i = 0; i < FIELD; i++) release(field[i]);
    conclude(false, "");
}

/* As long as other blocks lie there. What is between them, or in their place, may be the allocator's. */
static void metadata_above(void) {
    field_make();
    for (char *at = field[FIELD / 2] + 64; at < field[FIELD / 2] + 4096; at++) illegal_write(at, 'B');
    field_end();
}

/* Below the lowest block there is none of the program's. */
static void metadata_below(void) {
    field_make();
    for (char *at = field[0] - 1; at > field[0] - 65536; at--) illegal_write(at, 'B');
    field_end();
}

const struct attack overflow_attacks[] = {
    {"overflow-tiny", "write past the end of 48 bytes into the next block", next_tiny},
    {"overflow-mid", "write past the end of 6,000 bytes into the next block", next_mid},
    {"overflow-large", "write past the end of 300,000 bytes into the next block", next_large},
    {"underflow-tiny", "write in front of 48 bytes into the block before", previous_tiny},
    {"underflow-mid", "write in front of 6,000 bytes into the block before", previous_mid},
    {"underflow-large", "write in front of 300,000 bytes into the block before", previous_large},
    {"nul-tiny", "a zero byte right behind a small block", nul_tiny},
    {"nul-mid", "a zero byte right behind about 6,000 bytes", nul_mid},
    {"slack", "one byte too many, within what the allocator rounded up", write_slack},
    {"overread-tiny", "read past the end of 48 bytes into the next block", read_tiny},
    {"overread-large", "read past the end of 300,000 bytes into the next block", read_large},
    {"metadata-above", "write 4 KiB upwards over blocks of 64 bytes, then free all of them", metadata_above},
    {"metadata-below", "write 64 KiB downwards from the lowest block, then free all", metadata_below},
    {0},
};

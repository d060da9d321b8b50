/* hotpath.c - one malloc and one free that hit, over and over, for counting their instructions under callgrind.
 *
 * Callgrind counts only inside the function that count.sh names (--toggle-collect): `hot_malloc`, `hot_free`, or
 * `hot_nothing`, which is the same frame around a call of an empty function. The difference is the cost of a hit. The
 * caller runs N and 2 N steps and takes the difference, so that what happens once drops out. Some blocks of the size
 * stay alive, unless their number is 0: a free that leaves its span empty is another path.
 *
 * Arguments: steps, size, live blocks.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

/* Neither inlined nor looked into: the three frames must be the same, stack adjustment included. */
#if defined(__has_attribute) && __has_attribute(noipa)
#define NOINLINE __attribute__((noipa))
#else
#define NOINLINE __attribute__((noinline))
#endif

enum { WARM_UP_STEPS = 2000, MAX_LIVE = 4096 };

NOINLINE void *hot_malloc(size_t size) {
    void *block = malloc(size);
    __asm__ volatile("" : "+r"(block)); /* no tail call: callgrind must see this function return */
    return block;
}

NOINLINE void hot_free(void *block) {
    free(block);
    __asm__ volatile("");
}

NOINLINE static void *nothing(size_t size) {
    __asm__ volatile("" : "+r"(size));
    return NULL;
}

NOINLINE void *hot_nothing(size_t size) {
    void *block = nothing(size);
    __asm__ volatile("" : "+r"(block));
    return block;
}

/* The warm-up does the same under names that callgrind does not know. */
NOINLINE static void warm_up(size_t size) {
    for (size_t i = 0; i < WARM_UP_STEPS; i++) {
        void *block = malloc(size);
        __asm__ volatile("" : "+r"(block) : : "memory");
        free(block);
    }
}

int main(int argc, char **argv) {
    static void *live[MAX_LIVE];
    size_t steps = argc > 1 ? strtoul(argv[1], NULL, 10) : 10000, size = argc > 2 ? strtoul(argv[2], NULL, 10) : 64;
    size_t live_count = argc > 3 ? strtoul(argv[3], NULL, 10) : 16;
    uintptr_t sum = 0;
    if (live_count > MAX_LIVE) return 1;
    for (size_t i = 0; i < live_count; i++) live[i] = malloc(size);
    warm_up(size);
    for (size_t i = 0; i < steps; i++) {
        char *block = hot_malloc(size);
        if (block == NULL) return 1;
        block[0] = (char)i;
        hot_free(block);
        sum += (uintptr_t)hot_nothing(size);
    }
    for (size_t i = 0; i < live_count; i++) free(live[i]);
    return sum != 0;
}

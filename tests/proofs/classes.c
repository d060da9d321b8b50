/* Size classes, for every size and alignment. */
#include "proof.h"

#include "tier/classes.h"

void prove_fits(void) {
    size_t size = nondet_size();
    given(size <= MID_MAX_BYTES);
    unsigned class = class_of_size(size);
    prove(class < CLASSES);
    prove(class_bytes(class) >= size);
    prove(class == 0 || class_bytes(class - 1) < size); /* the smallest that does */
    prove((class < TINY_CLASSES) == (size <= TINY_MAX_BYTES));
}

void prove_monotone(void) {
    size_t small = nondet_size(), large = nondet_size();
    given(small <= large && large <= MID_MAX_BYTES);
    prove(class_of_size(small) <= class_of_size(large));
}

void prove_bytes(void) {
    unsigned class = nondet_unsigned();
    given(class < CLASSES);
    size_t bytes = class_bytes(class);
    prove(bytes >= GRANULE_BYTES && bytes <= MID_MAX_BYTES && bytes % GRANULE_BYTES == 0);
    prove(class_of_size(bytes) == class);
    prove(class < TINY_CLASSES || bytes % 128 == 0); /* MID_UNIT_SHIFT */
    if (class > 0) {
        size_t before = class_bytes(class - 1);
        prove(before < bytes);
        prove(bytes - before == GRANULE_BYTES || 8 * (bytes - before) <= bytes); /* at most an eighth is wasted */
    }
}

/* The table of malloc's ready lists is by granules: all sizes of one granule are of one class. */
void prove_granules(void) {
    size_t size = nondet_size();
    given(size >= 1 && size <= TINY_MAX_BYTES);
    size_t granules = (size + GRANULE_BYTES - 1) / GRANULE_BYTES;
    prove(granules <= TINY_GRANULES);
    prove(class_of_size(granules * GRANULE_BYTES) == class_of_size(size));
}

static void aligned(size_t size, size_t alignment) {
    unsigned class = class_of_aligned(size, alignment);
    prove(class < CLASSES);
    prove(class_bytes(class) >= size && (class_bytes(class) & (alignment - 1)) == 0);
}
static void aligned_to(unsigned first, unsigned last) {
    size_t size = nondet_size();
    given(size <= MID_MAX_BYTES);
    for (unsigned shift = first; shift <= last; shift++) aligned(size, (size_t)1 << shift);
}
void prove_aligned_1(void) { aligned_to(0, 4); }
void prove_aligned_32(void) { aligned_to(5, 7); }
void prove_aligned_256(void) { aligned_to(8, 10); }
void prove_aligned_2048(void) { aligned_to(11, 15); }

void prove_aligned_beyond(void) {
    size_t size = nondet_size(), alignment = nondet_size();
    given(size_is_power(alignment) && (size > MID_MAX_BYTES || alignment > MID_MAX_BYTES));
    prove(class_of_aligned(size, alignment) == CLASSES);
}

/* Powers of two are sizes: what is asked for in one is aligned to itself. */
void prove_powers(void) {
    unsigned shift = nondet_unsigned();
    given(shift >= 4 && shift <= 15);
    prove(class_bytes(class_of_size((size_t)1 << shift)) == (size_t)1 << shift);
}

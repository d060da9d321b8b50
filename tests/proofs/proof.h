/* proof.h - what every proof includes: the code of the library as it is, and values of which nothing is known but what is given.
 *
 * CBMC (Clarke, Kroening, Lerda 2004) turns a function without arguments and all that it calls into one formula: every run of it, for every value
 * of the nondet_* functions, with loops unrolled as often as they can go round (which is proved, too). run.sh has the list.
 */
#ifndef TIDE_PROOFS_PROOF_H
#define TIDE_PROOFS_PROOF_H

/* What older releases of CBMC do not know, by what the manual of gcc says of it. */
#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

static inline int proof_popcount(uint64_t word) {
    word = word - (word >> 1 & UINT64_C(0x5555555555555555));
    word = (word & UINT64_C(0x3333333333333333)) + (word >> 2 & UINT64_C(0x3333333333333333));
    word = (word + (word >> 4)) & UINT64_C(0x0f0f0f0f0f0f0f0f);
    return (int)(word + (word >> 8) + (word >> 16) + (word >> 24) + (word >> 32) + (word >> 40) + (word >> 48) +
                 (word >> 56)) &
           127;
}
/* By halves: solvers like that better than arithmetic. */
static inline int proof_ctz(uint64_t word) {
    int count = 0;
    __CPROVER_assert(word != 0, "the lowest one of a word that is not zero");
    if ((word & UINT32_MAX) == 0) count += 32, word >>= 32;
    if ((word & UINT16_MAX) == 0) count += 16, word >>= 16;
    if ((word & UINT8_MAX) == 0) count += 8, word >>= 8;
    if ((word & 15) == 0) count += 4, word >>= 4;
    if ((word & 3) == 0) count += 2, word >>= 2;
    return count + ((word & 1) == 0);
}
static inline int proof_clz(uint64_t word) {
    int count = 0;
    __CPROVER_assert(word != 0, "the highest one of a word that is not zero");
    if (word >> 32 == 0) count += 32, word <<= 32;
    if (word >> 48 == 0) count += 16, word <<= 16;
    if (word >> 56 == 0) count += 8, word <<= 8;
    if (word >> 60 == 0) count += 4, word <<= 4;
    if (word >> 62 == 0) count += 2, word <<= 2;
    return count + (word >> 63 == 0);
}
static inline bool proof_mul_overflow(size_t a, size_t b, size_t *product) {
    unsigned __int128 exact = (unsigned __int128)a * b;
    *product = (size_t)exact;
    return exact >> 64 != 0;
}
static inline bool proof_add_overflow(size_t a, size_t b, size_t *sum) {
    *sum = a + b;
    return *sum < a;
}
/* dcheck() in the code is proved along the way. */
#define __builtin_trap() __CPROVER_assert(0, "a dcheck of the code")
#define __builtin_popcountll(word) proof_popcount(word)
#define __builtin_ctzll(word) proof_ctz(word)
#define __builtin_clzll(word) proof_clz(word)
#define __builtin_mul_overflow(a, b, product) proof_mul_overflow(a, b, product)
#define __builtin_add_overflow(a, b, sum) proof_add_overflow(a, b, sum)

size_t nondet_size(void);
uint64_t nondet_u64(void);
uint32_t nondet_u32(void);
uint16_t nondet_u16(void);
uint8_t nondet_u8(void);
unsigned nondet_unsigned(void);
bool nondet_bool(void);

#define given(cond) __CPROVER_assume(cond)
#define prove(cond) __CPROVER_assert((cond), #cond)

#endif

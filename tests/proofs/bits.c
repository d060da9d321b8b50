/* Bit operations, for every word. */
#include "proof.h"

#include "base/bits.h"

void prove_lowest_highest(void) {
    uint64_t word = nondet_u64();
    given(word != 0);
    unsigned low = bits_lowest(word), high = bits_highest(word), other = nondet_unsigned();
    prove(low <= high && high < 64);
    prove((word >> low & 1) == 1 && (word >> high & 1) == 1);
    given(other < 64 && (word >> other & 1) == 1);
    prove(low <= other && other <= high);
}

void prove_range(void) {
    unsigned first = nondet_unsigned(), count = nondet_unsigned(), bit = nondet_unsigned();
    given(count >= 1 && count <= 32 && first <= 32 - count && bit < 32);
    prove((bits_range(first, count) >> bit & 1) == (bit >= first && bit < first + count));
}

/* Whether `count` ones start at `bit`. */
static bool run_at(uint32_t word, unsigned bit, unsigned count) {
    return bit + count <= 32 && (word & bits_range(bit, count)) == bits_range(bit, count);
}

void prove_run_starts(void) {
    uint32_t word = nondet_u32();
    unsigned count = nondet_unsigned(), bit = nondet_unsigned();
    given(count >= 1 && count <= 32 && bit < 32);
    prove((bits_run_starts(word, count) >> bit & 1) == run_at(word, bit, count));
}

void prove_longest_run(void) {
    uint32_t word = nondet_u32();
    unsigned longest = bits_longest_run(word), bit = nondet_unsigned();
    prove(longest <= 32 && (longest == 0) == (word == 0));
    given(bit < 32);
    prove(!run_at(word, bit, longest + 1)); /* no run is longer */
    if (word != 0) prove(bits_run_starts(word, longest) != 0);
}

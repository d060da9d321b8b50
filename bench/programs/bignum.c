/* bignum.c - arithmetic with numbers of any length, each result a new small block.
 *
 * Pattern: the continued fraction of a square root is run with numbers that are kept in blocks of their exact length,
 * so that every addition, multiplication and division allocates its result and frees its operands soon after. The idea
 * is `cfrac`, the factoring program by Dave Barrett that is in nearly every set of allocator benchmarks since Zorn and
 * Grunwald (1992).
 * Stresses: hit paths for blocks of 8 to some hundred bytes that live for microseconds.
 *
 * Arguments: rounds, terms of the fraction in a round.
 */
#include "common.h"

typedef struct number {
    uint32_t length; /* limbs, the highest one not zero (a zero has none) */
    uint32_t limbs[];
} number;

static tally work;

static number *number_new(uint32_t length) {
    number *n = take(sizeof *n + (length + 1) * sizeof(uint32_t));
    n->length = length;
    work.blocks++;
    return n;
}

static number *number_trim(number *n) {
    while (n->length > 0 && n->limbs[n->length - 1] == 0) n->length--;
    return n;
}

static number *number_small(uint64_t value) {
    number *n = number_new(2);
    n->limbs[0] = (uint32_t)value;
    n->limbs[1] = (uint32_t)(value >> 32);
    return number_trim(n);
}

static number *number_add(const number *a, const number *b) {
    if (a->length < b->length) {
        const number *swap = a;
        a = b;
        b = swap;
    }
    number *sum = number_new(a->length + 1);
    uint64_t carry = 0;
    for (uint32_t i = 0; i < a->length; i++) {
        carry += (uint64_t)a->limbs[i] + (i < b->length ? b->limbs[i] : 0);
        sum->limbs[i] = (uint32_t)carry;
        carry >>= 32;
    }
    sum->limbs[a->length] = (uint32_t)carry;
    return number_trim(sum);
}

static number *number_scale(const number *a, uint32_t factor) {
    number *product = number_new(a->length + 1);
    uint64_t carry = 0;
    for (uint32_t i = 0; i < a->length; i++) {
        carry += (uint64_t)a->limbs[i] * factor;
        product->limbs[i] = (uint32_t)carry;
        carry >>= 32;
    }
    product->limbs[a->length] = (uint32_t)carry;
    return number_trim(product);
}

/* The rest of a division by a small number; the quotient is made and thrown away, as a trial division does. */
static uint32_t number_rest(const number *a, uint32_t divisor) {
    number *quotient = number_new(a->length);
    uint64_t rest = 0;
    for (uint32_t i = a->length; i-- > 0;) {
        rest = rest << 32 | a->limbs[i];
        quotient->limbs[i] = (uint32_t)(rest / divisor);
        rest %= divisor;
    }
    work.sum += number_trim(quotient)->length;
    free(quotient);
    return (uint32_t)rest;
}

static uint64_t root_floor(uint64_t value) {
    uint64_t low = 0, high = UINT64_C(1) << 31;
    while (low + 1 < high) {
        uint64_t middle = (low + high) / 2;
        if (middle * middle <= value)
            low = middle;
        else
            high = middle;
    }
    return low;
}

/* h(n) = a(n) h(n-1) + h(n-2): the numerators of the convergents of the root of `radicand`. */
static void fraction_run(uint64_t radicand, size_t terms) {
    static const uint32_t primes[] = {3, 7, 11, 19, 31, 53, 101, 251};
    uint64_t root = root_floor(radicand), m = 0, d = 1, a = root;
    number *before = number_small(1), *now = number_small(root);
    for (size_t i = 0; i < terms && d != 0; i++) {
        m = d * a - m;
        d = (radicand - m * m) / d;
        if (d == 0) break;
        a = (root + m) / d;
        number *scaled = number_scale(now, (uint32_t)a);
        number *next = number_add(scaled, before);
        free(scaled);
        for (size_t p = 0; p < sizeof primes / sizeof *primes; p++) work.sum += number_rest(next, primes[p]);
        free(before);
        before = now;
        now = next;
    }
    free(before);
    free(now);
}

int main(int argc, char **argv) {
    size_t rounds = argument(argc, argv, 1, 20000), terms = argument(argc, argv, 2, 150);
    rng random = rng_seed(0);
    for (size_t i = 0; i < rounds; i++) fraction_run(1000003 + rng_next(&random) % 1000000000, terms);
    return tally_print("bignum", work);
}

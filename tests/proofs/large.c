/* Large blocks: from any size that a program may ask for to pages, slices and the guard behind them. */
#include "proof.h"

#include "tier/large.c"

struct region region_main;
struct options options;
size_t os_page_bytes;
static struct span head;

static void system_any(void) {
    os_page_bytes = nondet_size();
    given(os_page_bytes == 4 * KIB || os_page_bytes == 16 * KIB || os_page_bytes == 64 * KIB);
    options.secure = nondet_bool();
}

void prove_sizes(void) {
    system_any();
    size_t size = nondet_size(), asked = size;
    if (!round_to_pages(&size)) {
        prove(asked > PTRDIFF_MAX - SLICE_BYTES && size == asked);
        return;
    }
    prove(asked <= PTRDIFF_MAX && size >= asked && size >= os_page_bytes && size % os_page_bytes == 0);
    prove(size - asked < os_page_bytes || asked == 0);
    size_t slices = slices_of(size);
    prove(slices >= 1 && slices <= PTRDIFF_MAX / SLICE_BYTES + 1);
    prove(slices * SLICE_BYTES >= size + guard_bytes());
    prove((slices - 1) * SLICE_BYTES < size + guard_bytes()); /* not one too many */
    head.large.bytes = size;
    head.large.slices = slices;
    prove(guard_length(&head) >= guard_bytes() && guard_length(&head) % os_page_bytes == 0);
    prove(guard_length(&head) < SLICE_BYTES + guard_bytes());
}

void prove_monotone(void) {
    system_any();
    size_t small = nondet_size(), large = nondet_size();
    given(small <= large);
    bool fits = round_to_pages(&large);
    if (fits) prove(round_to_pages(&small) && small <= large && slices_of(small) <= slices_of(large));
}

#include "heap/bell.h"

_Atomic uint32_t heap_bell;

void bell_ring(void) {
    if (atomic_exchange_explicit(&heap_bell, BELL_QUIET, memory_order_seq_cst) == BELL_ASLEEP) heap_on_bell();
}

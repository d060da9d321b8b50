/* stdatomic.h - for proofs only, which know one thread: an atomic access is an access. */
#ifndef TIDE_PROOFS_STDATOMIC_H
#define TIDE_PROOFS_STDATOMIC_H

#define memory_order_relaxed 0
#define memory_order_acquire 2
#define memory_order_release 3
#define memory_order_acq_rel 4
#define memory_order_seq_cst 5
#define atomic_load_explicit(at, order) (*(at))
#define atomic_store_explicit(at, value, order) ((void)(*(at) = (value)))
#define atomic_load(at) (*(at))
#define atomic_store(at, value) ((void)(*(at) = (value)))
#define atomic_signal_fence(order) ((void)0)
#define atomic_thread_fence(order) ((void)0)

#endif

/* keeper.h - the keeper gives memory back when the work stops, with no call from any thread of the program.
 *
 *             mark                 nothing for 10 ms                   plan's time is up
 *   WATCH ------------> LOOK -------------------------> QUIET -------------------------------> STILL
 *     ^  <--------------+  something happened             |  gives back, or holds               |  asleep: no wake-up, no CPU
 *     +----------------------the bell rings---------------+-------------------------------------+
 *
 * WATCH and LOOK alternate every KEEPER_MARK_NS: ask the bell, mark all threads (claim.h), look 10 ms later. Nothing has happened when
 * the bell has not rung and no thread was inside an operation. Every POLICY_TICK_NS of work the caches shrink (policy.h), idle threads' heaps
 * are emptied for the others, and the sources of memory pressure are looked at.
 *
 * In mode static nothing of this happens.
 *
 * One step at a time, by the keeper's thread (life.h) or by tide_tick(). Steps are serialised by keeper_lock, which comes before all others.
 */
#ifndef TIDE_KEEPER_KEEPER_H
#define TIDE_KEEPER_KEEPER_H

#include "keeper/policy.h"
#include "keeper/pressure.h"
#include "os/os.h"

#define KEEPER_MARK_NS 25000000u
#define KEEPER_IDLE_NS 10000000u

enum keeper_state { KEEPER_WATCH, KEEPER_LOOK, KEEPER_QUIET, KEEPER_STILL };

/* What there is to tell, since the start unless the name says otherwise. Readers see a moment's value. */
struct keeper_figures {
    _Atomic uint64_t flushes;        /* quiet spells in which everything went */
    _Atomic uint64_t holds, trims;   /* quiet spells with patience; shrinks while busy */
    _Atomic uint64_t marks, pressed; /* rounds of marking; pressure events obeyed */
    _Atomic uint64_t regret_bytes;   /* given back, and taken again so soon that it cost more than it saved */
    _Atomic uint64_t hold_hits, hold_misses;
    _Atomic uint64_t locked_bytes;                                    /* free, but the system does not take it; now */
    _Atomic uint64_t patience_ns;                                     /* now */
    _Atomic uint64_t wakeups, cpu_ns;                                 /* of the keeper's thread */
    _Atomic uint64_t pool_states[TIER_COUNT], pool_rates[TIER_COUNT]; /* enum pool_state; bytes taken per tick; now */
    _Atomic uint32_t state, runs;                                     /* enum keeper_state; 1 while there is a thread */
    _Atomic uint32_t claims_possible;                                 /* 0: the kernel has no barrier for us */
};
extern tide_hidden struct keeper_figures keeper_figures;

extern tide_hidden struct os_lock keeper_lock;

/* Do what is due. Returns when to come again, UINT64_MAX: not before the bell rings. `self`: the calling thread has a heap, too, and is inside an
 * operation. */
tide_hidden tide_cold uint64_t keeper_step(uint64_t now_ns, bool self);
/* Start from the beginning (a new keeper, a forked child). */
tide_hidden tide_cold void keeper_reset(void);
/* Whether what keeper_step waits for is the bell, at least. */
tide_hidden tide_cold bool keeper_waits_for_bell(void);
/* Whether there is nobody left whose memory could be given back. */
tide_hidden tide_cold bool keeper_is_alone(void);

#endif

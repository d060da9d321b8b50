/* claim.pml - how somebody else empties a sleeping thread's heap (src/heap/claim.h), checked by Spin.
 *
 * Parties: two application threads, 0 and 1, each with a heap of the same number, and the keeper, 2. A thread allocates, flushes (claims
 * the other heap, then works on its own), forks, and ends; after its end a new thread may bind its heap. The keeper claims both
 * heaps, round after round. In small configurations thread 1 does nothing.
 *
 * What is kept, and how:
 *   record_heap   the thread's record: its own heap (REAL) or the vacant one (VACANT). Written under the heap's lock only, so it needs no store
 *                 buffer: whoever else looks takes the lock first, and dropping it drains.
 *   busy          through the thread's store buffer. `busy` is memory, own_busy what the thread itself sees.
 *   structures    lists and spans: nothing is kept of them but who is inside (`inside`, one bit a party) and how many stores to
 *                 them still wait in a buffer (`pending`). A second party inside, or pending stores of somebody else, is the error.
 *   TLS           a record is there while its thread lives (`alive`): touching it later is an error, too.
 *   membarrier    drains one thread's buffer after the other, not all at the same instant.
 *   locks         one step to take. TSO: an atomic instruction, drains the buffer. WEAK: acquire, drains nothing. Dropping drains in both.
 *   fork          the child is not run: at the instant of the fork every heap that it would use must be whole.
 *   processors    any thread may stop for any time between any two steps.
 *
 * Store buffers hold SLOTS entries. TSO (default): first in, first out. WEAK: entries of one address keep their order, others may overtake, but
 * `busy = 0` is a release store: it leaves only when all that was stored before it has left.
 *
 * Who runs (numbers): OPS_0 OPS_1 operations, FLUSHES_0 FLUSHES_1, FORKS_0 FORKS_1, ENDS_0 (a new thread follows), ROUNDS of the
 * keeper, HANDLERS signal handlers that allocate. PATIENT: fork never gives up waiting, so that a circle shows as a deadlock.
 * JUMPS: handlers that leave an operation for good (siglongjmp). FORK_HANDLERS: handlers that fork. FLUSH_MARKS_SELF: another right way to
 * flush.
 *
 * What each macro breaks:
 *   NO_BARRIER            nobody runs membarrier
 *   FORK_NO_BARRIER       fork runs none
 *   BARRIER_FIRST         the claimer runs it before it vacates, not after
 *   HEAP_BEFORE_BUSY      an operation loads `heap` before it stores `busy`
 *   NO_RELEASE            `busy = 0` is a plain store (WEAK)
 *   HANDLER_CLEARS_BUSY   a handler inside an operation leaves with busy = 0
 *   HANDLER_USES_HEAP     a handler inside an operation uses the thread's heap
 *   MARK_KEPT             a thread that comes back leaves the heap marked
 *   MARK_KEPT_AT_END      a thread that ends, and the one that binds its heap, do
 *   NO_RECHECK            the claimer marks what it has vacated without looking whether the thread came back meanwhile
 *   NO_SECOND_LOOK        after a system call without the lock the claimer goes on without looking
 *   TAKE_UNMARKED         the claimer takes a heap that is vacant, marked or not (a fork makes heaps vacant, too)
 *   CLAIM_EARLY           the claimer works on the heap before the barrier, and puts it back if the thread was busy
 *   NO_CLAIM_LOCK         two claimers at a time
 *   END_WITHOUT_LOCK      a thread ends without its heap's lock
 *   WAITING_LATE          a thread that comes back clears `waiting` after it has dropped the lock
 *   FORK_SKIPS_VACANT     fork does not wait for threads whose heap it finds vacant
 *   FORK_NOT_OWN          fork does not take the lock of the forking thread's own heap
 *   FLUSH_STAYS           a flush does not say `waiting` while it claims: it waits for a lock that the fork holds which waits for it
 *   FLUSH_RETURNS_BLIND   a flush clears `waiting` without the registry lock, so a fork that has counted on it may be under way
 *   ABANDON_WITHOUT_LOCK  after a jump the heap is given up without its lock (JUMPS)
 *   MARK_KEPT_LOST        a heap that is given up stays marked (JUMPS)
 *   WAKE_BLIND            a thread comes back to a heap that was given up by a claimer meanwhile (JUMPS)
 *   FORK_TRUSTS_LATE      fork in a handler counts on a heap whose lock it got only at the second try, unasked (FORK_HANDLERS)
 *   FORK_TRUSTS_OWN       the child of a fork in a handler uses the own heap although a claimer held its lock (FORK_HANDLERS)
 */

#ifndef SLOTS
#define SLOTS 4
#endif
#ifndef OPS_0
#define OPS_0 2
#endif
#ifndef OPS_1
#define OPS_1 0
#endif
#ifndef FLUSHES_0
#define FLUSHES_0 0
#endif
#ifndef FLUSHES_1
#define FLUSHES_1 0
#endif
#ifndef FORKS_0
#define FORKS_0 0
#endif
#ifndef FORKS_1
#define FORKS_1 0
#endif
#ifndef ENDS_0
#define ENDS_0 0
#endif
#ifndef ROUNDS
#define ROUNDS 2
#endif
#ifndef HANDLERS
#define HANDLERS 0
#endif
#ifndef JUMPS
#define JUMPS 0
#endif
#ifndef FORK_HANDLERS
#define FORK_HANDLERS 0
#endif

#define KEEPER 2
#define BIT(party) (1 << (party))

/* record_heap */
#define VACANT 0
#define REAL 1
/* state */
#define ORPHAN 0
#define BOUND 1
#define LOST 2
/* claim */
#define OWN 0
#define VACATED 1
#define MARKED 2

bit record_heap[2] = REAL;
bit busy[3];               /* [KEEPER] stays 0: it makes the inlines simpler */
bit own_busy[3];
bit alive[2] = 1;          /* the record exists */
bit has_heap[2] = 1;       /* the thread is bound, as it knows itself */
byte state[2] = BOUND;
bit attached[2] = 1;       /* the heap knows the thread's record */
byte claim[2];
bit waiting[2];
byte inside[2];
byte pending[3];
byte lock[2], claim_lock, registry_lock; /* 0 or party + 1 */
byte handlers = HANDLERS, jumps = JUMPS, fork_handlers = FORK_HANDLERS;

/* --- store buffers: base-4 numbers, the oldest entry in the lowest digit --------------------------------------------- */

#define BUSY_ON 1
#define BUSY_OFF 2
#define DATA 3
byte buffer[3];

#define FIRST(p) (buffer[p] & 3)
#define SECOND(p) ((buffer[p] >> 2) & 3)
#define THIRD(p) ((buffer[p] >> 4) & 3)
#define HAS_ROOM(p) (buffer[p] < (1 << (2 * (SLOTS - 1))))
#define NEXT_DIGIT(p) (buffer[p] == 0 -> 1 : (buffer[p] < 4 -> 4 : (buffer[p] < 16 -> 16 : 64)))

inline buffer_add(p, entry) { buffer[p] = buffer[p] + (entry) * NEXT_DIGIT(p) }

inline store_busy(p, on) {
    atomic {
        HAS_ROOM(p) -> buffer_add(p, (on -> BUSY_ON : BUSY_OFF));
        own_busy[p] = on
    }
}

inline arrive(p, entry) {
    if
    :: (entry) == BUSY_ON -> busy[p] = 1
    :: (entry) == BUSY_OFF -> busy[p] = 0
    :: (entry) == DATA -> pending[p]--
    fi
}

#define DRAIN(p) busy[p] = own_busy[p]; pending[p] = 0; buffer[p] = 0

/* Which entries may overtake those before them. The release store never does. */
#ifdef NO_RELEASE
#define PASSES(entry, before) ((before) != 0 && ((entry) == DATA) != ((before) == DATA))
#else
#define PASSES(entry, before) ((before) != 0 && (entry) != BUSY_OFF && ((entry) == DATA) != ((before) == DATA))
#endif

active proctype memory() {
end:
    do
    :: d_step { buffer[0] != 0 -> arrive(0, FIRST(0)); buffer[0] = buffer[0] >> 2 }
    :: d_step { buffer[1] != 0 -> arrive(1, FIRST(1)); buffer[1] = buffer[1] >> 2 }
#ifdef WEAK
#define SECOND_LEAVES(p) (SECOND(p) != 0 && PASSES(SECOND(p), FIRST(p)))
#define THIRD_LEAVES(p) (THIRD(p) != 0 && PASSES(THIRD(p), FIRST(p)) && PASSES(THIRD(p), SECOND(p)))
    :: d_step { SECOND_LEAVES(0) -> arrive(0, SECOND(0)); buffer[0] = FIRST(0) | ((buffer[0] >> 4) << 2) }
    :: d_step { SECOND_LEAVES(1) -> arrive(1, SECOND(1)); buffer[1] = FIRST(1) | ((buffer[1] >> 4) << 2) }
    :: d_step { THIRD_LEAVES(0) -> arrive(0, THIRD(0)); buffer[0] = (buffer[0] & 15) | ((buffer[0] >> 6) << 4) }
    :: d_step { THIRD_LEAVES(1) -> arrive(1, THIRD(1)); buffer[1] = (buffer[1] & 15) | ((buffer[1] >> 6) << 4) }
#endif
    od
}

inline barrier() {
#ifdef NO_BARRIER
    skip
#else
    d_step { DRAIN(0) };
    d_step { DRAIN(1) }
#endif
}

/* --- locks and heaps ------------------------------------------------------------------------------------------------ */

#ifdef WEAK
#define ACQUIRE(p) skip
#else
#define ACQUIRE(p) DRAIN(p)
#endif

inline take(which, p) { atomic { which == 0 -> which = p + 1; ACQUIRE(p) } }
inline drop(which, p) { d_step { DRAIN(p); which = 0 } }

/* Somebody else's record: it must be there. */
inline touch_record(h) { assert(alive[h] && attached[h]) }

inline enter(h, party) {
    d_step {
        assert((inside[h] & ~BIT(party)) == 0);
        assert(party == h || pending[h] == 0);
        inside[h] = inside[h] | BIT(party)
    }
}
inline leave(h, party) { inside[h] = inside[h] & ~BIT(party) }

inline say_waiting(p) { d_step { DRAIN(p); waiting[p] = 1 } } /* a sequentially consistent store */

/* --- the thread's side ---------------------------------------------------------------------------------------------- */

#if JUMPS > 0
#define MAY_JUMP(party) if :: atomic { party != KEEPER && jumps > 0 -> jumps-- }; goto jumped :: true fi;
#else
#define MAY_JUMP(party)
#endif

/* A signal handler allocates: it finds busy set and keeps away from heap and locks. */
inline handler(p) {
#if HANDLERS > 0
    if
    :: atomic { handlers > 0 -> handlers-- };
        assert(own_busy[p]);
#ifdef HANDLER_CLEARS_BUSY
        store_busy(p, 0);
#endif
#ifdef HANDLER_USES_HEAP
        if
        :: record_heap[p] == REAL -> assert(inside[p] == 0)
        :: else
        fi
#endif
    :: true
    fi
#else
    skip
#endif
}

inline use_own(p) {
    enter(p, p);
    MAY_JUMP(p)
#if FORK_HANDLERS > 0
    if
    :: atomic { fork_handlers > 0 -> fork_handlers-- }; fork_in_handler(p)
    :: true
    fi;
#endif
#ifdef WEAK
    atomic { HAS_ROOM(p) -> buffer_add(p, DATA); pending[p]++ };
#endif
    handler(p);
    leave(p, p)
}

/* heap_wake. The heap may have been given up meanwhile: then the thread has none. */
inline wake(p) {
    if
    :: atomic { lock[p] == 0 -> lock[p] = p + 1; ACQUIRE(p) } /* at the first try */
    :: true ->
        say_waiting(p);
        handler(p);
        MAY_JUMP(p)
#if FORK_HANDLERS > 0
        if
        :: atomic { fork_handlers > 0 -> fork_handlers-- }; fork_in_handler(p)
        :: true
        fi;
#endif
        take(lock[p], p)
    fi;
    d_step {
#ifndef WAITING_LATE
        waiting[p] = 0;
#endif
        if
#ifndef WAKE_BLIND
        :: state[p] == LOST -> has_heap[p] = 0
        :: else ->
#else
        :: true ->
#endif
            record_heap[p] = REAL;
#ifndef MARK_KEPT
            claim[p] = OWN
#endif
        fi
    };
    drop(lock[p], p);
#ifdef WAITING_LATE
    waiting[p] = 0
#endif
}

/* heap_own: busy is set, `seen` was loaded after it. */
inline own(p) {
    if
    :: seen == VACANT && has_heap[p] -> wake(p)
    :: else
    fi
}

inline begin(p) {
#ifdef HEAP_BEFORE_BUSY
    seen = record_heap[p];
    store_busy(p, 1);
#else
    store_busy(p, 1);
    seen = record_heap[p];
#endif
    handler(p)
}

inline operation(p) {
    begin(p);
    own(p);
    if
    :: has_heap[p] || seen == REAL -> use_own(p)
    :: else /* the shared heap, under its lock */
    fi;
    store_busy(p, 0)
}

/* The key's destructor, and what the new thread does that gets the heap. */
inline end_thread(p) {
    store_busy(p, 1);
    seen = REAL;
#ifndef END_WITHOUT_LOCK
    say_waiting(p);
    take(lock[p], p);
    waiting[p] = 0;
#endif
    if
    :: state[p] != LOST ->
        d_step {
            record_heap[p] = VACANT;
            attached[p] = 0;
#ifndef MARK_KEPT_AT_END
            claim[p] = OWN;
#endif
            state[p] = ORPHAN
        };
        enter(p, p);
        leave(p, p)
    :: else
    fi;
#ifndef END_WITHOUT_LOCK
    drop(lock[p], p);
#endif
    store_busy(p, 0);
    d_step { DRAIN(p); alive[p] = 0; has_heap[p] = 0 }
}

inline bind(p) {
    d_step { alive[p] = 1; record_heap[p] = VACANT };
    store_busy(p, 1);
    take(registry_lock, p);
    take(lock[p], p);
    if
    :: state[p] == ORPHAN ->
        d_step {
            state[p] = BOUND;
            attached[p] = 1;
            has_heap[p] = 1;
#ifndef MARK_KEPT_AT_END
            claim[p] = OWN;
#endif
            record_heap[p] = REAL
        };
        enter(p, p);
        leave(p, p)
    :: else
    fi;
    drop(lock[p], p);
    drop(registry_lock, p);
    store_busy(p, 0)
}

/* --- the claimer's side --------------------------------------------------------------------------------------------- */

/* Nobody can look on while the lock is held, except at the record, which is one store: one step. */
inline vacate(c, h) {
    atomic {
        lock[h] == 0 ->
        vacated[h] = 0;
        if
        :: state[h] == BOUND && claim[h] == OWN ->
            touch_record(h);
            record_heap[h] = VACANT;
            claim[h] = VACATED;
            vacated[h] = 1
        :: else
        fi
    }
#ifdef CLAIM_EARLY
    ;
    if
    :: vacated[h] -> enter(h, c); leave(h, c)
    :: else
    fi
#endif
}

#ifdef NO_RECHECK
#define TO_MARK(h) (vacated[h] && state[h] == BOUND)
#else
#define TO_MARK(h) (claim[h] == VACATED)
#endif

inline mark(c, h) {
    take(lock[h], c);
    if
    :: TO_MARK(h) ->
        touch_record(h);
        if
        :: busy[h] -> claim[h] = OWN; touch_record(h); record_heap[h] = REAL
        :: else -> claim[h] = MARKED
        fi
    :: else
    fi;
    drop(lock[h], c)
}

#ifdef TAKE_UNMARKED
#define MAY_ACT(h) (state[h] == ORPHAN || (state[h] == BOUND && record_heap[h] == VACANT))
#else
#define MAY_ACT(h) (state[h] == ORPHAN || claim[h] == MARKED)
#endif

inline sweep(c, h) {
    take(lock[h], c);
    if
    :: MAY_ACT(h) ->
        enter(h, c);
        MAY_JUMP(c)
        leave(h, c);
        if
        :: waiting[h] /* give way to the owner */
        :: else ->
            if
            :: true -> enter(h, c); leave(h, c)
            :: true -> /* pages go back, without the lock */
                drop(lock[h], c);
                take(lock[h], c);
                if
#ifdef NO_SECOND_LOOK
                :: true -> enter(h, c); leave(h, c)
#else
                :: MAY_ACT(h) -> enter(h, c); leave(h, c)
                :: else
#endif
                fi
            fi
        fi
    :: else
    fi;
    drop(lock[h], c)
}

#ifdef NO_CLAIM_LOCK
#define CLAIM_TAKE(p) skip
#define CLAIM_DROP(p) skip
#else
#define CLAIM_TAKE(p) take(claim_lock, p)
#define CLAIM_DROP(p) drop(claim_lock, p)
#endif

#define TWO_HEAPS (OPS_1 + FLUSHES_1 + FORKS_1 > 0)

active proctype keeper() {
    byte rounds;
    bit vacated[2];
    do
    :: rounds < ROUNDS ->
        CLAIM_TAKE(KEEPER);
#ifdef BARRIER_FIRST
        barrier();
#endif
        vacate(KEEPER, 0);
#if TWO_HEAPS
        vacate(KEEPER, 1);
#endif
#ifndef BARRIER_FIRST
        barrier();
#endif
        mark(KEEPER, 0);
#if TWO_HEAPS
        mark(KEEPER, 1);
#endif
        CLAIM_DROP(KEEPER);
        /* ten milliseconds and more */
        CLAIM_TAKE(KEEPER);
        sweep(KEEPER, 0);
#if TWO_HEAPS
        sweep(KEEPER, 1);
#endif
        CLAIM_DROP(KEEPER);
        rounds++
    :: else -> break
    od;
    atomic { rounds = 0; vacated[0] = 0; vacated[1] = 0 }
#if JUMPS > 0
    ;
    goto done;
jumped: /* it has no signal handlers */
    assert(false);
done:
    skip
#endif
}

/* A flush: the other heap at once, then the own one. */
inline claim_other(p) {
    atomic { registry_lock == 0 -> ACQUIRE(p) }; /* bury the dead */
    vacate(p, 1 - p);
    barrier();
    mark(p, 1 - p);
    sweep(p, 1 - p)
}

#ifndef FLUSH_MARKS_SELF
/* The thread keeps its heap. It has nothing half done meanwhile, and says so to a fork; it comes back under the registry lock, which a fork
 * holds from before it looks until it is over. */
inline flush(p) {
    begin(p);
    own(p);
    say_waiting(p);
    CLAIM_TAKE(p);
#ifdef FLUSH_STAYS
    waiting[p] = 0;
#endif
    claim_other(p);
#ifndef FLUSH_STAYS
#ifdef FLUSH_RETURNS_BLIND
    waiting[p] = 0;
#else
    take(registry_lock, p);
    waiting[p] = 0;
    drop(registry_lock, p);
#endif
#endif
    if
    :: has_heap[p] -> use_own(p)
    :: else
    fi;
    CLAIM_DROP(p);
    store_busy(p, 0)
}
#else
/* The thread leaves its heap, marks it, and works on it as on any other. A fork does not wait for threads of marked heaps. */
inline flush(p) {
    begin(p);
    say_waiting(p);
    take(lock[p], p);
    d_step {
        waiting[p] = 0;
        if
        :: state[p] == LOST -> has_heap[p] = 0
        :: else -> record_heap[p] = VACANT; claim[p] = MARKED
        fi
    };
    drop(lock[p], p);
    CLAIM_TAKE(p);
    claim_other(p);
    sweep(p, p);
    CLAIM_DROP(p);
    store_busy(p, 0)
}
#endif

/* --- fork ----------------------------------------------------------------------------------------------------------- */

inline fork_now(p) {
    begin(p);
    say_waiting(p);
    take(registry_lock, p);
    waiting[p] = 0;
    lost = 0;
    stopped = 0;
    if
    :: state[1 - p] == BOUND ->
        take(lock[1 - p], p);
        if
        :: attached[1 - p] ->
            touch_record(1 - p);
#ifdef FORK_SKIPS_VACANT
            stopped = (record_heap[1 - p] == REAL);
#else
            stopped = 1;
#endif
            record_heap[1 - p] = VACANT
        :: else
        fi
    :: else -> take(lock[1 - p], p)
    fi;
#ifndef FORK_NOT_OWN
    take(lock[p], p);
#endif
#ifndef FORK_NO_BARRIER
    barrier();
#endif
    if
    :: stopped ->
        if
        :: !busy[1 - p] -> touch_record(1 - p)
        :: waiting[1 - p]
#ifdef FLUSH_MARKS_SELF
        :: claim[1 - p] == MARKED
#endif
#ifndef PATIENT
        :: busy[1 - p] -> lost = 1 /* 100 ms are over */
#endif
        fi
    :: else
    fi;
    store_busy(p, 0);
    /* The instant of the fork. */
    d_step {
        assert(state[p] == LOST || inside[p] == 0);
        assert(lost || state[1 - p] == LOST || (inside[1 - p] == 0 && pending[1 - p] == 0))
    };
    store_busy(p, 1);
#ifndef FORK_NOT_OWN
    drop(lock[p], p);
#endif
    drop(lock[1 - p], p);
    drop(registry_lock, p);
    d_step { lost = 0; stopped = 0 };
    store_busy(p, 0)
}

/* In a handler that has interrupted an operation: nothing is waited for, so what cannot be had is lost to the child. */
#if FORK_HANDLERS > 0
bit got_registry, got_early, got_late;
inline fork_in_handler(p) {
    d_step { lost = 1; got_early = 0; got_late = 0; got_registry = 0; DRAIN(p) };
    if
    :: registry_lock == 0 -> atomic { registry_lock == 0 -> registry_lock = p + 1; got_registry = 1 }
    :: registry_lock != 0
    fi;
    if
    :: got_registry ->
        if
        :: atomic { lock[1 - p] == 0 -> lock[1 - p] = p + 1; got_early = 1 }
        :: lock[1 - p] != 0
        fi;
        if
        :: got_early && attached[1 - p] -> touch_record(1 - p); record_heap[1 - p] = VACANT
        :: else
        fi;
        barrier();
        if
        :: got_early && attached[1 - p] ->
            if
            :: !busy[1 - p] || waiting[1 - p] -> lost = 0
            :: busy[1 - p]
            fi
        :: got_early && !attached[1 - p] -> lost = 0
        :: else
        fi;
        if
        :: !got_early ->
            if
            :: atomic { lock[1 - p] == 0 -> lock[1 - p] = p + 1; got_late = 1 }
            :: lock[1 - p] != 0
            fi
        :: else
        fi;
#ifdef FORK_TRUSTS_LATE
        if
        :: got_late -> lost = 0
        :: else
        fi
#endif
    :: else
    fi;
    d_step {
#ifdef FORK_TRUSTS_OWN
        assert((inside[p] & ~BIT(p)) == 0);
#else
        assert((lock[p] != 0 && lock[p] != p + 1) || (inside[p] & ~BIT(p)) == 0);
#endif
        assert(lost || state[1 - p] == LOST || (inside[1 - p] == 0 && pending[1 - p] == 0))
    };
    if
    :: got_early || got_late -> drop(lock[1 - p], p)
    :: else
    fi;
    if
    :: got_registry -> drop(registry_lock, p)
    :: else
    fi;
    d_step { lost = 0; got_registry = 0; got_early = 0; got_late = 0 }
}
#endif

/* --- an application thread ------------------------------------------------------------------------------------------ */

/* heap_abandon: an operation has been left by a jump. Its heap, and those whose locks it held, are not used again. */
inline abandon(p) {
    DRAIN(p);
    if
    :: lock[1 - p] == p + 1 ->
        d_step {
            state[1 - p] = LOST;
#ifndef MARK_KEPT_LOST
            claim[1 - p] = OWN;
#endif
            attached[1 - p] = 0
        };
        drop(lock[1 - p], p)
    :: else
    fi;
    if
    :: registry_lock == p + 1 -> drop(registry_lock, p)
    :: else
    fi;
    if
    :: claim_lock == p + 1 -> drop(claim_lock, p)
    :: else
    fi;
#ifdef ABANDON_WITHOUT_LOCK
    attached[p] = 0;
    state[p] = LOST;
    record_heap[p] = VACANT;
    has_heap[p] = 0;
    if
    :: lock[p] == p + 1 -> drop(lock[p], p)
    :: else
    fi;
#else
    if
    :: lock[p] == p + 1
    :: else ->
        state[p] = LOST; /* before `waiting`: a fork that sees this sees that, too */
        say_waiting(p);
        take(lock[p], p)
    fi;
    d_step {
        attached[p] = 0;
        state[p] = LOST;
#ifndef MARK_KEPT_LOST
        claim[p] = OWN;
#endif
        record_heap[p] = VACANT;
        has_heap[p] = 0;
        waiting[p] = 0
    };
    drop(lock[p], p);
#endif
    store_busy(p, 0)
}

proctype thread(byte p; byte ops; byte flushes; byte forks; byte ends) {
    bit seen, lost, stopped;
    bit vacated[2];
    do
    :: ops > 0 -> ops--; operation(p)
#if FLUSHES_0 + FLUSHES_1 > 0
    :: flushes > 0 -> flushes--; flush(p)
#endif
#if FORKS_0 + FORKS_1 > 0
    :: forks > 0 -> forks--; fork_now(p)
#endif
#if ENDS_0 > 0
    :: ends > 0 && has_heap[p] -> ends--; end_thread(p); bind(p)
#endif
    :: ops + flushes + forks + ends == 0 || !has_heap[p] -> break
    od;
#if JUMPS > 0
    goto done;
jumped:
    abandon(p);
    operation(p);
done:
#endif
    atomic { ops = 0; flushes = 0; forks = 0; ends = 0; seen = 0; vacated[0] = 0; vacated[1] = 0 }
}

init {
    atomic {
        run thread(0, OPS_0, FLUSHES_0, FORKS_0, ENDS_0);
#if OPS_1 + FLUSHES_1 + FORKS_1 > 0
        run thread(1, OPS_1, FLUSHES_1, FORKS_1, 0)
#endif
    }
}

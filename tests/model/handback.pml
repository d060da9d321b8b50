/* handback.pml - empty pages of a span go back while its thread sleeps (src/heap/punch.h), checked by Spin.
 *
 *   listed --withdraw (under the lock)--> in hand --pages go back, no lock--> linked into the remote queue --drain--> listed or given up
 *
 * Parties: the claimer; the thread whose heap it is, which wakes, frees, allocates, ends; two other threads that free blocks of
 * its spans. How a claimer comes to act for a sleeping thread is the matter of claim.pml; here it is one step (`marked`). All stores are
 * in order: the words that threads share are changed by atomic instructions with acquire and release.
 *
 * How much happens (numbers): SPANS, ROUNDS of the claimer, OPS of the thread, ENDS (it ends afterwards), OTHERS (threads that free).
 *
 * A span has four blocks, each on a page of its own: 0 belongs to the thread, 1 and 2 to the other threads, 3 is free.
 * Its remote word is two variables: `word_blocks` and `word_queued`. The queue is linked by `next`; drains take it whole
 * into `undrained`.
 *
 * Errors: a page dropped whose block is not free, or whose span was given up; a span in two places (listed twice, linked twice, given up
 * while listed, linked or in hand); at the end a span in no place, a freed block that nobody will find, or an orphan with work left.
 *
 * What each macro breaks:
 *   QUEUED_LATE     `queued` is set when the span is linked, not when it is taken in hand
 *   LINK_FIRST      the span is linked before its pages have gone back
 *   WITHDRAW_BLIND  the claimer takes a span in hand that others have queued already
 *   STAYS_LISTED    the claimer leaves the span on its list
 *   PUT_DIRECTLY    the thread puts its own block into a span in hand, instead of pushing it as others do
 *   NEXT_LATE       the drain reads remote_next after it has cleared `queued`
 *   NO_FINISH       the claimer does not look whether the heap was orphaned meanwhile
 *   END_UNDRAINED   a thread that ends does not drain after it has become an orphan
 *   UNLINKED        the claimer forgets to link the span
 */

#ifndef SPANS
#define SPANS 1
#endif
#ifndef ROUNDS
#define ROUNDS 1
#endif
#ifndef OPS
#define OPS 2
#endif
#ifndef ENDS
#define ENDS 1
#endif
#ifndef OTHERS
#define OTHERS 2
#endif

#define NONE 0 /* of links: span + 1 */
#define B(block) (1 << (block))
#define ALL 15

byte live[SPANS] = 7;      /* blocks that the program holds */
byte free_blocks[SPANS] = 8;
byte word_blocks[SPANS];
bit word_queued[SPANS];
byte next[SPANS];
byte head, undrained;
bit in_hand[SPANS];        /* the flag in the descriptor: changed by who owns the heap */
bit listed[SPANS] = 1;
bit held[SPANS];           /* the claimer's own list */
bit gone[SPANS];
bit linked[SPANS];         /* whether it is in the queue, or in `undrained` */
byte lock;                 /* 0 or 1 */
bit marked, orphan, busy;
byte running = 2 + OTHERS;

inline take() { atomic { lock == 0 -> lock = 1 } }
inline drop() { lock = 0 }

/* --- what the owner does, or who stands in for it ------------------------------------------------------------------- */

inline list(s) { assert(!listed[s] && !held[s] && !gone[s]); listed[s] = 1 }

inline give_up(s) {
    d_step {
        assert(!linked[s] && !held[s] && !gone[s] && word_blocks[s] == 0);
        listed[s] = 0;
        gone[s] = 1
    }
}

/* After blocks have come back. */
inline settle(s) {
    if
    :: free_blocks[s] == ALL -> give_up(s)
    :: else ->
        if
        :: !listed[s] -> d_step { list(s) }
        :: else
        fi
    fi
}

inline link_span(s) {
    first = head;
    do
    :: true ->
        next[s] = first;
        if
        :: d_step { head == first -> assert(!linked[s] && !gone[s]); linked[s] = 1; head = (s) + 1 }; break
        :: else -> first = head
        fi
    od;
    first = NONE
}

inline push(s, block) {
    atomic { /* compare-and-swap */
        assert(!gone[s]);
        word_blocks[s] = word_blocks[s] | B(block);
        queued = word_queued[s];
        word_queued[s] = 1
    };
    if
    :: !queued -> link_span(s)
    :: else
    fi
}

/* One span; ends with span == NONE when there was none. */
inline drain_step() {
    if
    :: undrained == NONE -> d_step { undrained = head; head = NONE }
    :: else
    fi;
    span = undrained;
    if
    :: span != NONE ->
#ifndef NEXT_LATE
        undrained = next[span - 1];
#endif
        d_step { /* exchange */
            assert(linked[span - 1]);
            linked[span - 1] = 0;
            taken = word_blocks[span - 1];
            word_blocks[span - 1] = 0;
            word_queued[span - 1] = 0
        };
#ifdef NEXT_LATE
        undrained = next[span - 1];
#endif
        d_step {
            in_hand[span - 1] = 0;
            assert((free_blocks[span - 1] & taken) == 0);
            free_blocks[span - 1] = free_blocks[span - 1] | taken;
            taken = 0
        };
        settle(span - 1)
    :: else
    fi
}

inline drain() {
    do
    :: true ->
        drain_step();
        if
        :: span == NONE -> break
        :: else -> span = NONE
        fi
    od
}

/* --- the parties ---------------------------------------------------------------------------------------------------- */

#define MAY_ACT (marked || orphan)

#define DROPPED(s, block) (pages[s] & B(block)) == 0 || (!gone[s] && (free_blocks[s] & B(block)) != 0 && (live[s] & B(block)) == 0)
/* Pages go one by one. */
inline purge(s) {
    assert(DROPPED(s, 3));
    assert(DROPPED(s, 2));
    assert(DROPPED(s, 1));
    d_step { assert(DROPPED(s, 0)); pages[s] = 0 }
}

inline withdraw(s) {
    if
    :: listed[s] && free_blocks[s] != 0 ->
#ifndef STAYS_LISTED
        listed[s] = 0;
#endif
        atomic {
            queued = word_queued[s];
#ifndef QUEUED_LATE
            word_queued[s] = 1
#endif
        };
        if
#ifdef WITHDRAW_BLIND
        :: true ->
#else
        :: queued -> d_step { list(s) }
        :: else ->
#endif
            d_step { in_hand[s] = 1; held[s] = 1; pages[s] = free_blocks[s] }
        fi;
        queued = 0
    :: else
    fi
}

inline hand_back(s) {
    if
    :: held[s] ->
        held[s] = 0;
#ifdef QUEUED_LATE
        word_queued[s] = 1;
#endif
#ifndef UNLINKED
        link_span(s)
#endif
    :: else
    fi
}

#if SPANS > 1
#define EACH(what) what(0); what(1)
#else
#define EACH(what) what(0)
#endif

active proctype claimer() {
    byte rounds, span, taken, first;
    byte pages[SPANS];
    bit queued;
    do
    :: rounds < ROUNDS ->
        rounds++;
        if
        :: atomic { lock == 0 && !busy && !orphan -> marked = 1 }
        :: true
        fi;
        take();
        if
        :: MAY_ACT ->
            if
            :: drain()
            :: drain_step(); span = NONE /* the owner waits: the rest is its own matter */
            fi;
            EACH(withdraw)
        :: else
        fi;
#ifdef LINK_FIRST
        EACH(hand_back);
#endif
        drop();
        EACH(purge);
        take();
        EACH(hand_back);
#ifndef NO_FINISH
        if
        :: MAY_ACT -> drain()
        :: else
        fi;
#endif
        drop()
    :: else -> break
    od;
    atomic { rounds = 0; running-- }
}

inline come_in() {
    busy = 1;
    if
    :: marked -> take(); marked = 0; drop()
    :: else
    fi
}

inline free_own(s) {
    live[s] = live[s] & ~B(0);
#ifdef PUT_DIRECTLY
    if
    :: true ->
#else
    if
    :: in_hand[s] -> push(s, 0); queued = 0
    :: else ->
#endif
        d_step { assert(!gone[s]); free_blocks[s] = free_blocks[s] | B(0) };
        settle(s)
    fi
}

/* Block 3 serves as the one that is allocated; it is not freed again. */
inline allocate(s) {
    if
    :: listed[s] && (free_blocks[s] & B(3)) != 0 ->
        d_step {
            free_blocks[s] = free_blocks[s] & ~B(3);
            live[s] = live[s] | B(3);
            listed[s] = (free_blocks[s] != 0)
        }
    :: else
    fi
}

active proctype owner() {
    byte s, ops = OPS, span, taken, first;
    bit queued;
    do
    :: ops > 0 ->
        ops--;
        come_in();
        if
        :: s = 0
#if SPANS > 1
        :: s = 1
#endif
        fi;
        if
        :: (live[s] & B(0)) != 0 -> free_own(s)
        :: drain(); allocate(s)
        :: allocate(s)
        :: drain()
        fi;
        s = 0;
        busy = 0
    :: ops == 0 || ENDS > 0 -> break
    od;
    ops = 0;
#if ENDS > 0
    busy = 1;
    take();
    marked = 0;
    orphan = 1;
#ifndef END_UNDRAINED
    drain();
#endif
    drop();
    busy = 0;
#endif
    running--
}

/* Frees block `mine` of all spans. Who has queued a span of an orphan drains, too. */
inline free_other(s) {
    live[s] = live[s] & ~B(mine);
    push(s, mine);
    if
    :: !queued && orphan -> take(); drain(); drop()
    :: else
    fi
}
proctype other(byte mine) {
    byte span, taken, first;
    bit queued;
    EACH(free_other);
    atomic { queued = 0; running-- }
}

inline check_end(s) {
    assert(!held[s] && !(gone[s] && (listed[s] || linked[s])));
    assert(gone[s] || ((free_blocks[s] | word_blocks[s] | live[s]) == ALL));
    assert(gone[s] || listed[s] || linked[s] || free_blocks[s] == 0);
    assert(linked[s] == word_queued[s] && (word_blocks[s] == 0 || linked[s]) && (!in_hand[s] || linked[s]));
    assert(!(orphan && linked[s]))
}

init {
    atomic {
        run other(1);
#if OTHERS > 1
        run other(2)
#endif
    };
    running == 0;
    EACH(check_end)
}

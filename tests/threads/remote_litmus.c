/* remote_litmus.c - the remote word of a span and the queue of its heap, by themselves: more threads than processors push blocks, one owner
 * collects them, and sometimes takes a span out of the others' hands (remote_withdraw), as punching does.
 *
 * Every block goes round: owner -> a pusher's mailbox -> pushed -> collected. It is never in two places, what the pusher wrote into it is what the
 * owner reads, a list is as long as its count, and a span is in the queue at most once. At the end none is missing.
 *
 * argv: seed, rounds through all blocks, pushers */
#define _GNU_SOURCE 1
#include <pthread.h>
#include <sched.h>
#include <stdio.h>

#include "check.h"
#include "heap/remote.c"

enum { SPANS = 2, BLOCKS = 64, ALL = SPANS * BLOCKS, PUSHERS_MAX = 16 };
#define BLOCK_BYTES 64u

static struct heap heap;
static struct span spans[SPANS];
static _Alignas(64) struct {
    struct block links;
    uint64_t written, filler[5];
} blocks[SPANS][BLOCKS];

enum place { OWNED, MAILED, PUSHED };
static struct {
    _Atomic int place;
    uint64_t expected; /* handed on with the block */
} known[ALL];

/* One writer, one reader. */
static struct mailbox {
    _Atomic uint32_t put, got;
    uint32_t block[ALL];
} mailboxes[PUSHERS_MAX];
static _Atomic bool over;
static unsigned pushers;

static void *pusher_main(void *argument) {
    struct mailbox *box = argument;
    uint64_t random = (uint64_t)(box - mailboxes) + 77;
    for (;;) {
        uint32_t got = atomic_load_explicit(&box->got, memory_order_relaxed);
        if (got == atomic_load_explicit(&box->put, memory_order_acquire)) {
            if (atomic_load(&over)) return NULL;
            sched_yield();
            continue;
        }
        uint32_t block = box->block[got % ALL];
        atomic_store_explicit(&box->got, got + 1, memory_order_release);
        CHECK(atomic_exchange_explicit(&known[block].place, PUSHED, memory_order_relaxed) == MAILED);
        uint64_t value = random_next(&random);
        blocks[block / BLOCKS][block % BLOCKS].written = value;
        known[block].expected = value;
        remote_push(&spans[block / BLOCKS], &blocks[block / BLOCKS][block % BLOCKS].links,
                    block % BLOCKS * (BLOCK_BYTES / GRANULE_BYTES));
    }
}

static void mail(uint32_t block, uint64_t *random) {
    struct mailbox *box = &mailboxes[random_below(random, pushers)];
    uint32_t put = atomic_load_explicit(&box->put, memory_order_relaxed);
    CHECK(atomic_exchange_explicit(&known[block].place, MAILED, memory_order_relaxed) == OWNED);
    box->block[put % ALL] = block;
    atomic_store_explicit(&box->put, put + 1, memory_order_release);
}

/* Returns how many blocks came back. */
static uint32_t collect(struct span *span, uint32_t *back) {
    uint64_t word = remote_take_all(span);
    uint32_t link = remote_head(word), count = remote_count(word);
    CHECK((word & REMOTE_QUEUED) != 0 && word >> 33 == 0);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t index = (link - 1) / (BLOCK_BYTES / GRANULE_BYTES), block = (uint32_t)(span - spans) * BLOCKS + index;
        CHECKF(link != 0 && index < BLOCKS, "link %u at %u of %u", link, i, count);
        CHECK(atomic_exchange_explicit(&known[block].place, OWNED, memory_order_relaxed) == PUSHED);
        CHECK(blocks[span - spans][index].written == known[block].expected);
        link = (uint32_t)(uintptr_t)blocks[span - spans][index].links.next;
        back[i] = block;
    }
    CHECKF(link == 0, "%u blocks were counted, and there are more", count);
    return count;
}

int main(int argc, char **argv) {
    uint64_t random = argument_number(argc, argv, 1, 1), rounds = argument_number(argc, argv, 2, 20000);
    pushers = (unsigned)argument_number(argc, argv, 3, 5);
    CHECK(pushers >= 1 && pushers <= PUSHERS_MAX);
    pthread_t threads[PUSHERS_MAX];
    for (unsigned i = 0; i < SPANS; i++) spans[i].heap = &heap;
    for (unsigned i = 0; i < pushers; i++) CHECK(pthread_create(&threads[i], NULL, pusher_main, &mailboxes[i]) == 0);
    for (uint32_t block = 0; block < ALL; block++) mail(block, &random);

    uint64_t collected = 0, withdrawn = 0;
    uint32_t out = ALL; /* blocks that are not the owner's */
    static uint32_t back[ALL];
    for (;;) {
        bool last = collected >= rounds * ALL;
        if (last && out == 0) break;
        struct span *hand = random_below(&random, 4) == 0 ? &spans[random_below(&random, SPANS)] : NULL;
        if (hand != NULL && remote_withdraw(hand)) {
            for (unsigned i = 0; i < 3; i++) sched_yield(); /* pushes gather; nobody links it */
            withdrawn++;
            remote_enqueue(hand);
        }
        unsigned seen = 0;
        struct span *span = remote_take_queue(&heap);
        if (span == NULL) sched_yield();
        while (span != NULL) {
            struct span *next = span->remote_next; /* before it may be queued again */
            CHECK((seen >> (span - spans) & 1) == 0);
            seen |= 1u << (span - spans);
            uint32_t count = collect(span, back);
            collected += count;
            out -= count;
            for (uint32_t i = 0; i < count && !last; i++, out++) mail(back[i], &random);
            span = next;
        }
    }
    atomic_store(&over, true);
    for (unsigned i = 0; i < pushers; i++) CHECK(pthread_join(threads[i], NULL) == 0);
    CHECK(remote_take_queue(&heap) == NULL && spans[0].remote == 0 && spans[1].remote == 0);
    printf("%llu blocks collected, spans withdrawn %llu times\n", (unsigned long long)collected,
           (unsigned long long)withdrawn);
    return 0;
}

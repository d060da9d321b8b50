#include "os/rank.h"

#include "base/format.h"
#include "os/report.h"

#ifdef TIDE_DEBUG

static const char *const rank_names[RANKS] = {"unranked", "life pause", "life",        "keeper", "claim",
                                              "registry", "heap",       "shared heap", "run",    "meta"};

/* The first lock of each rank that the thread has taken. A jump may have left a note of a lock that is dropped by now, so the lock is asked. */
static __thread struct os_lock *rank_held[RANKS] __attribute__((tls_model("initial-exec")));

static bool is_held(unsigned rank) { return rank_held[rank] != NULL && os_lock_is_mine(rank_held[rank]); }

static _Noreturn void rank_fatal(unsigned wanted, unsigned held) {
    struct line what = {0};
    line_add(&what, "lock order: ");
    line_add(&what, rank_names[wanted]);
    line_add(&what, " wanted while ");
    line_add(&what, rank_names[held]);
    line_add(&what, " is held");
    report_fatal(NULL, NULL, what.text);
}

void rank_wanted(struct os_lock *lock) {
    unsigned wanted = lock->rank;
    if (wanted == RANK_NONE || os_lock_is_mine(lock)) return;
    for (unsigned rank = wanted; rank < RANKS; rank++)
        if (is_held(rank) && !(rank == RANK_HEAP && wanted == RANK_HEAP && is_held(RANK_REGISTRY)))
            rank_fatal(wanted, rank);
}

void rank_taken(struct os_lock *lock) {
    if (!is_held(lock->rank)) rank_held[lock->rank] = lock;
}

void rank_dropped(struct os_lock *lock) {
    if (rank_held[lock->rank] == lock) rank_held[lock->rank] = NULL;
}

void rank_forget(unsigned rank) { rank_held[rank] = NULL; }

#endif
typedef int rank_is_not_empty;

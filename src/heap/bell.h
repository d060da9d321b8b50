/* bell.h - how a slow path tells the keeper that something happens.
 *
 *   quiet  --the keeper asks--> asked  --the keeper lies down--> asleep
 *     ^                           |                                |
 *     +------a slow operation-----+---(and a wake-up)--------------+
 *
 * Where all heaps are vacant every operation is a slow one, so a bell that was asked for and has not rung says that nothing has
 * happened since. Slow operations look at it as they begin: a plain load, and nothing more while nobody asks. Who asks runs a
 * barrier in all threads afterwards (claim.h does); operations that had begun by then are seen by `busy`.
 */
#ifndef TIDE_HEAP_BELL_H
#define TIDE_HEAP_BELL_H

#include "os/os.h"

enum bell { BELL_QUIET, BELL_ASKED, BELL_ASLEEP };
extern tide_hidden _Atomic uint32_t heap_bell;

tide_hidden tide_cold void bell_ring(void);

tide_inline void bell_touch(void) {
    if (unlikely(load_relaxed(&heap_bell) != BELL_QUIET)) bell_ring();
}

/* The program has grown (run_grown): called at the end of an operation that allocated, with busy clear and no lock held. Defined in the layer
 * above, which starts the keeper there. */
tide_hidden tide_cold void heap_on_growth(void);
/* The first allocation of the process, before anything was done for it: the last moment to refuse (beside.h). Also defined above. */
tide_hidden tide_cold void heap_on_start(void);
/* Also defined above: the process is a forked child, with one thread; the bell has rung for one who sleeps; a thread's heap has become an orphan. */
tide_hidden tide_cold void heap_on_fork(void);
tide_hidden tide_cold void heap_on_bell(void);
tide_hidden tide_cold void heap_on_thread_end(void);

#endif

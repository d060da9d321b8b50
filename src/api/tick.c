/* tick.c - the keeper's work for programs that want no thread but their own. */
#include "api/public.h"
#include "heap/thread.h"
#include "keeper/keeper.h"
#include "keeper/life.h"
#include "tidemalloc.h"

PUBLIC uint64_t tide_tick(void) {
    if (region_main.base == 0 || life_runs() || heap_is_busy() || os_lock_is_mine(&heap_registry_lock))
        return UINT64_MAX;                 /* the last: a handler of fork */
    uint64_t blocked = os_signals_block(); /* nobody jumps out of a tick */
    heap_enter();                          /* quietly: a tick is no work of the program's */
    heap_record.slow = true;
    uint64_t now_ns = os_now_ns(), due_ns = now_ns + KEEPER_IDLE_NS; /* somebody else is at it */
    heap_step_aside();
    if (os_lock_try(&keeper_lock)) {
        due_ns = keeper_step(now_ns, true);
        os_lock_drop(&keeper_lock);
    }
    heap_step_back();
    heap_quit();
    os_signals_restore(blocked);
    return due_ns == UINT64_MAX ? UINT64_MAX : due_ns > now_ns ? due_ns - now_ns : 0;
}

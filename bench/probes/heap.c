/* heap.c - builds a live heap of mixed blocks and asks tidemalloc what its own bookkeeping takes.
 *
 * Usage: heap MIB. Prints "metadata_bytes allocated_bytes rss_bytes". The library is found at run time, because the
 * program is the same for every allocator; it exits with 3 under one that has no tide_stats_get.
 */
#define _GNU_SOURCE
#include "../programs/common.h"
#include "tidemalloc.h"
#include <dlfcn.h>
#include <unistd.h>

static uint64_t rss_bytes(void) {
    unsigned long long size = 0, resident = 0;
    FILE *statm = fopen("/proc/self/statm", "r");
    if (statm == NULL || fscanf(statm, "%llu %llu", &size, &resident) != 2) die("no /proc/self/statm");
    fclose(statm);
    return (uint64_t)resident * (uint64_t)sysconf(_SC_PAGESIZE);
}

int main(int argc, char **argv) {
    size_t left = argument(argc, argv, 1, 256) << 20;
    rng random = rng_seed(0);
    while (left > 0) {
        size_t size = rng_below(&random, 256) == 0 ? rng_size(&random, 4096, 1 << 20) : rng_size(&random, 16, 2048);
        if (size > left) size = left < 16 ? 16 : left;
        memset(opaque(take(size)), 1, size);
        left -= size;
    }
    int (*get)(tide_stats *, size_t);
    *(void **)&get = dlsym(RTLD_DEFAULT, "tide_stats_get");
    if (get == NULL) return 3;
    tide_stats stats;
    if (get(&stats, sizeof stats) != 0) die("tide_stats_get failed");
    printf("%" PRIu64 " %" PRIu64 " %" PRIu64 "\n", stats.metadata_bytes, stats.allocated_bytes, rss_bytes());
    return 0;
}

/* Exits with 0 when the malloc of this program is tidemalloc's: its statistics must see a block come and go. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tidemalloc.h>

static uint64_t allocated_bytes(void) {
    tide_stats stats;
    int error = tide_stats_get(&stats, sizeof stats);
    if (error != 0 || stats.version != TIDE_STATS_VERSION) {
        fprintf(stderr, "tide_stats_get: error %d\n", error);
        exit(1);
    }
    return stats.allocated_bytes;
}

int main(void) {
    const size_t size = 3u << 20;
    uint64_t before = allocated_bytes();
    char *volatile block = malloc(size);
    memset(block, 1, size);
    uint64_t during = allocated_bytes();
    free(block);
    uint64_t after = allocated_bytes();
    if (during < before + size || after >= before + size) {
        fprintf(stderr, "malloc is not tidemalloc's: %llu, %llu, %llu bytes allocated\n", (unsigned long long)before,
                (unsigned long long)during, (unsigned long long)after);
        return 1;
    }
    tide_flush_report report;
    return tide_release_all_caches(&report) != report.returned_bytes;
}

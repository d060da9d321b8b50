/* header.c - tidemalloc.h compiles in every C standard since C99, first and twice. */
#include "tidemalloc.h"
#include "tidemalloc.h"

int use_all(void);
int use_all(void) {
    tide_flush_report report = {0};
    tide_stats stats = {0};
    char value[8];
    return (int)(tide_release_all_caches(&report) % 2) + tide_stats_get(&stats, sizeof stats) +
           tide_get("mode", value, sizeof value) + (int)(report.kept_bytes % 2);
}

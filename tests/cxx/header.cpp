// header.cpp - tidemalloc.h compiles in every C++ standard since C++11, and its functions have C names.
#include "tidemalloc.h"

// A second time: the header guards itself.
#include "tidemalloc.h"

static_assert(sizeof(tide_flush_report) == 4 * sizeof(size_t), "the layout of tide_flush_report is part of the ABI");
static_assert(offsetof(tide_stats, keeper_running) == 2 * sizeof(uint32_t) + 16 * sizeof(uint64_t),
              "the layout of tide_stats v1 is part of the ABI");
static_assert(offsetof(tide_stats, tiny_retained_bytes) == offsetof(tide_stats, keeper_running) + 23 * sizeof(uint64_t),
              "the layout of tide_stats v2 is part of the ABI");
static_assert(sizeof(tide_stats) == offsetof(tide_stats, tiny_retained_bytes) + 8 * sizeof(uint64_t),
              "the layout of tide_stats v3 is part of the ABI");
static_assert(TIDE_STATS_VERSION == 3, "a new version needs a new line above");

int use_all(void);
int use_all(void) {
    tide_flush_report report = {};
    tide_stats stats = {};
    char value[8];
    size_t sum = tide_tiny_magazine_flush_all(&report) + tide_mid_pool_flush(&report) + tide_large_pool_flush(&report);
    sum += tide_pool_flush_all(nullptr) + tide_release_all_caches(nullptr);
    sum += report.returned_bytes + report.kept_bytes + report.pinned_bytes + report.missed_bytes;
    int result = tide_stats_get(&stats, sizeof stats) + tide_set("mode", "hybrid") +
                 tide_get("mode", value, sizeof value) + static_cast<int>(tide_tick() % 2);
    return result + static_cast<int>(sum % 2) + static_cast<int>(stats.allocated_bytes % 2);
}

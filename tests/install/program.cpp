// The same in C++: blocks of operator new must show in tidemalloc's statistics.
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <tidemalloc.h>
#include <vector>

static uint64_t allocated_bytes() {
    tide_stats stats;
    if (tide_stats_get(&stats, sizeof stats) != 0) std::abort();
    return stats.allocated_bytes;
}

int main() {
    const std::size_t count = 1000;
    uint64_t before = allocated_bytes();
    std::vector<std::unique_ptr<std::string>> strings;
    for (std::size_t i = 0; i < count; i++) strings.push_back(std::make_unique<std::string>(1000, 'x'));
    uint64_t during = allocated_bytes();
    strings.clear();
    uint64_t after = allocated_bytes();
    if (during < before + count * 1000 || after >= during) {
        std::fprintf(stderr, "operator new is not tidemalloc's: %llu, %llu, %llu bytes allocated\n",
                     static_cast<unsigned long long>(before), static_cast<unsigned long long>(during),
                     static_cast<unsigned long long>(after));
        return 1;
    }
    return 0;
}

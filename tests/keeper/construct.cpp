/* construct.cpp - programs that grow before main, in static constructors, and after it, in destructors. */
#include <cstdlib>
#include <cstring>
#include <unistd.h>
#include <vector>

extern "C" {
#include "check.h"
}
#include "subject.h"
#include "water.h"

namespace {

/* Grows past what a keeper needs, checks what is in the blocks, and frees them. */
void grow(unsigned char seed) {
    std::vector<unsigned char *> blocks;
    for (size_t i = 0; i < 4000; i++) {
        size_t size = 1 + i * 7 % 6000;
        auto *block = new unsigned char[size];
        std::memset(block, int(seed + i % 100), size);
        blocks.push_back(block);
    }
    for (size_t i = 0; i < blocks.size(); i++) {
        size_t size = 1 + i * 7 % 6000;
        CHECK(blocks[i][0] == (unsigned char)(seed + i % 100) && blocks[i][size - 1] == blocks[i][0]);
        delete[] blocks[i];
    }
}

struct Grower {
    unsigned char seed;
    explicit Grower(unsigned char s) : seed(s) { grow(seed); }
    ~Grower() { grow(seed); }
    Grower(const Grower &) = delete;
    Grower &operator=(const Grower &) = delete;
};

__attribute__((constructor(101))) void early() { grow(10); }
__attribute__((destructor(101))) void late() { grow(20); }
Grower one(30);
thread_local Grower of_thread(40);
Grower two(50);

} // namespace

int main() {
    subject_require();
    grow(60);
    of_thread.seed = 41;
    if (!subject.is_tide) return 0;
    keeper_expect();
    task_expect_count(2);
    size_t level = water_level();
    for (unsigned char round = 0; round < 3; round++) {
        grow(round);
        water_expect_baseline(level, "after main has begun");
    }
    return 0;
}

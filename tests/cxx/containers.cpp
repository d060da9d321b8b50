// containers.cpp - C++ at work: containers, pmr, strings, shared pointers across threads, thread_local destructors, static
// construction and destruction, and the strong guarantee when memory runs out.
#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <memory_resource>
#include <mutex>
#include <new>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "check.h"
#include "subject.h"

namespace {

// Allocates before main, frees after it.
struct early_and_late {
    std::map<int, std::string> map;
    early_and_late() {
        for (int i = 0; i < 100; i++) map[i] = std::string(static_cast<std::size_t>(i) * 10, 'x');
    }
    ~early_and_late() {
        map.erase(50);
        CHECK(map.size() == 99);
        std::vector<char> v(100000, 'y');
        CHECK(v[99999] == 'y');
    }
} static_object;

void check_containers(std::uint64_t seed) {
    std::vector<std::string> strings;
    std::map<std::string, std::vector<int>> map;
    std::unordered_map<std::uint64_t, std::unique_ptr<std::string>> hash;
    std::list<std::string> list;
    std::deque<std::uint64_t> deque;
    std::set<std::size_t> set;
    for (int i = 0; i < 20000; i++) {
        std::uint64_t r = random_next(&seed);
        std::string text(r % 200, static_cast<char>('a' + r % 26));
        switch (r % 6) {
        case 0: strings.push_back(text); break;
        case 1: map[text.substr(0, 3)].push_back(i); break;
        case 2: hash[r % 5000] = std::make_unique<std::string>(text); break;
        case 3:
            list.push_front(text);
            if (list.size() > 100) list.pop_back();
            break;
        case 4:
            deque.push_back(r);
            if (deque.size() > 1000) deque.pop_front();
            break;
        default: set.insert(r % 3000); set.erase(r / 7 % 3000);
        }
    }
    for (const std::string &s : strings) CHECK(s.empty() || s.find_first_not_of(s[0]) == std::string::npos);
    for (const auto &entry : hash) CHECK(entry.second->empty() || entry.second->front() == entry.second->back());
    std::sort(strings.begin(), strings.end());
    CHECK(std::is_sorted(strings.begin(), strings.end()));
    strings.shrink_to_fit();
}

void check_pmr() {
    std::pmr::unsynchronized_pool_resource pool;
    std::pmr::synchronized_pool_resource shared_pool;
    std::pmr::monotonic_buffer_resource buffer;
    for (std::pmr::memory_resource *resource :
         {static_cast<std::pmr::memory_resource *>(&pool), static_cast<std::pmr::memory_resource *>(&shared_pool),
          static_cast<std::pmr::memory_resource *>(&buffer), std::pmr::new_delete_resource()}) {
        std::pmr::vector<std::pmr::string> v(resource);
        for (std::size_t i = 0; i < 3000; i++) v.emplace_back(std::pmr::string(i % 300, 'p', resource));
        for (std::size_t i = 0; i < 3000; i++) CHECK(v[i].size() == i % 300);
        void *p = resource->allocate(1000, 512);
        CHECK(reinterpret_cast<std::uintptr_t>(p) % 512 == 0);
        resource->deallocate(p, 1000, 512);
    }
}

struct alignas(256) wide {
    char bytes[300];
};
void check_over_aligned() {
    std::vector<wide> v(10);
    for (wide &w : v) CHECK(reinterpret_cast<std::uintptr_t>(&w) % 256 == 0);
    auto one = std::make_unique<wide>();
    auto shared = std::make_shared<wide>();
    CHECK(reinterpret_cast<std::uintptr_t>(one.get()) % 256 == 0);
    CHECK(reinterpret_cast<std::uintptr_t>(shared.get()) % 256 == 0);
}

// Destroyed when its thread ends, when the allocator may already have let go of that thread.
std::atomic<int> thread_locals_destroyed{0};
struct thread_diary {
    std::vector<std::string> lines;
    ~thread_diary() {
        CHECK(lines.size() == 100);
        lines.clear();
        lines.push_back(std::string(5000, 'z'));
        CHECK(lines[0].size() == 5000);
        thread_locals_destroyed++;
    }
};
thread_local thread_diary diary;

void check_threads() {
    constexpr int count = 8;
    std::mutex mutex;
    std::vector<std::shared_ptr<std::string>> pot;
    std::vector<std::thread> threads;
    for (int t = 0; t < count; t++)
        threads.emplace_back([&, t] {
            for (int i = 0; i < 100; i++) diary.lines.push_back(std::string(static_cast<std::size_t>(i), 'd'));
            check_containers(static_cast<std::uint64_t>(t));
            std::uint64_t random = static_cast<std::uint64_t>(t);
            for (int i = 0; i < 5000; i++) {
                auto mine = std::make_shared<std::string>(random_below(&random, 500), 's');
                std::lock_guard<std::mutex> lock(mutex);
                pot.push_back(mine);
                if (pot.size() > 200) pot.erase(pot.begin(), pot.begin() + 100);
            }
            std::function<std::size_t()> f = [big = std::string(1000, 'f')] { return big.size(); };
            CHECK(f() == 1000);
        });
    for (std::thread &thread : threads) thread.join();
    CHECK(thread_locals_destroyed == count);
}

void throw_through(int depth, std::string text) {
    std::vector<std::string> local(3, text);
    if (depth == 0) throw std::runtime_error(text);
    throw_through(depth - 1, text + "x");
}
void check_exceptions() {
    for (int i = 0; i < 2000; i++) {
        try {
            throw_through(10, std::string(static_cast<std::size_t>(i % 50), 'e'));
            CHECK(false);
        } catch (const std::runtime_error &error) {
            CHECK(std::string(error.what()).size() == static_cast<std::size_t>(i % 50) + 10);
        }
    }
}

// Memory runs out in the middle of a container's work: bad_alloc arrives, the container is as before, all is freed.
void check_memory_pressure() {
    rlimit old{};
    CHECK(getrlimit(RLIMIT_AS, &old) == 0);
    rlimit limit = old;
    limit.rlim_cur = std::size_t{300} << 20;
    CHECK(setrlimit(RLIMIT_AS, &limit) == 0);
    CHECK(getrlimit(RLIMIT_AS, &limit) == 0);
    if (limit.rlim_cur != std::size_t{300} << 20) return; // an emulator needs the room for itself
    std::size_t first = 0;
    for (int round = 0; round < 5; round++) {
        std::vector<std::unique_ptr<std::vector<std::string>>> hoard;
        std::size_t strings = 0;
        bool refused = false;
        while (!refused) {
            std::size_t before = hoard.size();
            try {
                hoard.push_back(std::make_unique<std::vector<std::string>>());
                for (int i = 0; i < 1000; i++) hoard.back()->push_back(std::string(1000, 'm')), strings++;
            } catch (const std::bad_alloc &) {
                refused = true;
                CHECK(hoard.size() == before || hoard.size() == before + 1);
            }
            CHECKF(strings < 1000000, "%zu strings: the limit is not in force", strings);
        }
        CHECK(strings > 100000);
        for (const auto &some : hoard)
            for (const std::string &s : *some) CHECK(s.size() == 1000 && s[0] == 'm' && s[999] == 'm');
        hoard.clear();
        if (round == 0) first = strings;
        CHECKF(strings >= first / 10 * 9, "%zu strings at first, %zu in round %d", first, strings, round);
    }
    CHECK(setrlimit(RLIMIT_AS, &old) == 0);
}

} // namespace

int main() {
    subject_require();
    check_containers(1);
    check_pmr();
    check_over_aligned();
    check_exceptions();
    // Before there are threads: each may bring a region of its own, which counts against the limit.
    check_memory_pressure();
    check_threads();
    std::puts("C++ at work: fine");
    return 0;
}

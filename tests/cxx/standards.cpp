// standards.cpp - new and delete as the compiler calls them in each standard from C++11 on: by size, by alignment, by both, for single objects, arrays and
// through a virtual destructor. Every standard is built with sized and aligned forms, which are its own only since C++14 and C++17.
#include <cstdint>
#include <cstdio>
#include <memory>
#include <new>
#include <string>
#include <thread>
#include <vector>

#include "check.h"
#include "subject.h"

#if !defined(__cpp_sized_deallocation) || !defined(__cpp_aligned_new)
#error "built without what it is to test"
#endif

namespace {

int destroyed;

template <std::size_t bytes, std::size_t alignment> struct alignas(alignment) object {
    char content[bytes];
    object() {
        content[0] = 'o';
        content[bytes - 1] = 'o';
    }
    object(const object &) = default;
    object &operator=(const object &) = default;
    ~object() {
        CHECK(content[0] == 'o' && content[bytes - 1] == 'o');
        destroyed++;
    }
};

struct base {
    base() = default;
    base(const base &) = delete;
    base &operator=(const base &) = delete;
    virtual ~base() { destroyed++; }
    int number = 7;
};
struct alignas(128) derived : base {
    char more[5000];
    derived() { more[4999] = 'd'; }
    ~derived() override { CHECK(more[4999] == 'd' && number == 7); }
};

template <class T> bool is_in_place(const T *p) { return reinterpret_cast<std::uintptr_t>(p) % alignof(T) == 0; }

// What was allocated is freed, by the form that the compiler chose.
template <class T> void check_type() {
    const std::size_t count = 7;
    const auto live = subject_stats().allocated_bytes;
    destroyed = 0;
    T *one = new T;
    CHECK(is_in_place(one));
    T *many = new T[count];
    CHECK(is_in_place(many));
    T *quiet = new (std::nothrow) T;
    CHECK(quiet != nullptr && is_in_place(quiet));
    if (subject.is_tide) CHECK(subject_stats().allocated_bytes >= live + (count + 2) * sizeof(T));
    delete one;
    delete[] many;
    delete quiet;
    CHECK(destroyed == static_cast<int>(count) + 2);
    if (subject.is_tide) CHECK(subject_stats().allocated_bytes == live);
}

void check_virtual() {
    const auto live = subject_stats().allocated_bytes;
    destroyed = 0;
    base *one = new derived;
    CHECK(reinterpret_cast<std::uintptr_t>(one) % 128 == 0);
    delete one;
    CHECK(destroyed == 1);
    if (subject.is_tide) CHECK(subject_stats().allocated_bytes == live);
}

// By name, so that no compiler leaves a form out.
void check_forms() {
    const auto live = subject_stats().allocated_bytes;
    for (std::size_t size : {std::size_t{1}, std::size_t{1000}, std::size_t{20000}, std::size_t{200000}}) {
        const auto wide = static_cast<std::align_val_t>(512);
        ::operator delete(::operator new(size), size);
        ::operator delete[](::operator new[](size), size);
        ::operator delete(::operator new(size, wide), wide);
        ::operator delete[](::operator new[](size, wide), wide);
        ::operator delete(::operator new(size, wide), size, wide);
        ::operator delete[](::operator new[](size, wide), size, wide);
    }
    if (subject.is_tide) CHECK(subject_stats().allocated_bytes == live);
}

void check_library() {
    std::vector<std::unique_ptr<std::string>> strings;
    for (std::size_t i = 0; i < 1000; i++) strings.emplace_back(new std::string(i, 's'));
    std::thread([&strings] { strings.resize(500); }).join();
    for (std::size_t i = 0; i < strings.size(); i++) CHECK(strings[i]->size() == i);
    auto shared = std::make_shared<std::vector<int>>(100000, 3);
    CHECK(shared->back() == 3);
}

} // namespace

int main() {
    subject_require();
    if (subject.is_tide) CHECK(subject.set("mode", "static") == 0); // a keeper that starts has a block of its own
    check_type<object<1, 1>>();
    check_type<object<24, 8>>();
    check_type<object<2000, 16>>();
    check_type<object<100, 64>>();
    check_type<object<100, 4096>>();
    check_type<object<100000, 32>>();
    check_type<object<300000, 65536>>();
    check_virtual();
    check_forms();
    check_library();
    std::printf("C++ %ld: fine\n", static_cast<long>(__cplusplus));
    return 0;
}

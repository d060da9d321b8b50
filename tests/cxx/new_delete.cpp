// new_delete.cpp - every form of operator new and delete, the new-handler protocol, and std::bad_alloc.
#include <malloc.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <new>

#include "check.h"
#include "subject.h"

namespace {

constexpr std::size_t sizes[] = {0, 1, 8, 16, 17, 100, 1024, 1025, 5000, 32768, 40000, 300000, 3000000};

// The block comes from malloc's allocator: that knows its size, and tidemalloc counts it.
template <class Delete>
void check_block(void *p, std::size_t size, std::size_t alignment, std::uint64_t live_before, Delete delete_block) {
    CHECK(p != nullptr);
    CHECKF(reinterpret_cast<std::uintptr_t>(p) % alignment == 0, "%p of %zu bytes is not aligned to %zu", p, size,
           alignment);
    std::size_t usable = malloc_usable_size(p);
    CHECK(usable >= size);
    std::memset(p, 0x61, usable);
    std::uint64_t grown = subject_allocated_bytes() - live_before;
    if (subject.is_tide) CHECK(grown == usable || (subject_is_secure() && grown > usable));
    delete_block(p);
    if (subject.is_tide) CHECK(subject_allocated_bytes() == live_before);
}

void check_all_forms() {
    for (std::size_t size : sizes) {
        std::uint64_t live = subject_allocated_bytes();
        auto plain = [](void *p) { ::operator delete(p); };
        auto plain_array = [](void *p) { ::operator delete[](p); };
        check_block(::operator new(size), size, 16, live, plain);
        check_block(::operator new[](size), size, 16, live, plain_array);
        check_block(::operator new(size, std::nothrow), size, 16, live, plain);
        check_block(::operator new[](size, std::nothrow), size, 16, live, plain_array);
        check_block(::operator new(size), size, 16, live, [](void *p) { ::operator delete(p, std::nothrow); });
        check_block(::operator new[](size), size, 16, live, [](void *p) { ::operator delete[](p, std::nothrow); });
        check_block(::operator new(size), size, 16, live, [size](void *p) { ::operator delete(p, size); });
        check_block(::operator new[](size), size, 16, live, [size](void *p) { ::operator delete[](p, size); });
        for (std::size_t alignment = 16; alignment <= 1 << 20; alignment *= 4) {
            auto a = static_cast<std::align_val_t>(alignment);
            auto aligned = [a](void *p) { ::operator delete(p, a); };
            auto aligned_array = [a](void *p) { ::operator delete[](p, a); };
            check_block(::operator new(size, a), size, alignment, live, aligned);
            check_block(::operator new[](size, a), size, alignment, live, aligned_array);
            check_block(::operator new(size, a, std::nothrow), size, alignment, live, aligned);
            check_block(::operator new[](size, a, std::nothrow), size, alignment, live, aligned_array);
            check_block(::operator new(size, a), size, alignment, live,
                        [a](void *p) { ::operator delete(p, a, std::nothrow); });
            check_block(::operator new[](size, a), size, alignment, live,
                        [a](void *p) { ::operator delete[](p, a, std::nothrow); });
            check_block(::operator new(size, a), size, alignment, live,
                        [size, a](void *p) { ::operator delete(p, size, a); });
            check_block(::operator new[](size, a), size, alignment, live,
                        [size, a](void *p) { ::operator delete[](p, size, a); });
        }
    }
    ::operator delete(nullptr);
    ::operator delete[](nullptr);
    ::operator delete (nullptr, std::size_t{8});
    ::operator delete (nullptr, std::align_val_t{64});
    ::operator delete(nullptr, std::nothrow);
}

// new and malloc share one allocator, so mixing them is wrong in style only; programs do it.
void check_mixing() {
    void *p = ::operator new(100);
    p = realloc(p, 1000);
    CHECK(p != nullptr);
    ::operator delete(p);
    p = malloc(500);
    CHECK(p != nullptr);
    ::operator delete(p);
}

volatile std::size_t huge_bytes = SIZE_MAX / 2 + 1;
volatile std::size_t almost_huge_bytes = SIZE_MAX - 10;

template <class Allocate> bool throws_bad_alloc(Allocate allocate) {
    try {
        void *volatile p = allocate();
        (void)p;
    } catch (const std::bad_alloc &) {
        return true;
    }
    return false;
}

void check_refusal() {
    CHECK(std::get_new_handler() == nullptr);
    for (std::size_t size : {std::size_t{huge_bytes}, std::size_t{almost_huge_bytes}, std::size_t{SIZE_MAX}}) {
        std::size_t volatile hidden = size;
        const std::align_val_t a{4096};
        CHECK(throws_bad_alloc([&] { return ::operator new(hidden); }));
        CHECK(throws_bad_alloc([&] { return ::operator new[](hidden); }));
        CHECK(::operator new(hidden, std::nothrow) == nullptr);
        CHECK(::operator new[](hidden, std::nothrow) == nullptr);
        // Rounding the size up to the alignment must not overflow. In libstdc++ it does.
        if (!subject.is_tide) continue;
        CHECK(throws_bad_alloc([&] { return ::operator new(hidden, a); }));
        CHECK(throws_bad_alloc([&] { return ::operator new[](hidden, a); }));
        CHECK(::operator new(hidden, a, std::nothrow) == nullptr);
        CHECK(::operator new[](hidden, a, std::nothrow) == nullptr);
    }
}

// The handler is called again and again, until it gives up: by throwing, or by uninstalling itself.
int handler_calls;
struct out_of_patience : std::bad_alloc {};

void handler_that_uninstalls() {
    // A handler may allocate.
    delete[] new char[1000];
    if (++handler_calls == 5) std::set_new_handler(nullptr);
}
void handler_that_throws() {
    if (++handler_calls == 3) throw out_of_patience();
}

template <class Allocate> void check_handlers(Allocate allocate) {
    handler_calls = 0;
    std::set_new_handler(handler_that_uninstalls);
    CHECK(throws_bad_alloc(allocate));
    CHECKF(handler_calls == 5, "the handler was called %d times", handler_calls);

    handler_calls = 0;
    std::set_new_handler(handler_that_throws);
    bool was_its_own = false;
    try {
        void *volatile p = allocate();
        (void)p;
    } catch (const out_of_patience &) {
        was_its_own = true;
    }
    CHECK(was_its_own);
    CHECK(handler_calls == 3);
    std::set_new_handler(nullptr);
}

template <class Allocate> void check_handlers_nothrow(Allocate allocate) {
    handler_calls = 0;
    std::set_new_handler(handler_that_uninstalls);
    CHECK(allocate() == nullptr);
    CHECKF(handler_calls == 5, "the handler was called %d times", handler_calls);

    handler_calls = 0;
    std::set_new_handler(handler_that_throws);
    CHECK(allocate() == nullptr);
    CHECK(handler_calls == 3);
    std::set_new_handler(nullptr);
}

void check_new_handler() {
    static const std::align_val_t a{256};
    check_handlers([] { return ::operator new(huge_bytes); });
    check_handlers([] { return ::operator new[](huge_bytes); });
    check_handlers([] { return ::operator new(huge_bytes, a); });
    check_handlers([] { return ::operator new[](huge_bytes, a); });
    check_handlers_nothrow([] { return ::operator new(huge_bytes, std::nothrow); });
    check_handlers_nothrow([] { return ::operator new[](huge_bytes, std::nothrow); });
    check_handlers_nothrow([] { return ::operator new(huge_bytes, a, std::nothrow); });
    check_handlers_nothrow([] { return ::operator new[](huge_bytes, a, std::nothrow); });
    // malloc does not call it.
    handler_calls = 0;
    std::set_new_handler(handler_that_throws);
    void *volatile p = malloc(huge_bytes);
    CHECK(p == nullptr && handler_calls == 0);
    std::set_new_handler(nullptr);
}

void check_errno() {
    errno = 4711;
    delete new int(5);
    delete[] new char[100000];
    CHECK(errno == 4711);
}

} // namespace

int main() {
    subject_require();
    if (subject.is_tide) CHECK(subject.set("mode", "static") == 0); // a keeper that starts has a block of its own
    // The first exception of a program makes libc and libstdc++ allocate things that stay.
    CHECK(throws_bad_alloc([] { return ::operator new(huge_bytes); }));
    check_all_forms();
    check_mixing();
    check_refusal();
    check_new_handler();
    check_errno();
    std::puts("operator new and delete: fine");
    return 0;
}

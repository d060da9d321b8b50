// catch.cpp - the one thing that C cannot do: stop an exception. Part of the archive only; the shared library asks the program's C++
// runtime instead (cxx.c), so that it needs none itself.

#include <cstddef>

extern "C" __attribute__((visibility("hidden"))) void *cxx_catch(void *(*allocate)(std::size_t, std::size_t), std::size_t size,
                                                                   std::size_t alignment) noexcept {
    try {
        return allocate(size, alignment);
    } catch (...) {
        return nullptr;
    }
}

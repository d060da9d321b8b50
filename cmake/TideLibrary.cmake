# The library targets. All of them compile the one unity file src/tidemalloc.c, which includes the layers.
#   tidemalloc           libtidemalloc.so, to preload or link
#   tidemalloc_static    libtidemalloc.a: the unity object, and the C++ operators in one of their own, which only C++ programs pull in
#   tidemalloc_prefixed  tide_malloc and friends instead of malloc: for tests that need the program's own malloc too
#   tidemalloc_count     libtidemalloc-count.so, the same but with a counter in every allocation (heap.h), for `tide investigate`
#   tidemalloc_secure    libtidemalloc-secure.so, with the checks that cost something on the hot path (span/guard.h, heap/secure.h)
#   tidemalloc_separate  every file on its own: proves that each includes what it needs; built by default in debug

set(unity ${PROJECT_SOURCE_DIR}/src/tidemalloc.c)

if(NOT TIDE_SANITIZE)
    add_library(tidemalloc SHARED ${unity})
    add_library(tidemalloc_count SHARED ${unity})
    target_compile_definitions(tidemalloc_count PRIVATE TIDE_COUNT=1)
    set_target_properties(tidemalloc_count PROPERTIES OUTPUT_NAME tidemalloc-count)
    add_library(tidemalloc_secure SHARED ${unity})
    target_compile_definitions(tidemalloc_secure PRIVATE TIDE_SECURE=1)
    set_target_properties(tidemalloc_secure PROPERTIES OUTPUT_NAME tidemalloc-secure)
    foreach(target tidemalloc tidemalloc_count tidemalloc_secure)
        target_link_libraries(${target} PRIVATE $<BUILD_INTERFACE:tide_flags>)
        # noseparate-code: one mapping and one fault less, 100 KiB less resident in a small program.
        target_link_options(${target} PRIVATE
            -pthread -Wl,-z,nodelete -Wl,-z,relro -Wl,-z,now -Wl,-z,defs -Wl,-z,noseparate-code)
    endforeach()
    set_target_properties(tidemalloc tidemalloc_secure PROPERTIES VERSION ${PROJECT_VERSION} SOVERSION ${PROJECT_VERSION_MAJOR})

    add_library(tidemalloc_static STATIC ${unity})
    if(TIDE_CXX)
        target_sources(tidemalloc_static PRIVATE ${PROJECT_SOURCE_DIR}/src/api/cxx.c ${PROJECT_SOURCE_DIR}/src/api/catch.cpp)
    endif()
    target_compile_definitions(tidemalloc_static PRIVATE TIDE_ARCHIVE=1)
    target_link_libraries(tidemalloc_static PRIVATE $<BUILD_INTERFACE:tide_flags>)
    set_target_properties(tidemalloc_static PROPERTIES OUTPUT_NAME tidemalloc EXPORT_NAME static)

    foreach(target tidemalloc tidemalloc_count tidemalloc_secure tidemalloc_static)
        target_include_directories(${target} INTERFACE
            $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include> $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
        target_link_options(${target} INTERFACE -pthread)
        set_target_properties(${target} PROPERTIES
            LIBRARY_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR} ARCHIVE_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR})
    endforeach()
    add_library(tidemalloc::tidemalloc ALIAS tidemalloc)
    add_library(tidemalloc::static ALIAS tidemalloc_static)
endif()

add_library(tidemalloc_prefixed STATIC EXCLUDE_FROM_ALL ${unity})
target_link_libraries(tidemalloc_prefixed PRIVATE tide_flags PUBLIC tide_sanitizers)
target_compile_definitions(tidemalloc_prefixed PUBLIC TIDE_PREFIXED=1)
target_include_directories(tidemalloc_prefixed PUBLIC ${PROJECT_SOURCE_DIR}/include)
target_link_options(tidemalloc_prefixed PUBLIC -pthread)

file(GLOB layer_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/*/*.c)
if(layer_sources)
    add_library(tidemalloc_separate OBJECT EXCLUDE_FROM_ALL ${layer_sources})
    target_link_libraries(tidemalloc_separate PRIVATE tide_flags)
    if(CMAKE_BUILD_TYPE STREQUAL "Debug" AND NOT TIDE_SANITIZE)
        set_target_properties(tidemalloc_separate PROPERTIES EXCLUDE_FROM_ALL OFF)
    endif()
endif()

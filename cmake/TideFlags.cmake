# Compiler flags, as two interface targets: tide_warnings for every C file of ours, tide_flags for the library itself.

add_library(tide_warnings INTERFACE)
target_compile_options(tide_warnings INTERFACE
    -Wall -Wextra -Wshadow -Wundef
    $<$<COMPILE_LANGUAGE:C>:-Wstrict-prototypes -Wmissing-prototypes>
    $<$<BOOL:${TIDE_WERROR}>:-Werror>)

add_library(tide_sanitizers INTERFACE)
if(TIDE_SANITIZE STREQUAL "address")
    set(sanitize -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer)
elseif(TIDE_SANITIZE STREQUAL "thread")
    set(sanitize -fsanitize=thread -fno-omit-frame-pointer)
elseif(TIDE_SANITIZE)
    message(FATAL_ERROR "TIDE_SANITIZE is 'address', 'thread' or empty, not '${TIDE_SANITIZE}'")
endif()
target_compile_options(tide_sanitizers INTERFACE ${sanitize})
target_link_options(tide_sanitizers INTERFACE ${sanitize})

add_library(tide_flags INTERFACE)
target_link_libraries(tide_flags INTERFACE tide_warnings tide_sanitizers)
target_include_directories(tide_flags INTERFACE ${PROJECT_SOURCE_DIR}/src ${PROJECT_SOURCE_DIR}/include)
target_compile_definitions(tide_flags INTERFACE $<$<BOOL:${TIDE_DEBUG}>:TIDE_DEBUG=1>)
# gnu17: glibc's extras. initial-exec: the thread's record is one load away, and never needs an allocation of its own.
# no-builtin: or the compiler turns malloc + memset inside calloc into a call of calloc. exceptions: a new_handler may
# throw through our frames. No stack protector: it costs in every malloc.
target_compile_options(tide_flags INTERFACE
    $<$<COMPILE_LANGUAGE:C>:-std=gnu17> -pthread -fPIC -fvisibility=hidden -ftls-model=initial-exec -fexceptions
    -fno-builtin-malloc -fno-builtin-calloc -fno-builtin-realloc -fno-builtin-free)

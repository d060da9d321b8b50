/* beside.h - sanitizers and Valgrind, which want to be the program's malloc, too.
 *
 *   whose malloc is it?         theirs                                    ours
 *   sanitizer                   one line; the library is not used         one line, and the program ends with status 1
 *   Valgrind's memcheck & co.   one line; the library is not used         one line: what they cannot see
 *   other tools of Valgrind     (they have none)                          nothing to say
 *
 * clang links a sanitizer's runtime into the program, in front of every library. gcc's is a library, and a preloaded one comes before it; then
 * AddressSanitizer ends the program as it starts, in a line of its own. The others crash when our first allocation comes before they are ready, or go on
 * without knowing a single block, and tell of races and leaks that are not there.
 */
#ifndef TIDE_API_BESIDE_H
#define TIDE_API_BESIDE_H

#include "base/base.h"

/* What every program calls malloc may be another's; this is the library's own. */
tide_hidden void *malloc_of_ours(size_t size);

/* When the library is loaded. (What must be said earlier is said by the first allocation: heap_on_start.) */
tide_hidden void beside_say(void);

#endif

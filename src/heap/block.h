/* block.h - what is known of any address: used where a pointer must be understood before it is believed. */
#ifndef TIDE_HEAP_BLOCK_H
#define TIDE_HEAP_BLOCK_H

#include "span/span.h"

struct block_info {
    struct span *span; /* head of the span that holds it */
    size_t usable_bytes;
    uint8_t kind;
};

/* Describe the live block at `address`. A bad address ends the process with a line that names `function`. */
tide_hidden struct block_info block_describe(const char *function, const void *address);

/* Say what is wrong with an address, and abort. */
tide_hidden _Noreturn void block_fatal(const char *function, const void *address);
/* The same for a block that is known to be free. */
tide_hidden _Noreturn void block_fatal_free(const char *function, const void *address);

#endif

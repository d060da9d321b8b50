/* misuse.c - free and realloc of what must not be freed. */
#define _GNU_SOURCE 1
#include "attacks.h"

#include <malloc.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* The program has other blocks, too. */
static void keep_company(size_t size) {
    for (int i = 0; i < 10; i++) memset(allocate(size), 'A', size);
}

/* --- twice --------------------------------------------------------------------------------------------------------- */

static void *thread_release(void *block) {
    release(block);
    return NULL;
}

static void release_elsewhere(void *block) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, thread_release, block) != 0 || pthread_join(thread, NULL) != 0)
        verdict(OUTCOME_CRASH, "no thread");
}

enum between { NOTHING, ANOTHER, MANY };

/* Free a block, then perhaps others, then the block again. */
static void twice(size_t size, enum between between, void (*first)(void *), void (*second)(void *)) {
    enum { COUNT = 300 };
    keep_company(size);
    char *others[COUNT], *block = allocate(size);
    int count = between == NOTHING ? 0 : between == ANOTHER ? 1 : COUNT;
    for (int i = 0; i < count; i++) others[i] = allocate(size);
    first(block);
    for (int i = 0; i < count; i++) release(others[i]);
    second(block);
    gained_if(hands_out_twice(size), "malloc returned the same block twice");
    conclude(false, "");
}

static void twice_tiny(void) { twice(TINY_BYTES, NOTHING, release, release); }
static void twice_mid(void) { twice(MID_BYTES, NOTHING, release, release); }
static void twice_large(void) { twice(LARGE_BYTES, NOTHING, release, release); }
static void twice_a_b_a(void) { twice(TINY_BYTES, ANOTHER, release, release); }
static void twice_many(void) { twice(TINY_BYTES, MANY, release, release); }
static void twice_many_mid(void) { twice(MID_BYTES, MANY, release, release); }
static void twice_there(void) { twice(TINY_BYTES, NOTHING, release, release_elsewhere); }
static void twice_here(void) { twice(TINY_BYTES, NOTHING, release_elsewhere, release); }
static void twice_there_mid(void) { twice(MID_BYTES, NOTHING, release_elsewhere, release_elsewhere); }

/* The key or mark that a free block carries is overwritten in between, as who writes to freed memory does by chance. */
static void twice_key(void) {
    keep_company(TINY_BYTES);
    char *block = allocate(TINY_BYTES);
    release(block);
    for (int i = 0; i < 32; i++) illegal_write(block + i, 'B');
    release(block);
    gained_if(hands_out_twice(TINY_BYTES), "malloc returned the same block twice");
    conclude(false, "");
}

/* --- not a block ---------------------------------------------------------------------------------------------------- */

static void inside(size_t size, size_t offset) {
    keep_company(size);
    char *block = allocate(size);
    memset(block, 0, size);
    release(block + offset);
    gained_if(hands_out(size, block, size), "malloc returned memory of a live block");
    conclude(false, "");
}

static void inside_misaligned(void) { inside(TINY_BYTES, 3); }
static void inside_aligned(void) { inside(TINY_BYTES, 16); }
static void inside_mid(void) { inside(MID_BYTES, 1024); }
static void inside_large(void) { inside(LARGE_BYTES, 65536); }

/* Looks like a chunk of 64 bytes, and another behind it, to an allocator that keeps sizes in front of blocks. */
static char *make_bait(uint64_t *words) {
    words[1] = 0x41;
    words[9] = 0x41;
    return (char *)&words[2];
}

static void free_bait(char *bait) {
    char *volatile hidden = bait;
    release(hidden);
    gained_if(hands_out(TINY_BYTES, bait, 48), "malloc returned what it never owned");
    conclude(false, "");
}

static void free_stack(void) {
    _Alignas(16) uint64_t words[16] = {0};
    free_bait(make_bait(words));
}

static void free_static(void) {
    static _Alignas(16) uint64_t words[16];
    free_bait(make_bait(words));
}

static void free_foreign(void) {
    uint64_t *words = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (words == MAP_FAILED) verdict(OUTCOME_CRASH, "mmap failed");
    free_bait(make_bait(words + 512));
}

/* --- realloc and others ---------------------------------------------------------------------------------------------- */

static void realloc_freed(size_t size) {
    keep_company(size);
    char *block = allocate(size);
    release(block);
    char *volatile again = realloc(block, size + size / 4);
    (void)again;
    gained_if(true, "realloc took a block that was free");
    conclude(false, "");
}

static void realloc_tiny(void) { realloc_freed(TINY_BYTES); }
static void realloc_mid(void) { realloc_freed(MID_BYTES); }
static void realloc_large(void) { realloc_freed(LARGE_BYTES); }

static void realloc_freed_elsewhere(void) {
    char *block = allocate(MID_BYTES);
    release_elsewhere(block);
    char *volatile again = realloc(block, 2 * MID_BYTES);
    (void)again;
    gained_if(true, "realloc took a block that was free");
    conclude(false, "");
}

static void usable_size_freed(void) {
    char *block = allocate(TINY_BYTES);
    release(block);
    size_t volatile size = malloc_usable_size(block);
    gained_if(size != 0, "a free block has a size");
    conclude(false, "");
}

/* --- a wrong size ------------------------------------------------------------------------------------------------------ */

/* C++'s operator new, and the delete that is told a size. */
static void sized_delete(size_t made, size_t told) {
    void *(*new)(size_t) = (void *(*)(size_t))optional_function("_Znwm");
    void (*delete)(void *, size_t) = (void (*)(void *, size_t))optional_function("_ZdlPvm");
    if (new == NULL || delete == NULL) verdict(OUTCOME_NOT_HERE, "no operator delete");
    enum { COUNT = 50 };
    char *blocks[COUNT];
    for (int i = 0; i < COUNT; i++) blocks[i] = new (made);
    for (int i = 0; i < COUNT; i++) delete (blocks[i], told);
    conclude(false, "");
}

static void delete_larger(void) { sized_delete(40, 400); }
static void delete_smaller(void) { sized_delete(400, 40); }

static void sized_free(void) {
    void (*function)(void *, size_t) = (void (*)(void *, size_t))optional_function("free_sized");
    if (function == NULL) verdict(OUTCOME_NOT_HERE, "no free_sized");
    function(allocate(40), 41);
    conclude(false, "");
}

const struct attack misuse_attacks[] = {
    {"double-free-tiny", "free 48 bytes twice", twice_tiny},
    {"double-free-mid", "free 6,000 bytes twice", twice_mid},
    {"double-free-large", "free 300,000 bytes twice", twice_large},
    {"double-free-a-b-a", "free a, b, and a again", twice_a_b_a},
    {"double-free-many", "free a, 300 others, and a again", twice_many},
    {"double-free-many-mid", "the same with 6,000 bytes", twice_many_mid},
    {"double-free-there", "free here, then in another thread", twice_there},
    {"double-free-here", "free in another thread, then here", twice_here},
    {"double-free-there-mid", "free 6,000 bytes in two other threads", twice_there_mid},
    {"double-free-key", "free, overwrite 32 bytes of it, free again", twice_key},
    {"free-misaligned", "free 3 bytes behind a block's start", inside_misaligned},
    {"free-inside", "free 16 bytes behind a block's start", inside_aligned},
    {"free-inside-mid", "free 1,024 bytes behind the start of 6,000", inside_mid},
    {"free-inside-large", "free 65,536 bytes behind the start of 300,000", inside_large},
    {"free-stack", "free a fake chunk on the stack", free_stack},
    {"free-static", "free a fake chunk in a static variable", free_static},
    {"free-foreign", "free a fake chunk in a mapping of the program's", free_foreign},
    {"realloc-freed-tiny", "realloc of 48 freed bytes", realloc_tiny},
    {"realloc-freed-mid", "realloc of 6,000 freed bytes", realloc_mid},
    {"realloc-freed-large", "realloc of 300,000 freed bytes", realloc_large},
    {"realloc-freed-there", "realloc of 6,000 bytes that another thread has freed", realloc_freed_elsewhere},
    {"usable-size-freed", "malloc_usable_size of 48 freed bytes", usable_size_freed},
    {"sized-delete-larger", "operator delete is told 400 of 40 bytes", delete_larger},
    {"sized-delete-smaller", "operator delete is told 40 of 400 bytes", delete_smaller},
    {"free-sized", "free_sized is told 41 of 40 bytes", sized_free},
    {0},
};

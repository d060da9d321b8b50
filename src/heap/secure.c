#include "heap/secure.h"

#ifdef TIDE_SECURE

#include <errno.h>

#include "base/format.h"
#include "heap/bell.h"
#include "heap/emergency.h"
#include "heap/own.h"
#include "heap/remote.h"
#include "heap/thread.h"
#include "os/report.h"

/* --- the tail ------------------------------------------------------------------------------------------------------ */

#define TAIL_BYTES sizeof(uint64_t)
#define TAIL_FILLER_SHIFT 48
#define TAIL_FILLER_MAX UINT16_MAX

static uint64_t tail_make(const void *block, size_t filler) {
    uint64_t length = (uint64_t)filler << TAIL_FILLER_SHIFT;
    uint64_t proof = guard_mix(((uintptr_t)block ^ length) ^ guard_secrets.tail);
    return length | (proof & (((uint64_t)1 << TAIL_FILLER_SHIFT) - 1)) | 1;
}

/* Of the proof, so that nobody knows it who has not seen it. */
static int filler_byte(uint64_t tail) { return (int)(tail >> 8 & 0xff) | 1; }

static void tail_write(void *block, size_t size, size_t block_bytes) {
    size_t filler = block_bytes - TAIL_BYTES - size;
    uint64_t tail = tail_make(block, filler);
    memset((char *)block + size, filler_byte(tail), filler);
    memcpy((char *)block + block_bytes - TAIL_BYTES, &tail, sizeof tail);
}

static bool is_filled(const unsigned char *filler, size_t bytes, int byte) {
    return bytes == 0 || (filler[0] == byte && memcmp(filler, filler + 1, bytes - 1) == 0);
}

/* The size that was asked for. */
static size_t tail_read(const char *function, const void *block, size_t block_bytes) {
    uint64_t tail;
    memcpy(&tail, (const char *)block + block_bytes - TAIL_BYTES, sizeof tail);
    size_t filler = tail >> TAIL_FILLER_SHIFT, room = block_bytes - TAIL_BYTES;
    if (filler > room || tail != tail_make(block, filler) ||
        !is_filled((const unsigned char *)block + room - filler, filler, filler_byte(tail)))
        report_fatal(function, block, "was written to behind its end");
    return room - filler;
}

/* --- taking -------------------------------------------------------------------------------------------------------- */

/* Too large stays too large. */
static size_t with_tail(size_t size) { return size <= SIZE_MAX - TAIL_BYTES ? size + TAIL_BYTES : size; }

/* Of a live block of ours. */
static size_t block_room(const void *block) {
    struct region *region = region_of(block);
    if (region == NULL) return emergency_mapped_bytes(block);
    struct span *span = region_span(region, block);
    if (span->kind == SPAN_INNER) span = mid_head(span);
    return span->kind == SPAN_LARGE ? span->large.bytes : span->block_bytes;
}

static void *finish(void *block, size_t size) {
    if (likely(block != NULL)) tail_write(block, size, block_room(block));
    return block;
}

void *secure_malloc(size_t size) { return finish(heap_malloc(with_tail(size)), size); }

void *secure_malloc_aligned(size_t alignment, size_t size) {
    return finish(heap_malloc_aligned(alignment, with_tail(size)), size);
}

void *secure_calloc(size_t size) { return finish(heap_calloc(with_tail(size)), size); }

size_t secure_usable_size(const void *block) {
    struct block_info info = block_describe("malloc_usable_size()", block);
    return tail_read("malloc_usable_size()", block, info.usable_bytes);
}

/* --- giving back --------------------------------------------------------------------------------------------------- */

static uintptr_t free_key(const struct span *span, const void *block) {
    return span->kind == SPAN_MID ? mid_key(span, block) : tiny_key(span, block);
}

static struct span *span_of(const void *block) {
    struct span *span = region_span(region_of(block), block);
    return span->kind == SPAN_INNER ? mid_head(span) : span;
}

/* Put a block where others wait. Returns the one whose time is over, NULL: none. The caller owns the heap. */
static struct block *delay(struct heap *heap, struct span *span, struct block *block) {
    bool mid = span->kind == SPAN_MID;
    void **places = mid ? heap->delayed.mid : heap->delayed.tiny;
    uint64_t place = guard_random() % (mid ? SECURE_DELAYED_MID : SECURE_DELAYED_TINY);
    struct block *other = places[place];
    block->key = free_key(span, block);
    places[place] = block;
    return other;
}

/* A block that has waited looks like one in use again. */
static struct span *resume(struct block *block) {
    struct span *span = span_of(block);
    if (block->key != free_key(span, block) || !guard_is_junk(&block->next, sizeof block->next))
        guard_fatal_stale(block);
    block->key = 0;
    if (span->kind == SPAN_MID) guard_fill(block, sizeof *block);
    return span;
}

/* A junk-filled block of a tiny or mid span. */
static void free_later(struct span *span, struct block *block) {
    if (heap_is_busy()) { /* within another operation, or after one that was left by a jump */
        heap_free(block);
        return;
    }
    heap_enter();
    struct heap *heap = heap_loaded();
    if (unlikely(heap == &heap_vacant)) {
        heap_record.slow = true;
        bell_touch();
        heap = heap_own();
    }
    struct block *other = heap != NULL ? delay(heap, span, block) : block;
    heap_quit();
    if (other == NULL) return;
    if (other != block) resume(other);
    heap_free(other);
}

static void take_back(const struct block_info *info, void *block) {
    switch (info->kind) {
    case SPAN_TINY:
    case SPAN_MID:
        guard_fill(block, info->usable_bytes);
        free_later(info->span, block);
        break;
    case SPAN_EMERGENCY:
        guard_fill(block, info->usable_bytes);
        heap_free(block);
        break;
    default: heap_free(block);
    }
}

void secure_free(void *block) {
    if (block == NULL) return;
    struct block_info info = block_describe("free()", block);
    tail_read("free()", block, info.usable_bytes);
    take_back(&info, block);
}

static _Noreturn void fatal_size(const char *function, const void *block, size_t size, size_t told) {
    struct line what = {0};
    line_add(&what, "has ");
    line_add_number(&what, size);
    line_add(&what, " bytes, not ");
    line_add_number(&what, told);
    report_fatal(function, block, what.text);
}

void secure_free_sized(const char *function, void *block, size_t size) {
    if (block == NULL) return;
    struct block_info info = block_describe(function, block);
    size_t asked = tail_read(function, block, info.usable_bytes);
    if (asked != size) fatal_size(function, block, asked, size);
    take_back(&info, block);
}

void secure_init(struct heap *heap) { memset(&heap->delayed, 0, sizeof heap->delayed); }

static void settle_places(struct heap *heap, void **places, unsigned count) {
    for (unsigned i = 0; i < count; i++) {
        struct block *block = places[i];
        if (block == NULL) continue;
        places[i] = NULL;
        struct span *span = resume(block);
        if (span->heap == heap && (span->flags & SPAN_IN_HAND) == 0) {
            heap_put(heap, span, block);
        } else {
            block->key = free_key(span, block);
            remote_push(span, block, span_block_index(span, block));
        }
    }
}

void secure_settle(struct heap *heap) {
    settle_places(heap, heap->delayed.tiny, SECURE_DELAYED_TINY);
    settle_places(heap, heap->delayed.mid, SECURE_DELAYED_MID);
}

/* --- a new size ------------------------------------------------------------------------------------------------------ */

/* Large blocks change their size in place, or move by their pages. */
static void *grow_large(void *block, size_t old_size, size_t old_room, size_t size) {
    void *moved = heap_realloc(block, with_tail(size));
    if (moved == NULL) return NULL;
    if (size > old_size) memset((char *)moved + old_size, 0, size_min(size, old_room) - old_size);
    size_t room = block_room(moved);
    if (room - TAIL_BYTES - size <= TAIL_FILLER_MAX)
        tail_write(moved, size, room); /* else it stayed as it was, for want of memory */
    return moved;
}

static void *grow_by_copy(void *block, size_t old_size, size_t size) {
    int error = errno;
    void *copy = secure_malloc(size);
    if (copy == NULL) {
        if (size > old_size) return NULL;
        errno = error;
        return block; /* a smaller block that cannot move stays as it is */
    }
    memcpy(copy, block, size_min(size, old_size));
    secure_free(block);
    return copy;
}

void *secure_realloc(void *block, size_t size) {
    struct block_info info = block_describe("realloc()", block);
    size_t old_size = tail_read("realloc()", block, info.usable_bytes);
    size_t wanted = with_tail(size), room = info.usable_bytes;
    if (info.kind == SPAN_LARGE && wanted > MID_MAX_BYTES) return grow_large(block, old_size, room, size);
    if (wanted > room || wanted < room / 2) return grow_by_copy(block, old_size, size);
    if (size > old_size) memset((char *)block + old_size, 0, size - old_size); /* the filler is nobody's business */
    tail_write(block, size, room);
    return block;
}

#endif
typedef int secure_is_not_empty;

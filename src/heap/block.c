#include "heap/block.h"

#include "base/format.h"
#include "heap/emergency.h"
#include "heap/own.h"
#include "os/report.h"
#include "span/run.h"
#include "tier/large.h"

static _Noreturn void fatal_inside(const char *function, const void *address, const void *start) {
    struct line what = {0};
    line_add(&what, "points inside a block (block starts at ");
    line_add_pointer(&what, start);
    line_add(&what, ")");
    report_fatal(function, address, what.text);
}

void block_fatal_free(const char *function, const void *address) {
    report_fatal(function, address, "was already free");
}

void block_fatal(const char *function, const void *address) {
    struct region *region = region_of(address);
    if (region == NULL)
        report_fatal(function, address, region_has_reserved(address) ? "is not a live block" : "is not ours");
    struct span *span = region_span(region, address);
    if (span->kind == SPAN_INNER) span = mid_head(span);
    if (span->kind == SPAN_FREE) {
        struct span *around = large_around(span);
        if (around != NULL) span = around;
    }
    size_t offset = (uintptr_t)address - (uintptr_t)span_start(span);
    switch (span->kind) {
    case SPAN_TINY:
    case SPAN_MID:
    case SPAN_EMERGENCY: {
        size_t index = offset / span->block_bytes;
        bool handed_out = span->kind == SPAN_EMERGENCY || index < span->carved;
        if (!handed_out) break;
        if (offset % span->block_bytes == 0) block_fatal_free(function, address);
        fatal_inside(function, address, (const char *)address - offset % span->block_bytes);
    }
    case SPAN_LARGE:
        if (offset != 0) fatal_inside(function, address, span_start(span));
        break;
    case SPAN_HELD: block_fatal_free(function, address);
    case SPAN_FREE:
        if (run_was_used(span)) block_fatal_free(function, address);
        break;
    default: break;
    }
    report_fatal(function, address, "is not a live block");
}

struct block_info block_describe(const char *function, const void *address) {
    struct region *region = region_of(address);
    if (region == NULL) {
        size_t mapped_bytes = emergency_mapped_bytes(address);
        if (mapped_bytes == 0) block_fatal(function, address);
        return (struct block_info){.span = &span_none, .usable_bytes = mapped_bytes, .kind = SPAN_FREE};
    }
    struct block_info info = {.span = region_span(region, address)};
    if (info.span->kind == SPAN_INNER) info.span = mid_head(info.span);
    info.kind = info.span->kind;
    info.usable_bytes = info.span->block_bytes;
    bool valid = false;
    switch (info.kind) {
    case SPAN_TINY:
        valid = tiny_is_block(info.span, tiny_offset(address)) && !tiny_is_withheld(info.span, tiny_offset(address)) &&
                ((const struct block *)address)->key != tiny_key(info.span, address);
        break;
    case SPAN_MID:
        valid = mid_index(info.span, address) != MID_NO_BLOCK &&
                !mid_is_free(info.span, mid_index(info.span, address)) &&
                ((const struct block *)address)->key != mid_key(info.span, address);
        break;
    case SPAN_LARGE:
        valid = (const char *)address == span_start(info.span);
        info.usable_bytes = info.span->large.bytes;
        break;
    case SPAN_EMERGENCY: valid = (uintptr_t)address % info.usable_bytes == 0; break;
    default: break;
    }
    if (!valid) block_fatal(function, address);
    return info;
}

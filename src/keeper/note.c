#include "keeper/note.h"

#include "base/format.h"
#include "keeper/window.h"
#include "os/options.h"

#define LINES_PER_SECOND 10u

static struct { /* keeper_lock */
    uint64_t second;
    unsigned lines, left_out;
} notes;

static bool note_begin(struct line *line) {
    if (options.log != LOG_KEEPER) return false;
    uint64_t second = os_now_ns() / 1000000000u;
    if (second != notes.second) {
        notes.second = second;
        notes.lines = 0;
    }
    if (notes.lines++ >= LINES_PER_SECOND) {
        notes.left_out++;
        return false;
    }
    line_add(line, "tidemalloc: keeper: ");
    if (notes.left_out > 0) {
        line_add(line, "(");
        line_add_number(line, notes.left_out);
        line_add(line, " lines left out) ");
        notes.left_out = 0;
    }
    return true;
}

static void note_end(struct line *line) {
    line_add(line, "\n");
    os_print_error(line->text, line->length);
}

static void add_kib(struct line *line, const char *before, size_t bytes, const char *after) {
    line_add(line, before);
    line_add_number(line, bytes / KIB);
    line_add(line, after);
}

static void add_ms(struct line *line, const char *before, uint64_t ns, const char *after) {
    line_add(line, before);
    line_add_number(line, ns / 1000000u);
    line_add(line, after);
}

void note_start(void) {
    window_tell(WINDOW_STARTED, 0, 0);
    struct line line = {0};
    if (!note_begin(&line)) return;
    line_add(&line, "started, mode ");
    char mode[16];
    options_get("mode", mode, sizeof mode);
    line_add(&line, mode);
    note_end(&line);
}

void note_plan(size_t given_bytes, size_t keep_bytes, uint64_t wait_ns) {
    window_tell(keep_bytes > 0 ? WINDOW_HOLDS : WINDOW_GAVE_ALL, given_bytes, wait_ns);
    struct line line = {0};
    if (!note_begin(&line)) return;
    add_kib(&line, "idle: gave back ", given_bytes, " KiB");
    if (keep_bytes > 0) add_kib(&line, ", keep ", keep_bytes, " KiB");
    if (wait_ns > 0)
        add_ms(&line, " for ", wait_ns, " ms");
    else
        line_add(&line, ", sleep");
    note_end(&line);
}

void note_burst(uint64_t quiet_ns) {
    window_tell(WINDOW_BUSY, 0, quiet_ns);
    struct line line = {0};
    if (!note_begin(&line)) return;
    add_ms(&line, "busy again after ", quiet_ns, " ms");
    note_end(&line);
}

void note_trim(size_t given_bytes, size_t spare_bytes) {
    window_tell(WINDOW_TRIMMED, given_bytes, spare_bytes);
    struct line line = {0};
    if (!note_begin(&line)) return;
    add_kib(&line, "busy: gave back ", given_bytes, " KiB");
    add_kib(&line, " of ", spare_bytes, " KiB that nobody needed");
    note_end(&line);
}

void note_pressure(enum pressure pressure, size_t given_bytes) {
    window_tell(WINDOW_PRESSED, given_bytes, pressure);
    struct line line = {0};
    if (!note_begin(&line)) return;
    line_add(&line, "memory pressure (");
    line_add(&line, pressure_name(pressure));
    add_kib(&line, "): gave back ", given_bytes, " KiB");
    note_end(&line);
}

void note_failure(const char *what, int error) {
    struct line line = {0};
    if (!note_begin(&line)) return;
    line_add(&line, what);
    line_add(&line, ": error ");
    line_add_number(&line, (uint64_t)error);
    note_end(&line);
}

#include "os/report.h"

#include "base/format.h"

static void report_line(struct line *line) {
    if (line->length == sizeof line->text - 1) line->length--; /* a line that was cut still ends */
    line_add(line, "\n");
    os_print_error(line->text, line->length);
}

void report_warning(const char *text, const char *detail) {
    struct line line = {0};
    line_add(&line, "tidemalloc: ");
    line_add(&line, text);
    if (detail != NULL) line_add(&line, detail);
    report_line(&line);
}

void report_fatal(const char *function, const void *pointer, const char *what) {
    struct line line = {0};
    line_add(&line, "tidemalloc: ");
    if (function != NULL) {
        line_add(&line, function);
        line_add(&line, ": ");
        line_add_pointer(&line, pointer);
        line_add(&line, " ");
    }
    line_add(&line, what);
    report_line(&line);
    os_abort();
}

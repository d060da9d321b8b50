#include "base/format.h"

void line_add(struct line *line, const char *text) {
    size_t room = sizeof line->text - 1 - line->length;
    size_t length = size_min(strlen(text), room);
    memcpy(line->text + line->length, text, length);
    line->length += length;
    line->text[line->length] = 0;
}

static void line_add_digits(struct line *line, uint64_t number, unsigned base) {
    char digits[24];
    char *at = digits + sizeof digits - 1;
    *at = 0;
    do {
        *--at = "0123456789abcdef"[number % base];
        number /= base;
    } while (number != 0);
    line_add(line, at);
}

void line_add_number(struct line *line, uint64_t number) { line_add_digits(line, number, 10); }

void line_add_pointer(struct line *line, const void *pointer) {
    line_add(line, "0x");
    line_add_digits(line, (uintptr_t)pointer, 16);
}

bool size_parse(const char *text, size_t *bytes) {
    static const char units[] = "kKmMgGtT";
    size_t number = 0;
    const char *at = text;
    for (; *at >= '0' && *at <= '9'; at++) {
        if (__builtin_mul_overflow(number, (size_t)10, &number)) return false;
        if (__builtin_add_overflow(number, (size_t)(*at - '0'), &number)) return false;
    }
    if (at == text) return false;
    if (*at != 0) {
        const char *unit = strchr(units, *at);
        if (unit == NULL || at[1] != 0) return false;
        if (__builtin_mul_overflow(number, (size_t)1 << (10 * ((size_t)(unit - units) / 2 + 1)), &number)) return false;
    }
    *bytes = number;
    return true;
}

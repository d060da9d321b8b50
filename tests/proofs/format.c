/* Lines and numbers: never past the end, and what is read is what was written. */
#include "proof.h"

/* Byte by byte, so that it is unrolled like other loops. */
static void *proof_copy(void *to, const void *from, size_t bytes) {
    for (size_t i = 0; i < bytes; i++) ((char *)to)[i] = ((const char *)from)[i];
    return to;
}
#define memcpy(to, from, bytes) proof_copy(to, from, bytes)

#include "base/format.c"

static void line_whole(const struct line *line) {
    prove(line->length < sizeof line->text);
    prove(line->text[line->length] == 0);
}

/* A line of any length, and up to 6 more characters. */
void prove_add(void) {
    struct line line;
    char text[7], before;
    size_t at = nondet_size();
    line.length = nondet_size();
    given(line.length < sizeof line.text && line.text[line.length] == 0);
    for (size_t i = 0; i < sizeof text; i++) text[i] = (char)nondet_u8();
    text[6] = 0;
    size_t length = line.length;
    given(at < sizeof line.text);
    before = line.text[at];
    line_add(&line, text);
    line_whole(&line);
    prove(line.length >= length && line.length - length <= 6);
    prove(line.length - length == strlen(text) || line.length == sizeof line.text - 1); /* cut only at the end */
    if (at < length) prove(line.text[at] == before);
    if (at >= length && at < line.length) prove(line.text[at] == text[at - length]);
}

/* Every number ends within the buffer of its digits. */
void prove_digits(void) {
    struct line line = {0};
    uint64_t number = nondet_u64();
    line_add_digits(&line, number, nondet_bool() ? 16 : 10);
    line_whole(&line);
    prove(line.length >= 1 && line.length <= 20);
}

/* Numbers of 5 digits are read as they were written. */
void prove_round_trip(void) {
    struct line line = {0};
    uint64_t number = nondet_u64();
    size_t read = 0;
    given(number < 100000);
    line_add_number(&line, number);
    prove(size_parse(line.text, &read) && read == number);
}

/* Every text of 4 characters: a number, at most one unit behind it, and nothing else. */
void prove_parse(void) {
    char text[5];
    size_t bytes = nondet_size(), before = bytes, digits = 0;
    for (size_t i = 0; i < 4; i++) text[i] = (char)nondet_u8();
    text[4] = 0;
    bool good = size_parse(text, &bytes);
    uint64_t number = 0;
    while (text[digits] >= '0' && text[digits] <= '9') number = number * 10 + (uint64_t)(text[digits++] - '0');
    unsigned shift = 0;
    bool unit = true;
    switch (text[digits]) {
    case 'k':
    case 'K': shift = 10; break;
    case 'm':
    case 'M': shift = 20; break;
    case 'g':
    case 'G': shift = 30; break;
    case 't':
    case 'T': shift = 40; break;
    default: unit = false;
    }
    bool expected = digits > 0 && (text[digits] == 0 || (unit && text[digits + 1] == 0));
    prove(good == expected);
    prove(bytes == (good ? number << shift : before));
}

/* Around SIZE_MAX, 18446744073709551615: what does not fit is refused. */
void prove_parse_largest(void) {
    char text[] = "18446744073709551600";
    text[18] = (char)('0' + nondet_u8() % 10);
    text[19] = (char)('0' + nondet_u8() % 10);
    size_t bytes;
    unsigned end = (unsigned)(text[18] - '0') * 10 + (unsigned)(text[19] - '0');
    bool good = size_parse(text, &bytes);
    prove(good == (end <= 15));
    if (good) prove(bytes == UINT64_C(18446744073709551600) + end);
}

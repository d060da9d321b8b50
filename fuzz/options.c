/* options.c - the environment, and the strings of tide_set and tide_get, against a second parser that is written for clarity only. */
#include "os/options.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/format.h"
#include "fake_os.h"
#include "fuzz.h"

/* --- what docs/OPTIONS.md says --------------------------------------------------------------------------------------- */

enum kind { SIZE, FLAG, WORD };
static const struct about {
    const char *name;
    enum kind kind;
    bool at_start_only;
    const char *words[6];
    _Atomic size_t *value;
} abouts[] = {
    {"reserve", SIZE, true, {NULL}, &options.reserve_bytes},
    {"print_stats", FLAG, false, {NULL}, &options.print_stats},
    {"mode", WORD, false, {"static", "flush", "shrink", "adaptive", "hybrid", NULL}, &options.mode},
    {"keeper", WORD, true, {"off", "on", NULL}, &options.keeper},
    {"visible", WORD, true, {"off", "on", NULL}, &options.visible},
    {"log", WORD, true, {"off", "keeper", NULL}, &options.log},
};
#define ABOUTS (sizeof abouts / sizeof *abouts)

static const struct about *about_of(const char *name) {
    for (size_t i = 0; i < ABOUTS; i++)
        if (strcasecmp(abouts[i].name, name) == 0) return &abouts[i];
    return NULL;
}

/* Digits and one letter. */
static bool reference_size(const char *text, unsigned __int128 *value) {
    size_t digits = strspn(text, "0123456789");
    if (digits == 0 || strlen(text + digits) > 1) return false;
    *value = 0;
    for (size_t i = 0; i < digits; i++)
        if (*value <= (unsigned __int128)1 << 80) *value = *value * 10 + (unsigned)(text[i] - '0');
    switch (text[digits]) {
    case 0: return true;
    case 'k':
    case 'K': *value <<= 10; return true;
    case 'm':
    case 'M': *value <<= 20; return true;
    case 'g':
    case 'G': *value <<= 30; return true;
    case 't':
    case 'T': *value <<= 40; return true;
    default: return false;
    }
}

static bool reference(const struct about *about, const char *text, size_t *result) {
    unsigned __int128 value = 0;
    if (about->kind == WORD) {
        for (size_t i = 0; about->words[i] != NULL; i++)
            if (strcasecmp(about->words[i], text) == 0) {
                *result = i;
                return true;
            }
        return false;
    }
    if (!reference_size(text, &value)) return false;
    if (about->kind == SIZE ? value < 16 * MIB || value > 16 * TIB : value > 1) return false;
    *result = (size_t)value;
    return true;
}

/* --- the environment --------------------------------------------------------------------------------------------------- */

/* Text in an allocation of its own, so that a read behind its end is seen. */
static char *text_take(struct input *input, const char *prefix) {
    size_t length = 0, before = strlen(prefix);
    while (input->at + length < input->end && input->at[length] != 0 && input->at[length] != '\n') length++;
    char *text = malloc(before + length + 1);
    must(text != NULL);
    memcpy(text, prefix, before);
    memcpy(text + before, input->at, length);
    text[before + length] = 0;
    input->at += length + (input->at + length < input->end);
    return text;
}

static size_t wanted[ABOUTS]; /* what each option must be */
static size_t warnings;

static void expect(const char *variable) {
    const char *equals = strchr(variable, '=');
    if (strncmp(variable, "TIDE_", 5) != 0 || equals == NULL) return;
    char *name = strndup(variable + 5, (size_t)(equals - variable - 5));
    must(name != NULL);
    const struct about *about = about_of(name);
    free(name);
    size_t value;
    if (about != NULL && reference(about, equals + 1, &value))
        wanted[about - abouts] = value;
    else
        warnings++;
}

static void options_must_be_as_wanted(void) {
    for (size_t i = 0; i < ABOUTS; i++) {
        must_be(*abouts[i].value == wanted[i], "%s is %zu, not %zu", abouts[i].name, (size_t)*abouts[i].value,
                wanted[i]);
        char whole[64];
        must(options_get(abouts[i].name, whole, sizeof whole) == 0);
        size_t back = 0;
        if (abouts[i].kind == WORD)
            must(strcmp(whole, abouts[i].words[wanted[i]]) == 0);
        else
            must(size_parse(whole, &back) && back == wanted[i]);
    }
}

/* Each warning is one whole line, however long the variable. The fake keeps the first 4,095 bytes of what was printed. */
static void warnings_must_be_lines(void) {
    size_t lines = 0;
    const char *at = fake.error;
    for (const char *end; (end = strchr(at, '\n')) != NULL; at = end + 1, lines++) {
        must(end - at < 256);
        must(strncmp(at, "tidemalloc: ", strlen("tidemalloc: ")) == 0);
    }
    if (strlen(fake.error) == sizeof fake.error - 1) return;
    must_be(lines == warnings, "%zu warnings, not %zu", lines, warnings);
    must(*at == 0);
}

#define VARIABLES_MAX 24
static void environment_load(struct input *input, unsigned count) {
    char *variables[VARIABLES_MAX + 1] = {NULL};
    for (unsigned i = 0; i < count && i < VARIABLES_MAX; i++) {
        variables[i] = text_take(input, i % 4 == 3 ? "" : "TIDE_");
        expect(variables[i]);
    }
    fake.environment = variables;
    options_load();
    warnings_must_be_lines();
    options_must_be_as_wanted();
    options_load(); /* only the first counts */
    fake.environment = NULL;
    for (unsigned i = 0; i < VARIABLES_MAX; i++) free(variables[i]);
}

/* --- tide_set, tide_get ------------------------------------------------------------------------------------------------ */

static char *name_take(struct input *input, unsigned which) {
    if (which >= ABOUTS) return text_take(input, "");
    char *name = strdup(abouts[which].name);
    must(name != NULL);
    return name;
}

static void set(struct input *input, unsigned which) {
    char *name = name_take(input, which % (ABOUTS + 2)), *value = text_take(input, "");
    const struct about *about = about_of(name);
    size_t parsed = 0;
    int expected = about == NULL                      ? ENOENT
                   : about->at_start_only             ? EPERM
                   : reference(about, value, &parsed) ? 0
                                                      : EINVAL;
    int result = options_set(name, value);
    must_be(result == expected, "set %s=%s: %d, not %d", name, value, result, expected);
    if (result == 0) wanted[about - abouts] = parsed;
    must(about == NULL || about->at_start_only || options_set(name, NULL) == EINVAL);
    options_must_be_as_wanted();
    free(name);
    free(value);
}

static void get(struct input *input, unsigned which) {
    char *name = name_take(input, which % (ABOUTS + 2));
    size_t size = input_byte(input) % 32;
    char *value = malloc(size + 1);
    must(value != NULL);
    memset(value, '#', size + 1);
    int result = options_get(name, value, size);
    must(value[size] == '#');
    must((result == ENOENT) == (about_of(name) == NULL));
    if (result == 0)
        must(memchr(value, 0, size) != NULL);
    else
        must(size == 0 || value[0] == '#');
    must(options_get(name, NULL, size) != 0);
    free(value);
    free(name);
}

static void parse(struct input *input) {
    char *text = text_take(input, "");
    unsigned __int128 exact = 0;
    size_t value = 7;
    bool valid = reference_size(text, &exact) && exact <= SIZE_MAX;
    must_be(size_parse(text, &value) == valid, "the size \"%s\"", text);
    must(value == (valid ? (size_t)exact : 7));
    free(text);
}

void fuzz_one(const uint8_t *data, size_t size) {
    struct input input = {data, data + size};
    unsigned first = input_byte(&input);
    fake.emulated = (first & 0x80) != 0;
    warnings = 0;
    for (size_t i = 0; i < ABOUTS; i++) wanted[i] = *abouts[i].value;
    if (fake.emulated) wanted[0] = GIB;
    must(options_set(NULL, "1") == ENOENT && options_get(NULL, NULL, 0) == ENOENT);
    environment_load(&input, first & 31);
    while (input_left(&input)) {
        unsigned step = input_byte(&input);
        switch (step % 3) {
        case 0: set(&input, step / 3); break;
        case 1: get(&input, step / 3); break;
        default: parse(&input);
        }
    }
}

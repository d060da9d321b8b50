#include "os/options.h"

#include "base/format.h"
#include "os/report.h"

#include <errno.h>

#define RESERVE_MIN_BYTES (16 * MIB)
#define RESERVE_MAX_BYTES (16 * TIB)
/* Sanitizers shadow the address space, Valgrind and qemu-user walk it. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define RESERVE_DEFAULT_BYTES (16 * GIB)
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define RESERVE_DEFAULT_BYTES (16 * GIB)
#endif
#endif
#ifndef RESERVE_DEFAULT_BYTES
#define RESERVE_DEFAULT_BYTES TIB
#endif
#define RESERVE_EMULATED_BYTES GIB

struct options options = {
    .reserve_bytes = RESERVE_DEFAULT_BYTES, .mode = MODE_HYBRID, .keeper = 1, .visible = 1, .secure = SECURE_BUILD};

static const char *const mode_words[] = {"static", "flush", "shrink", "adaptive", "hybrid", NULL};
static const char *const switch_words[] = {"off", "on", NULL};
static const char *const log_words[] = {"off", "keeper", NULL};
_Static_assert(sizeof mode_words / sizeof *mode_words == MODES + 1, "a word for each mode");

static const struct option {
    const char *name;
    _Atomic size_t *value;
    size_t min, max;
    bool at_start_only;
    const char *const *words; /* the values' names from 0 on, or NULL: a number */
} option_table[] = {
    {"reserve", &options.reserve_bytes, RESERVE_MIN_BYTES, RESERVE_MAX_BYTES, true, NULL},
    {"print_stats", &options.print_stats, 0, 1, false, NULL},
    {"check", &options.check, 0, 1, true, NULL},
    {"mode", &options.mode, 0, 0, false, mode_words},
    {"keeper", &options.keeper, 0, 0, true, switch_words},
    {"visible", &options.visible, 0, 0, true, switch_words},
    {"log", &options.log, 0, 0, true, log_words},
    {"secure", &options.secure, SECURE_BUILD, 1, true, NULL},
};
#define OPTION_COUNT (sizeof option_table / sizeof *option_table)

/* Compare as far as `length`, a-z against A-Z alike. */
static bool name_equals(const char *name, const char *given, size_t length) {
    for (size_t i = 0; i < length; i++)
        if (name[i] == 0 ||
            (name[i] != given[i] && !(given[i] >= 'A' && given[i] <= 'Z' && name[i] == given[i] + 'a' - 'A')))
            return false;
    return name[length] == 0;
}

static const struct option *option_find(const char *given, size_t length) {
    for (size_t i = 0; i < OPTION_COUNT; i++)
        if (name_equals(option_table[i].name, given, length)) return &option_table[i];
    return NULL;
}

static bool option_store_word(const struct option *option, const char *value) {
    for (size_t i = 0; option->words[i] != NULL; i++) {
        if (!name_equals(option->words[i], value, strlen(value))) continue;
        *option->value = i;
        return true;
    }
    return false;
}

static bool option_store(const struct option *option, const char *value) {
    size_t number;
    if (option->words != NULL) return option_store_word(option, value);
    if (!size_parse(value, &number) || number < option->min || number > option->max) return false;
    *option->value = number;
    return true;
}

static void option_read(const char *variable) {
    const char *name = variable + strlen("TIDE_");
    const char *value = strchr(name, '=');
    if (value == NULL) return;
    const struct option *option = option_find(name, (size_t)(value - name));
    if (option == NULL)
        report_warning("ignoring an option that does not exist: ", variable);
    else if (!option_store(option, value + 1))
        report_warning("using the default instead of the bad value in ", variable);
}

void options_load(void) {
    static bool loaded;
    if (loaded) return;
    if (os_is_emulated()) options.reserve_bytes = RESERVE_EMULATED_BYTES;
    char **all = os_environment_all();
    if (all == NULL) return;
    loaded = true;
    for (; *all != NULL; all++)
        if (strncmp(*all, "TIDE_", strlen("TIDE_")) == 0) option_read(*all);
}

int options_set(const char *name, const char *value) {
    const struct option *option = name != NULL ? option_find(name, strlen(name)) : NULL;
    if (option == NULL) return ENOENT;
    if (option->at_start_only) return EPERM;
    return value != NULL && option_store(option, value) ? 0 : EINVAL;
}

int options_get(const char *name, char *value, size_t size) {
    const struct option *option = name != NULL ? option_find(name, strlen(name)) : NULL;
    if (option == NULL) return ENOENT;
    struct line line = {0};
    if (option->words != NULL)
        line_add(&line, option->words[*option->value]);
    else
        line_add_number(&line, *option->value);
    if (value == NULL || size <= line.length) return EINVAL;
    memcpy(value, line.text, line.length + 1);
    return 0;
}

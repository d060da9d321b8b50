/* strings.c - a program that lives on small strings: it splits, joins, replaces and counts words in a hash map.
 *
 * Pattern: lines of made-up words are built by appending (realloc in small steps), split into copies of their words,
 * each word is looked up in a map whose entries own their key and a short value that is rewritten at every tenth hit;
 * old entries are dropped when the map is full. Own program, after the string-heavy Perl and awk programs whose traces
 * Zorn and Grunwald collected ("Empirical measurements of six allocation-intensive C programs", 1992).
 * Stresses: tiny blocks of 8 to 100 bytes, realloc between neighbouring classes, a mix of very short and long lives.
 *
 * Arguments: lines, words in a line, entries of the map.
 */
#include "common.h"

typedef struct entry {
    char *key;
    char *value;
    uint64_t count;
} entry;

typedef struct text {
    char *bytes;
    size_t length, capacity;
} text;

static tally work;

static char *copy(const char *bytes, size_t length) {
    char *result = take(length + 1);
    memcpy(result, bytes, length);
    result[length] = '\0';
    work.blocks++;
    return result;
}

static void text_append(text *t, const char *bytes, size_t length) {
    if (t->length + length + 1 > t->capacity) {
        t->capacity = (t->length + length + 1) + t->capacity / 2;
        t->bytes = realloc(t->bytes, t->capacity);
        if (t->bytes == NULL) die("out of memory");
        work.blocks++;
    }
    memcpy(t->bytes + t->length, bytes, length);
    t->length += length;
    t->bytes[t->length] = '\0';
}

/* A word of 2 to 20 letters; low numbers, which are drawn more often, are the common words. */
static size_t word_spell(char *word, rng *random) {
    uint64_t number = rng_size(random, 16, 1 << 18);
    size_t length = 2 + number % 19;
    for (size_t i = 0; i < length; i++) word[i] = (char)('a' + (number >> (i % 18)) % 26);
    return length;
}

static text line_build(size_t words, rng *random) {
    text line = {NULL, 0, 0};
    char word[32];
    for (size_t i = 0; i < words; i++) {
        if (i > 0) text_append(&line, " ", 1);
        text_append(&line, word, word_spell(word, random));
    }
    return line;
}

/* Open addressing without deletion: a collision after a few probes replaces the entry, as a cache does. */
static entry *map_find(entry *map, size_t entries, const char *key) {
    uint64_t hash = 1469598103934665603u;
    for (const char *c = key; *c != '\0'; c++) hash = (hash ^ (unsigned char)*c) * 1099511628211u;
    for (size_t probe = 0; probe < 4; probe++) {
        entry *e = &map[(hash + probe) % entries];
        if (e->key == NULL || strcmp(e->key, key) == 0) return e;
    }
    entry *victim = &map[hash % entries];
    work.sum += victim->count;
    free(victim->key);
    free(victim->value);
    *victim = (entry){NULL, NULL, 0};
    return victim;
}

static void map_count(entry *map, size_t entries, const char *word, size_t length) {
    entry *e = map_find(map, entries, word);
    if (e->key == NULL) e->key = copy(word, length);
    if (e->count++ % 10 != 0) return;
    char value[64];
    int written = snprintf(value, sizeof value, "%.*s:%" PRIu64, (int)length, word, e->count);
    free(e->value);
    e->value = copy(value, (size_t)written);
}

int main(int argc, char **argv) {
    size_t lines = argument(argc, argv, 1, 120000), words = argument(argc, argv, 2, 40);
    size_t entries = argument(argc, argv, 3, 50000);
    entry *map = calloc(entries, sizeof *map);
    char **parts = take(words * sizeof *parts);
    rng random = rng_seed(0);
    if (map == NULL) die("out of memory");

    for (size_t i = 0; i < lines; i++) {
        text line = line_build(words, &random);
        size_t part_count = 0;
        for (char *at = line.bytes; at != NULL && part_count < words;) {
            size_t length = strcspn(at, " ");
            parts[part_count++] = copy(at, length);
            at = at[length] == '\0' ? NULL : at + length + 1;
        }
        free(line.bytes);
        for (size_t j = 0; j < part_count; j++) map_count(map, entries, parts[j], strlen(parts[j]));
        for (size_t j = 0; j < part_count; j++) free(parts[j]);
    }
    for (size_t i = 0; i < entries; i++) {
        if (map[i].key != NULL) work.sum += map[i].count * strlen(map[i].key);
        free(map[i].key);
        free(map[i].value);
    }
    free(parts);
    free(map);
    return tally_print("strings", work);
}

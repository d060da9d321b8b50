/* vector-grow.c - vectors that grow by realloc, several at a time.
 *
 * Pattern: a row of vectors takes elements in turn, in chunks. When one is full, it grows by the rule of its kind:
 * twice as large, one and a half times, or a fixed number of bytes more, as std::vector, many scripting languages and
 * simple read-a-file loops do. At its final size, which differs, a vector is freed and starts again. Own program; the
 * pattern is named in Wilson et al., "Dynamic storage allocation: a survey" (IWMM 1995), as the ramp.
 * Stresses: realloc in place or by copying, reuse of the sizes left behind, blocks that pass from the small to the
 * large tiers.
 *
 * Arguments: elements (8 bytes) appended in all, vectors, largest final size in KiB.
 */
#include "common.h"

enum { CHUNK_ELEMENTS = 32, FIXED_STEP_BYTES = 16 * 1024 };

typedef struct vector {
    uint64_t *elements;
    size_t count, capacity, final_count;
} vector;

static size_t capacity_next(size_t kind, size_t capacity) {
    switch (kind) {
    case 0: return capacity * 2;
    case 1: return capacity + capacity / 2;
    default: return capacity + (capacity < 2048 ? capacity : FIXED_STEP_BYTES / sizeof(uint64_t));
    }
}

static void vector_append(vector *v, size_t kind, uint64_t value, tally *result) {
    if (v->count == v->capacity) {
        v->capacity = v->capacity == 0 ? 4 : capacity_next(kind, v->capacity);
        v->elements = realloc(v->elements, v->capacity * sizeof *v->elements);
        if (v->elements == NULL) die("out of memory");
        result->blocks++;
    }
    v->elements[v->count++] = value;
}

static void vector_restart(vector *v, size_t largest_bytes, rng *random, tally *result) {
    for (size_t i = 0; i < v->count; i += 64) result->sum += v->elements[i];
    free(v->elements);
    *v = (vector){.final_count = rng_size(random, 64, largest_bytes) / sizeof *v->elements};
}

int main(int argc, char **argv) {
    size_t elements = argument(argc, argv, 1, 60000000), vector_count = argument(argc, argv, 2, 12);
    size_t largest_bytes = argument(argc, argv, 3, 4096) << 10;
    vector *vectors = calloc(vector_count, sizeof *vectors);
    rng random = rng_seed(0);
    tally result = {0, 0};
    if (vectors == NULL) die("out of memory");
    /* The first two thirds of the vectors grow to the full size, so that large ones are always among them. */
    for (size_t i = 0; i < vector_count; i++) vectors[i].final_count = largest_bytes / sizeof(uint64_t);

    for (size_t appended = 0; appended < elements; appended += CHUNK_ELEMENTS) {
        size_t which = rng_below(&random, vector_count);
        vector *v = &vectors[which];
        for (size_t i = 0; i < CHUNK_ELEMENTS; i++) vector_append(v, which % 3, appended + i, &result);
        if (v->count < v->final_count) continue;
        vector_restart(v, largest_bytes, &random, &result);
        if (which < vector_count * 2 / 3) v->final_count = largest_bytes / sizeof(uint64_t);
    }
    for (size_t i = 0; i < vector_count; i++) vector_restart(&vectors[i], largest_bytes, &random, &result);
    for (size_t i = 0; i < vector_count; i++) free(vectors[i].elements);
    free(vectors);
    return tally_print("vector-grow", result);
}

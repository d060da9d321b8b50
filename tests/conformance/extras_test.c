/* extras_test.c - glibc's extras: malloc_trim, mallopt, mallinfo, mallinfo2, malloc_info, malloc_stats. */
#define _GNU_SOURCE 1
#include "unit.h"

#include <ctype.h>

enum { KIB = 1024, MIB = 1024 * 1024 };

static void malloc_trim_gives_back(void **state) {
    (void)state;
    enum { COUNT = 64 * 1024 };
    static void *blocks[COUNT];
    malloc_trim(0);
    for (size_t i = 0; i < COUNT; i++) {
        blocks[i] = malloc(1000);
        assert_non_null(blocks[i]);
        memset(blocks[i], 1, 1000);
    }
    size_t full = process_resident_bytes();
    for (size_t i = 0; i < COUNT; i++) free(blocks[i]);
    int result = -1;
    assert_errno_untouched(result = malloc_trim(0));
    assert_true(result == 0 || result == 1);
#if !defined(__SANITIZE_ADDRESS__) && !defined(TIDE_PREFIXED)
    /* 62 MiB went; 2 MiB of leeway for descriptors and whatever else the process touched. */
    assert_true(process_resident_bytes() + 60 * MIB <= full);
#else
    (void)full;
#endif
    /* Nothing was broken by it. */
    for (size_t i = 0; i < COUNT; i++) {
        blocks[i] = malloc(1000);
        assert_non_null(blocks[i]);
        memset(blocks[i], 2, 1000);
    }
    for (size_t i = 0; i < COUNT; i++) free(blocks[i]);
    result = malloc_trim(100 * MIB);
    assert_true(result == 0 || result == 1);
}

static void malloc_trim_keeps_live_blocks(void **state) {
    (void)state;
    enum { COUNT = 5000 };
    static unsigned char *blocks[COUNT];
    for (size_t i = 0; i < COUNT; i++) {
        blocks[i] = malloc(1 + i);
        assert_non_null(blocks[i]);
        memset(blocks[i], (int)(1 + i % 250), 1 + i);
    }
    for (size_t i = 0; i < COUNT; i++)
        if (i % 7 != 0) free(blocks[i]);
    malloc_trim(0);
    for (size_t i = 0; i < COUNT; i += 7) {
        assert_int_equal(first_other(blocks[i], 1 + i, (unsigned char)(1 + i % 250)), 1 + i);
        free(blocks[i]);
    }
}

static void mallopt_accepts_the_usual(void **state) {
    (void)state;
    assert_int_equal(mallopt(M_TRIM_THRESHOLD, 256 * KIB), 1);
    assert_int_equal(mallopt(M_MMAP_THRESHOLD, 256 * KIB), 1);
    assert_int_equal(mallopt(M_MMAP_MAX, 65536), 1);
    assert_int_equal(mallopt(M_TOP_PAD, 64 * KIB), 1);
    assert_int_equal(mallopt(M_ARENA_MAX, 4), 1);
    void *p = malloc(300 * KIB);
    assert_non_null(p);
    free(p);
    /* Filling of new blocks may be granted or not; calloc must clear all the same. */
    int result = mallopt(M_PERTURB, 0x5a);
    assert_true(result == 0 || result == 1);
    for (size_t size = 1; size < 1 * MIB; size *= 3) {
        p = malloc(size);
        assert_non_null(p);
        free(p);
        p = calloc(1, size);
        assert_non_null(p);
        assert_int_equal(first_other(p, size, 0), size);
        free(p);
    }
    mallopt(M_PERTURB, 0);
}

/* Bytes in use: in the heap and in mappings of their own, which is where glibc counts large blocks. */
static size_t in_use(const struct mallinfo2 *info) { return info->uordblks + info->hblkhd; }

static void mallinfo2_follows_the_blocks(void **state) {
    (void)state;
    enum { COUNT = 100 };
    void *blocks[COUNT];
    const size_t sizes[] = {100, 5000, 100 * KIB, 1 * MIB};
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
        struct mallinfo2 before = mallinfo2();
        for (size_t i = 0; i < COUNT; i++) {
            blocks[i] = malloc(sizes[s]);
            assert_non_null(blocks[i]);
        }
        struct mallinfo2 during = mallinfo2();
        for (size_t i = 0; i < COUNT; i++) free(blocks[i]);
        struct mallinfo2 after = mallinfo2();
        if (!subject.is_tide && sizes[s] < 1024) continue; /* glibc counts its thread caches as in use */
        assert_true(in_use(&during) >= in_use(&before) + COUNT * sizes[s]);
        assert_true(in_use(&after) + COUNT * sizes[s] <= in_use(&during));
        assert_true(during.arena + during.hblkhd >= in_use(&during));
    }
}

/* The old struct has int fields: the same numbers where they fit. */
static void mallinfo_says_the_same(void **state) {
    (void)state;
    void *p = malloc(1000);
    assert_non_null(p);
    struct mallinfo2 wide = mallinfo2();
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
    struct mallinfo narrow = mallinfo();
#pragma GCC diagnostic pop
    assert_true((size_t)narrow.uordblks == wide.uordblks);
    assert_true(narrow.uordblks > 0);
    assert_true(narrow.fordblks >= 0);
    free(p);
}

/* A check for well-formed XML, enough for documents without CDATA: every tag is closed in order, attributes are quoted,
 * one root. Returns NULL or what is wrong. */
static const char *xml_complaint(const char *at, const char *root) {
    enum { DEPTH = 32, NAME = 64 };
    static char names[DEPTH][NAME];
    size_t depth = 0, roots = 0;
    while (*at != 0) {
        if (*at != '<') {
            if (depth == 0 && !isspace((unsigned char)*at)) return "text outside the root";
            if (*at == '>' || *at == '&') return "a bare > or &";
            at++;
            continue;
        }
        at++;
        if (*at == '?' || *at == '!') {
            at = strchr(at, '>');
            if (at == NULL) return "a declaration without end";
            at++;
            continue;
        }
        int closing = *at == '/';
        if (closing) at++;
        char name[NAME];
        size_t length = 0;
        while (isalnum((unsigned char)*at) || *at == '_' || *at == '-') {
            if (length + 1 < NAME) name[length++] = *at;
            at++;
        }
        name[length] = 0;
        if (length == 0) return "a tag without a name";
        if (closing) {
            if (*at++ != '>') return "a bad closing tag";
            if (depth == 0 || strcmp(names[--depth], name) != 0) return "a closing tag that does not match";
            continue;
        }
        if (depth == 0) {
            if (strcmp(name, root) != 0 || roots++ > 0) return "the wrong root";
        }
        for (;;) {
            while (isspace((unsigned char)*at)) at++;
            if (*at == '>' || *at == '/') break;
            const char *start = at;
            while (isalnum((unsigned char)*at) || *at == '_' || *at == '-') at++;
            if (at == start || at[0] != '=' || at[1] != '"') return "a bad attribute";
            at = strchr(at + 2, '"');
            if (at == NULL) return "an attribute without end";
            at++;
        }
        if (*at == '/') {
            if (*++at != '>') return "a bad empty tag";
        } else {
            if (depth == DEPTH) return "too deep";
            memcpy(names[depth++], name, NAME);
        }
        at++;
    }
    if (depth != 0) return "tags left open";
    return roots == 1 ? NULL : "no root";
}

static void malloc_info_writes_xml(void **state) {
    (void)state;
    /* The check itself can fail. */
    assert_null(xml_complaint("<malloc version=\"1\"><a b=\"c\"/><d>5</d></malloc>\n", "malloc"));
    assert_non_null(xml_complaint("<malloc><a></malloc>", "malloc"));
    assert_non_null(xml_complaint("<malloc><a b=c/></malloc>", "malloc"));

    /* To memory: writing then allocates from the allocator that is being described. */
    char *text = NULL;
    size_t size = 0;
    FILE *stream = open_memstream(&text, &size);
    assert_non_null(stream);
    assert_int_equal(malloc_info(0, stream), 0);
    assert_int_equal(fclose(stream), 0);
    assert_true(size > 20);
    const char *complaint = xml_complaint(text, "malloc");
    if (complaint != NULL) fail_msg("malloc_info: %s in:\n%s", complaint, text);
    assert_true(strstr(text, "<malloc version=\"") != NULL);
    libc_free(text);
}

static void malloc_info_refuses_unknown_options(void **state) {
    (void)state;
    char *text = NULL;
    size_t size = 0;
    FILE *stream = open_memstream(&text, &size);
    assert_non_null(stream);
    assert_int_not_equal(malloc_info(1, stream), 0);
    assert_int_equal(fclose(stream), 0);
    assert_int_equal(size, 0);
    libc_free(text);
}

static void malloc_stats_writes_to_stderr(void **state) {
    (void)state;
    FILE *file = tmpfile();
    assert_non_null(file);
    fflush(stderr);
    int saved = dup(STDERR_FILENO);
    assert_true(saved >= 0);
    assert_true(dup2(fileno(file), STDERR_FILENO) >= 0);
    malloc_stats();
    fflush(stderr);
    assert_true(dup2(saved, STDERR_FILENO) >= 0);
    close(saved);
    assert_true(lseek(fileno(file), 0, SEEK_END) > 20);
    fclose(file);
}

int main(void) {
    subject_require();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(malloc_trim_gives_back),
        cmocka_unit_test(malloc_trim_keeps_live_blocks),
        cmocka_unit_test(mallopt_accepts_the_usual),
        cmocka_unit_test(mallinfo2_follows_the_blocks),
        cmocka_unit_test(mallinfo_says_the_same),
        cmocka_unit_test(malloc_info_writes_xml),
        cmocka_unit_test(malloc_info_refuses_unknown_options),
        cmocka_unit_test(malloc_stats_writes_to_stderr),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

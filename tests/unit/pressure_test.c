/* The sources of memory pressure, over files that exist in this test only. */
#include "keeper/pressure.h"

#include <errno.h>
#include <stdio.h>

#include "unit.h"

static struct file {
    const char *path, *text;
    bool read_only, refuses; /* refuses: the write fails */
    enum os_event event;     /* what os_file_poll says next */
    bool priority;           /* how it was asked */
    char written[64];
    size_t at, length;
    int opened, closed;
} files[8];

static struct file *file_add(const char *path, const char *text) {
    for (size_t i = 0; i < COUNT_OF(files); i++) {
        if (files[i].path != NULL && strcmp(files[i].path, path) != 0) continue;
        files[i].path = path;
        files[i].text = text;
        return &files[i];
    }
    fail_msg("too many files");
    return NULL;
}

static struct file *file_at(int number) {
    assert_in_range(number, 3, 3 + COUNT_OF(files) - 1);
    struct file *file = &files[number - 3];
    assert_true(file->opened > file->closed);
    return file;
}

int os_file_open(const char *path, enum os_open how) {
    for (size_t i = 0; i < COUNT_OF(files); i++) {
        struct file *file = &files[i];
        if (file->path == NULL || strcmp(file->path, path) != 0) continue;
        if (how == OS_READ_WRITE && file->read_only) return -EACCES;
        file->opened++;
        file->at = 0;
        return (int)i + 3;
    }
    return -ENOENT;
}

long os_file_read(int number, void *to, size_t bytes) {
    struct file *file = file_at(number);
    size_t count = size_min(bytes, strlen(file->text) - file->at);
    memcpy(to, file->text + file->at, count);
    file->at += count;
    return (long)count;
}

long os_file_write(int number, const void *from, size_t bytes) {
    struct file *file = file_at(number);
    if (file->refuses) return -EINVAL;
    assert_true(bytes <= sizeof file->written);
    memcpy(file->written, from, bytes);
    file->length = bytes;
    return (long)bytes;
}

void os_file_close(int number) { file_at(number)->closed++; }

enum os_event os_file_poll(int number, bool priority) {
    struct file *file = file_at(number);
    file->priority = priority;
    return file->event;
}

static void nothing_stays_open(void) {
    pressure_close();
    for (size_t i = 0; i < COUNT_OF(files); i++) assert_int_equal(files[i].opened, files[i].closed);
}

/* --- tests ----------------------------------------------------------------------------------------------------------- */

static void test_nothing_there(void **state) {
    (void)state;
    pressure_open();
    for (int i = 0; i < 3; i++) assert_int_equal(pressure_look(), PRESSURE_NONE);
    nothing_stays_open();
}

static void test_stalls(void **state) {
    (void)state;
    struct file *stall = file_add("/proc/pressure/memory", "some avg10=0.00");
    pressure_open();
    assert_string_equal(stall->written, "some 150000 2000000");
    assert_int_equal(stall->length, strlen(stall->written) + 1); /* the kernel wants the zero */
    assert_int_equal(pressure_look(), PRESSURE_NONE);
    stall->event = OS_EVENT;
    assert_int_equal(pressure_look(), PRESSURE_STALL);
    assert_true(stall->priority);
    stall->event = OS_FILE_BROKEN;
    assert_int_equal(pressure_look(), PRESSURE_NONE);
    assert_int_equal(stall->closed, 1); /* and it is not asked again */
    assert_int_equal(pressure_look(), PRESSURE_NONE);
    nothing_stays_open();
}

static void test_stalls_without_the_right(void **state) {
    (void)state;
    struct file *stall = file_add("/proc/pressure/memory", "");
    stall->refuses = true;
    pressure_open();
    assert_int_equal(stall->closed, 1);
    assert_int_equal(pressure_look(), PRESSURE_NONE);
    nothing_stays_open();
}

static void test_manager_with_a_pipe(void **state) {
    (void)state;
    char *environment[] = {"MEMORY_PRESSURE_WATCH=/run/pipe", NULL};
    fake.environment = environment;
    struct file *pipe = file_add("/run/pipe", "x");
    pressure_open();
    assert_int_equal(pipe->length, 0);
    assert_int_equal(pressure_look(), PRESSURE_NONE);
    pipe->event = OS_EVENT;
    assert_int_equal(pressure_look(), PRESSURE_MANAGER);
    assert_false(pipe->priority);
    assert_int_equal(pipe->at, 1);                    /* taken in */
    assert_int_equal(pressure_look(), PRESSURE_NONE); /* the other end is closed: readable, and nothing to read */
    assert_int_equal(pipe->closed, 1);
    nothing_stays_open();
}

static void test_manager_with_a_trigger(void **state) {
    (void)state;
    char *environment[] = {"MEMORY_PRESSURE_WATCH=/cg/memory.pressure",
                           "MEMORY_PRESSURE_WRITE=c29tZSAyMDAwMDAgMjAwMDAwMAA=", NULL};
    fake.environment = environment;
    struct file *trigger = file_add("/cg/memory.pressure", "");
    pressure_open();
    assert_string_equal(trigger->written, "some 200000 2000000");
    assert_int_equal(trigger->length, strlen(trigger->written) + 1);
    trigger->event = OS_EVENT;
    assert_int_equal(pressure_look(), PRESSURE_MANAGER);
    assert_true(trigger->priority);
    nothing_stays_open();
}

static void test_manager_says_no(void **state) {
    (void)state;
    char *environment[] = {"MEMORY_PRESSURE_WATCH=/dev/null", NULL};
    fake.environment = environment;
    struct file *null = file_add("/dev/null", "");
    pressure_open();
    assert_int_equal(null->opened, 0);
    nothing_stays_open();
}

#define GROUP "/sys/fs/cgroup/a/b"

static void test_cgroup(void **state) {
    (void)state;
    file_add("/proc/self/cgroup", "12:cpu:/old\n0::/a/b\n");
    file_add(GROUP "/memory.max", "104857600\n");
    struct file *high = file_add(GROUP "/memory.high", "max\n");
    struct file *stat = file_add(GROUP "/memory.stat", "anon 1000\nfile 104000000\n");
    pressure_open();
    assert_int_equal(pressure_look(), PRESSURE_NONE); /* files fill it, and that is no matter */
    stat->text = "anon 91750400\nfile 0\n";           /* 7/8 of the limit */
    assert_int_equal(pressure_look(), PRESSURE_CGROUP);
    stat->text = "anon 91750399\nfile 0\n";
    assert_int_equal(pressure_look(), PRESSURE_NONE);
    high->text = "8000000\n"; /* the lower limit counts */
    assert_int_equal(pressure_look(), PRESSURE_CGROUP);
    high->text = "max\n";
    file_add(GROUP "/memory.max", "max\n");
    assert_int_equal(pressure_look(), PRESSURE_NONE);
    stat->text = "";
    file_add(GROUP "/memory.max", "1\n");
    assert_int_equal(pressure_look(), PRESSURE_NONE);
    nothing_stays_open();
}

static void test_cgroup_of_version_1(void **state) {
    (void)state;
    file_add("/proc/self/cgroup", "3:memory:/0::/x\n");
    file_add("/sys/fs/cgroup/x/memory.stat", "anon 100\n");
    file_add("/sys/fs/cgroup/x/memory.max", "1\n");
    pressure_open();
    assert_int_equal(pressure_look(), PRESSURE_NONE);
    nothing_stays_open();
}

static void test_cgroup_with_a_long_name(void **state) {
    (void)state;
    static char text[2000];
    int length = snprintf(text, sizeof text, "0::/%01500d\n", 7);
    assert_true(length > 1500);
    file_add("/proc/self/cgroup", text);
    pressure_open();
    assert_int_equal(pressure_look(), PRESSURE_NONE);
    nothing_stays_open();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_there),
        cmocka_unit_test(test_stalls),
        cmocka_unit_test(test_stalls_without_the_right),
        cmocka_unit_test(test_manager_with_a_pipe),
        cmocka_unit_test(test_manager_with_a_trigger),
        cmocka_unit_test(test_manager_says_no),
        cmocka_unit_test(test_cgroup),
        cmocka_unit_test(test_cgroup_of_version_1),
        cmocka_unit_test(test_cgroup_with_a_long_name),
    };
    return unit_run(tests, COUNT_OF(tests));
}

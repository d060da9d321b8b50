/* exhaust.c - when something runs out: memory by limits, mappings, threads, processes; and ends at random moments.
 *
 * argv: scene, and what the scene takes. Every scene does the same mixed work with checked contents while
 * allocations may be refused; when there is enough again, nothing may be refused any more, and nothing is lost.
 * Status 77: cannot be tried here. */
#define _GNU_SOURCE 1
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "shadow.h"
#include "subject.h"

#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)
enum { RECORDS = 240, NOTHING_TO_WORK_WITH = 3, PATIENCE_SECONDS = 60 };

static shadow_t *table;
static uint64_t seed = 1;

static void skip(const char *why) {
    printf("skipped: %s\n", why);
    fflush(stdout);
    _exit(CHECK_SKIPPED);
}

/* --- the work
 * ------------------------------------------------------------------------------------------------------ */

static void steps(shadow_t *records, size_t count, size_t number, size_t largest, uint64_t *random) {
    for (size_t i = 0; i < number; i++) shadow_step(&records[random_below(random, count)], random, largest);
}

static void *half_main(void *half) {
    uint64_t random = seed ^ (uintptr_t)half;
    shadow_refusal_allowed = SHADOW_REFUSE_ANY;
    steps(half, RECORDS / 2, 400, 300000, &random);
    return NULL;
}

/* A block doubles until it has 16 MiB: moved by copying, in place, and by mremap. */
static void grow(void) {
    uint64_t *block = malloc(40000);
    for (size_t bytes = 40000; block != NULL && bytes < 16 * MIB; bytes *= 2) {
        block[0] = block[bytes / 8 - 1] = seed;
        uint64_t *next = realloc(block, 2 * bytes);
        CHECK(next != NULL || errno == ENOMEM);
        if (next == NULL) break;
        block = next;
        CHECK(block[0] == seed && block[bytes / 8 - 1] == seed);
        free(malloc(100000));
    }
    free(block);
}

/* The contents only: to look for blocks that overlap takes memory, see recover. */
static void look(void) {
    for (size_t i = 0; i < RECORDS; i++) shadow_verify(&table[i]);
}

static void work(bool thread) {
    uint64_t random = seed++;
    pthread_t other;
    int error = thread ? pthread_create(&other, NULL, half_main, table) : EAGAIN;
    CHECKF(error == 0 || error == ENOMEM || error == EAGAIN, "pthread_create: %d", error);
    if (error != 0) half_main(table);
    half_main(table + RECORDS / 2);
    if (error == 0) CHECK(pthread_join(other, NULL) == 0);
    grow();
    steps(table, RECORDS, 200, 3 * MIB, &random);
    look();
    malloc_trim(0);
    steps(table, RECORDS, 200, 3000, &random);
    look();
}

static void drop(void) {
    for (size_t i = 0; i < RECORDS; i++) shadow_free(&table[i], &seed);
}

/* There is enough of everything again. `before`: what was live at the start. */
static void recover(uint64_t before) {
    shadow_refusal_allowed = 0;
    shadow_table_verify(table, RECORDS);
    for (size_t i = 0; i < RECORDS; i++)
        if (table[i].p == NULL) CHECK(shadow_malloc(&table[i], &seed, shadow_random_size(&seed, MIB)));
    steps(table, RECORDS, 500, MIB, &seed);
    drop();
    subject_release_all();
    uint64_t after = subject_stats().allocated_bytes;
    CHECKF(after <= before + 128 * KIB, "%llu bytes are lost", (unsigned long long)(after - before));
}

/* --- limits
 * -------------------------------------------------------------------------------------------------------- */

static size_t now_used(int resource) {
    if (resource == RLIMIT_AS) return process_virtual_bytes();
    char text[4096];
    int fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
    ssize_t got = read(fd, text, sizeof text - 1);
    close(fd);
    CHECK(got > 0);
    text[got] = 0;
    const char *at = strstr(text, "\nVmData:");
    CHECK(at != NULL);
    return strtoull(at + 8, NULL, 10) * KIB;
}

/* A child for each step: it may use so much more than it has. */
static void limit(int resource, size_t count, size_t step_bytes) {
    unsigned long long refused = 0;
    for (size_t i = 0; i < count; i++) {
        int pipes[2];
        CHECK(pipe(pipes) == 0);
        pid_t child = fork();
        if (child == 0) {
            uint64_t before = subject_stats().allocated_bytes;
            struct rlimit old, new;
            CHECK(getrlimit(resource, &old) == 0);
            new = old;
            new.rlim_cur = now_used(resource) + i *step_bytes;
            CHECK(setrlimit(resource, &new) == 0);
            work(i % 2 == 0);
            CHECK(setrlimit(resource, &old) == 0);
            recover(before);
            unsigned long long mine = atomic_load(&shadow_refusals);
            CHECK(write(pipes[1], &mine, sizeof mine) == (ssize_t)sizeof mine);
            _exit(0);
        }
        close(pipes[1]);
        process_expect_success(child, resource == RLIMIT_AS ? "RLIMIT_AS" : "RLIMIT_DATA");
        unsigned long long theirs = 0;
        CHECK(read(pipes[0], &theirs, sizeof theirs) == (ssize_t)sizeof theirs);
        close(pipes[0]);
        refused += theirs;
    }
    printf("%zu steps of %zu KiB: %llu allocations refused\n", count, step_bytes / KIB, refused);
    CHECK(refused > 0 || resource == RLIMIT_AS); /* else the limits were none; our address space is reserved before */
}

/* Limits that are there from the program's start on: it works, or there is no memory at all. */
static void limit_start(char *self, size_t count, size_t step_bytes) {
    size_t worked = 0;
    for (size_t i = 1; i <= count; i++) {
        pid_t child = fork();
        if (child == 0) {
            struct rlimit room = {i * step_bytes, i * step_bytes};
            CHECK(setrlimit(RLIMIT_AS, &room) == 0);
            char word[] = "work";
            char *arguments[] = {self, word, NULL};
            int nothing = open("/dev/null", O_WRONLY | O_CLOEXEC);
            dup2(nothing, STDERR_FILENO); /* the loader's complaints */
            execv("/proc/self/exe", arguments);
            _exit(127);
        }
        int status = 0;
        CHECK(waitpid(child, &status, 0) == child);
        bool clean = WIFEXITED(status) && (WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == NOTHING_TO_WORK_WITH ||
                                           WEXITSTATUS(status) == 127);
        CHECKF(clean || i * step_bytes < 16 * MIB, "RLIMIT_AS of %zu KiB: wait status 0x%x", i * step_bytes / KIB,
               (unsigned)status);
        worked += WIFEXITED(status) && WEXITSTATUS(status) == 0;
    }
    printf("%zu of %zu programs had enough\n", worked, count);
    CHECK(worked > 0);
}

/* For fault.c --when walk: the nth of these children loses its nth call. */
static void walk(size_t count) {
    for (size_t i = 0; i < count; i++) {
        seed = 5;
        pid_t child = fork();
        if (child == 0) {
            uint64_t before = subject_stats().allocated_bytes;
            work(false);
            drop();
            subject_release_all();
            CHECK(subject_stats().allocated_bytes <= before + 128 * KIB);
            _exit(0);
        }
        process_expect_success(child, "a child that loses a call");
    }
}

/* --- a memory cgroup
 * ----------------------------------------------------------------------------------------------- */

static char group[200];

static bool put(const char *file, const char *text) {
    char path[300];
    snprintf(path, sizeof path, "%s/%s", group, file);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0) return false;
    bool done = write(fd, text, strlen(text)) == (ssize_t)strlen(text);
    close(fd);
    return done;
}

static pthread_barrier_t turn;
enum { TENANTS = 4 };

/* In turn each takes 40 of 64 MiB in blocks of a size of its own, gives them back, and lives on. */
static void *tenant_main(void *argument) {
    size_t mine = *(size_t *)argument;
    static const size_t sizes[TENANTS] = {60, 900, 20000, 1000000};
    for (size_t at = 0; at < 3 * TENANTS; at++) {
        pthread_barrier_wait(&turn);
        if (at % TENANTS != mine) continue;
        size_t count = 40 * MIB / sizes[mine];
        char **blocks = mmap(NULL, count * sizeof *blocks, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        for (size_t i = 0; i < count; i++) {
            blocks[i] = malloc(sizes[mine]);
            CHECK(blocks[i] != NULL);
            memset(blocks[i], (int)i, sizes[mine]);
        }
        for (size_t i = 0; i < count; i++) {
            CHECK(blocks[i][0] == (char)i && blocks[i][sizes[mine] - 1] == (char)i);
            free(blocks[i]);
        }
        munmap(blocks, count * sizeof *blocks);
    }
    return NULL;
}

static void cgroup(void) {
    bool first = access("/sys/fs/cgroup/memory/memory.limit_in_bytes", F_OK) == 0;
    snprintf(group, sizeof group, "%s/tidemalloc-test-%d", first ? "/sys/fs/cgroup/memory" : "/sys/fs/cgroup",
             (int)getpid());
    if (mkdir(group, 0755) != 0) skip("no control group can be made here");
    if (!put(first ? "memory.limit_in_bytes" : "memory.max", "67108864")) {
        rmdir(group);
        skip("no memory controller that may be set");
    }
    pid_t child = fork();
    if (child == 0) {
        CHECK(put("cgroup.procs", "0"));
        pthread_t threads[TENANTS];
        size_t numbers[TENANTS];
        pthread_barrier_init(&turn, NULL, TENANTS);
        for (size_t i = 0; i < TENANTS; i++) {
            numbers[i] = i;
            CHECK(pthread_create(&threads[i], NULL, tenant_main, &numbers[i]) == 0);
        }
        for (size_t i = 0; i < TENANTS; i++) CHECK(pthread_join(threads[i], NULL) == 0);
        _exit(0);
    }
    int status = 0;
    CHECK(waitpid(child, &status, 0) == child);
    for (int i = 0; i < 100 && rmdir(group) != 0; i++) clock_sleep_us(10000);
    CHECKF(WIFEXITED(status) && WEXITSTATUS(status) == 0, "in a group of 64 MiB: wait status 0x%x", (unsigned)status);
}

/* --- mappings
 * ------------------------------------------------------------------------------------------------------ */

static size_t page_bytes;

/* Every second page gets another protection until the kernel refuses. Returns how many. */
static size_t fill_mappings(char *area, size_t most) {
    size_t count = 0;
    while (count < most && mprotect(area + 2 * count * page_bytes, page_bytes, PROT_READ) == 0) count++;
    CHECKF(count < most && errno == ENOMEM, "after %zu pages: errno %d", count, errno);
    return count;
}

static void mappings(void) {
    size_t most = 0;
    FILE *file = fopen("/proc/sys/vm/max_map_count", "re");
    if (file == NULL || fscanf(file, "%zu", &most) != 1) skip("vm.max_map_count is not known");
    fclose(file);
    if (most > 300000) skip("vm.max_map_count is too large here to be reached");
    page_bytes = (size_t)sysconf(_SC_PAGESIZE);
    uint64_t before = subject_stats().allocated_bytes;
    char *area = mmap(NULL, (2 * most + 2) * page_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    CHECK(area != MAP_FAILED);
    static const size_t rooms[] = {0, 1, 2, 4, 9, 40};
    for (size_t i = 0; i < sizeof rooms / sizeof *rooms; i++) {
        size_t count = fill_mappings(area, most), refused = atomic_load(&shadow_refusals);
        for (size_t j = 0; j < rooms[i]; j++)
            CHECK(mprotect(area + 2 * (count - 1 - j) * page_bytes, page_bytes, PROT_NONE) == 0);
        work(true);
        clock_sleep_us(60000); /* the keeper punches */
        work(false);
        printf("%zu mappings, room for %zu: %zu allocations refused\n", most, 2 * rooms[i],
               (size_t)atomic_load(&shadow_refusals) - refused);
        fflush(stdout);
    }
    munmap(area, (2 * most + 2) * page_bytes);
    recover(before);
}

/* --- threads and forks
 * --------------------------------------------------------------------------------------------- */

enum { CROWD_MOST = 1000, CROWD_RECORDS = 60, WORKERS = 4 };
static size_t crowd_numbers[CROWD_MOST], crowd_size;
static pthread_barrier_t crowd_turn;
static atomic_int stop;

static void *crowd_main(void *argument) {
    size_t mine = *(size_t *)argument, next = (mine + 1) % crowd_size;
    uint64_t random = mine + 1;
    shadow_t *records = table + mine * CROWD_RECORDS, *others = table + next * CROWD_RECORDS;
    steps(records, CROWD_RECORDS, 150, 3000, &random);
    pthread_barrier_wait(&crowd_turn); /* all are there at once */
    for (size_t i = 0; i < CROWD_RECORDS; i++) shadow_free(&others[i], &random);
    pthread_barrier_wait(&crowd_turn);
    steps(records, CROWD_RECORDS, 50, 3000, &random); /* and these outlive the thread */
    return NULL;
}

static void crowd(size_t size) {
    pthread_t threads[CROWD_MOST];
    pthread_attr_t attributes;
    CHECK(size <= CROWD_MOST);
    crowd_size = size;
    table = shadow_table_make(size * CROWD_RECORDS);
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 64 * KIB);
    pthread_barrier_init(&crowd_turn, NULL, (unsigned)size);
    for (size_t i = 0; i < size; i++) {
        crowd_numbers[i] = i;
        int error = pthread_create(&threads[i], &attributes, crowd_main, &crowd_numbers[i]);
        if (error == EAGAIN) skip("so many threads are not allowed");
        CHECK(error == 0);
    }
    for (size_t i = 0; i < size; i++) CHECK(pthread_join(threads[i], NULL) == 0);
    shadow_table_verify(table, size * CROWD_RECORDS);
    for (size_t i = 0; i < size * CROWD_RECORDS; i++) shadow_free(&table[i], &seed);
    subject_release_all();
    tide_stats stats = subject_stats();
    CHECKF(stats.thread_count <= 2, "%llu threads", (unsigned long long)stats.thread_count);
    printf("%zu threads at once, %llu heaps, %llu KiB of metadata, %llu KiB retained\n", size,
           (unsigned long long)stats.heap_count, (unsigned long long)stats.metadata_bytes / 1024,
           (unsigned long long)stats.retained_bytes / 1024);
}

static void *worker_main(void *records) {
    uint64_t random = (uintptr_t)records;
    while (!atomic_load(&stop)) steps(records, RECORDS / WORKERS, 20, 60000, &random);
    return NULL;
}

static void workers_start(pthread_t *threads) {
    for (size_t i = 0; i < WORKERS; i++)
        CHECK(pthread_create(&threads[i], NULL, worker_main, table + i * (RECORDS / WORKERS)) == 0);
}

static void family(size_t size) {
    enum { AT_ONCE = 16 };
    pthread_t threads[WORKERS];
    pid_t children[AT_ONCE] = {0};
    workers_start(threads);
    for (size_t i = 0; i < size + AT_ONCE; i++) {
        if (children[i % AT_ONCE] > 0) process_expect_success(children[i % AT_ONCE], "one of many children");
        children[i % AT_ONCE] = 0;
        if (i >= size) continue;
        pid_t child = fork();
        CHECKF(child >= 0, "fork: errno %d", errno);
        if (child == 0) {
            uint64_t random = i + 1;
            for (size_t j = i % 3; j < RECORDS; j += 3) {
                /* Half done by a thread that does not exist here. */
                if (atomic_load(&table[j].busy)) continue;
                shadow_step(&table[j], &random, 60000);
            }
            _exit(0);
        }
        children[i % AT_ONCE] = child;
    }
    atomic_store(&stop, 1);
    for (size_t i = 0; i < WORKERS; i++) CHECK(pthread_join(threads[i], NULL) == 0);
    shadow_table_verify(table, RECORDS);
    printf("%zu children, all well\n", size);
}

/* --- ends at random moments
 * ---------------------------------------------------------------------------------------- */

enum end { BY_EXIT, BY_RAW_EXIT, BY_ABORT, BY_KILL, BY_TERM, BY_THREAD_EXIT, ENDS };
static enum end how;
static unsigned when_us;

static void at_exit(void) { free(malloc(100000)); }

static void *ender_main(void *nothing) {
    clock_sleep_us(when_us);
    switch (how) {
    case BY_EXIT: exit(0);
    case BY_RAW_EXIT: syscall(SYS_exit_group, 0); break;
    case BY_ABORT: abort();
    default: break;
    }
    return nothing;
}

static void end_child(uint64_t random) {
    pthread_t threads[WORKERS], ender;
    atexit(at_exit);
    workers_start(threads);
    CHECK(pthread_create(&ender, NULL, ender_main, NULL) == 0);
    if (how == BY_THREAD_EXIT) {
        clock_sleep_us(when_us);
        atomic_store(&stop, 1);
        pthread_exit(NULL);
    }
    for (;;) {
        pid_t child = fork(); /* the end may meet a fork */
        if (child == 0) _exit(0);
        if (child > 0) waitpid(child, NULL, 0);
        free(malloc(1 + random_below(&random, MIB)));
    }
}

static void ends(size_t count) {
    unsigned counts[ENDS] = {0};
    for (size_t i = 0; i < count; i++) {
        how = (enum end)(i % ENDS);
        when_us = (unsigned)random_below(&seed, 8000);
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) end_child(i + 1);
        if (how == BY_KILL || how == BY_TERM) {
            clock_sleep_us(when_us);
            kill(child, how == BY_KILL ? SIGKILL : SIGTERM);
        }
        int status = 0;
        uint64_t limit_ns = clock_now_ns() + PATIENCE_SECONDS * UINT64_C(1000000000);
        while (waitpid(child, &status, WNOHANG) == 0) {
            if (clock_now_ns() > limit_ns) kill(child, SIGKILL);
            CHECKF(clock_now_ns() < limit_ns, "end %d after %u us: hangs", (int)how, when_us);
            clock_sleep_us(500);
        }
        int expected_signal = how == BY_ABORT ? SIGABRT : how == BY_KILL ? SIGKILL : how == BY_TERM ? SIGTERM : 0;
        CHECKF(expected_signal != 0 ? WIFSIGNALED(status) && WTERMSIG(status) == expected_signal
                                    : WIFEXITED(status) && WEXITSTATUS(status) == 0,
               "end %d after %u us: wait status 0x%x", (int)how, when_us, (unsigned)status);
        counts[how]++;
    }
    printf("%zu ends: %u of each kind\n", count, counts[0]);
}

int main(int argc, char **argv) {
    CHECK(argc >= 2);
    const char *scene = argv[1];
    size_t count = argument_number(argc, argv, 2, 40), step_bytes = argument_number(argc, argv, 3, 64) * KIB;
    void *first = malloc(1);
    if (first == NULL) return errno == ENOMEM ? NOTHING_TO_WORK_WITH : 1;
    free(first);
    subject_require();
    table = shadow_table_make(RECORDS);
    if (strcmp(scene, "work") == 0)
        work(true);
    else if (strcmp(scene, "data") == 0)
        limit(RLIMIT_DATA, count, step_bytes);
    else if (strcmp(scene, "address") == 0)
        limit(RLIMIT_AS, count, step_bytes);
    else if (strcmp(scene, "start") == 0)
        limit_start(argv[0], count, step_bytes);
    else if (strcmp(scene, "walk") == 0)
        walk(count);
    else if (strcmp(scene, "cgroup") == 0)
        cgroup();
    else if (strcmp(scene, "mappings") == 0)
        mappings();
    else if (strcmp(scene, "crowd") == 0)
        crowd(count);
    else if (strcmp(scene, "family") == 0)
        family(count);
    else if (strcmp(scene, "ends") == 0)
        ends(count);
    else
        check_die("no scene %s", scene);
    return 0;
}

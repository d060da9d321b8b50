/* battle.c - the battle test's program: works hard, falls silent, and watches what its memory does then.
 *
 * Usage: battle SCENARIO [NAME=VALUE ...]
 *   idle    one burst (allocate, write, free), then silence
 *   recur   bursts with a gap of silence after each, then silence
 *   churn   threads that are born, allocate, free and end, then silence
 *   steady  a load that goes on: light (a little every 10 ms) or heavy (all threads at work)
 * Options and their defaults stand in `options_parse`. It runs under any allocator by LD_PRELOAD and calls nothing of
 * it but malloc and free (and, when there is one, tide_stats_get before the baseline and after the end).
 *
 * Prints a line "settled ..." as soon as it only has long silence left to watch, and at the end one JSON object.
 * The order of things: make threads and lists, warm up, baseline, work, last free, samples, report.
 */
#define _GNU_SOURCE
#include "crew.h"
#include "tidemalloc.h"
#include <dlfcn.h>
#include <stdarg.h>

enum { MAX_CYCLES = 64, SETTLED_MS = 1000 };

typedef enum freer { FREE_OWN, FREE_NEXT, FREE_MAIN } freer;

typedef struct options {
    kind kind;
    keep keep;
    freer freer;
    bool in_order, heavy;
    size_t mib, kib, threads, trickle_ms, gap_ms, cycles, delay_ms, quiet_ms, work, count;
    uint64_t at_ms[WATCH_MAX_SAMPLES];
    size_t at_count;
} options;

static options opt;

/* What was found; static, so that it is there before the baseline. */
static sample baseline, samples[WATCH_MAX_SAMPLES];
static size_t sample_count;
static census quiet_before, quiet_after;
static bool quiet_seen;
static uint64_t quiet_from_ms, burst_wall_ns, burst_cpu_ns, burst_waited_ns, live_pages;

typedef struct cycle {
    uint64_t wall_ns, cpu_ns, whole_cpu_ns; /* of the burst; of the burst and the silence after it */
} cycle;
static cycle cycles[MAX_CYCLES];

static struct { uint64_t operations, wall_ns, cpu_ns; } load;

/* ---- the report: one line of JSON ---- */

static char report[65536];
static size_t report_length;

__attribute__((format(printf, 1, 2))) static void say(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    int more = vsnprintf(report + report_length, sizeof report - report_length, format, arguments);
    va_end(arguments);
    if (more < 0 || (size_t)more >= sizeof report - report_length) die("the report is too long");
    report_length += (size_t)more;
}

static void report_send(void) {
    for (size_t at = 0; at < report_length;) {
        ssize_t done = write(STDOUT_FILENO, report + at, report_length - at);
        if (done < 0) _exit(1);
        at += (size_t)done;
    }
    report_length = 0;
}

static void say_sample(const sample *s) {
    say("{\"at_ms\": %" PRIu64 ", \"at_us\": %" PRIu64 ", \"rss_kib\": %" PRIu64 ", \"private_dirty_kib\": %" PRIu64
        ", \"anon_huge_kib\": %" PRIu64 ", \"lazy_free_kib\": %" PRIu64 ", \"others_cpu_ns\": %" PRIu64
        ", \"others_switches\": %" PRIu64 ", \"threads\": %" PRIu64 "}",
        s->planned_ms, s->at_ns / 1000, s->rss_kib, s->dirty_kib, s->huge_kib, s->lazy_kib, s->others_cpu_ns,
        s->others_switches, s->threads);
}

/* Who ran in the quiet time. Sleepers of the program's own must not be woken either, so they are added up too. */
static void say_quiet(void) {
    uint64_t foreign_cpu_ns = 0, own_switches = 0, own_cpu_ns = 0;
    const char *comma = "";
    say(", \"quiet\": {\"from_ms\": %" PRIu64 ", \"switches\": %" PRIu64 ", \"foreign\": [", quiet_from_ms,
        quiet_after.switches - quiet_before.switches);
    for (size_t i = 0; i < quiet_after.count; i++) {
        thread_state did = census_since(&quiet_before, &quiet_after.threads[i]);
        if (did.ours) {
            own_switches += did.switches;
            own_cpu_ns += did.cpu_ns;
            continue;
        }
        foreign_cpu_ns += did.cpu_ns;
        say("%s{\"name\": \"%s\", \"switches\": %" PRIu64 ", \"cpu_ns\": %" PRIu64 "}", comma, did.name, did.switches,
            did.cpu_ns);
        comma = ", ";
    }
    say("], \"foreign_cpu_ns\": %" PRIu64 ", \"sleeper_switches\": %" PRIu64 ", \"sleeper_cpu_ns\": %" PRIu64 "}",
        foreign_cpu_ns, own_switches, own_cpu_ns);
}

/* ---- statistics of tidemalloc, when it is the allocator ---- */

static int (*stats_get)(tide_stats *, size_t);
static tide_stats stats_before;

static void stats_find(void) {
    *(void **)&stats_get = dlsym(RTLD_DEFAULT, "tide_stats_get");
    if (stats_get != NULL) stats_get(&stats_before, sizeof stats_before);
}

/* The one place to add what later versions of the struct count. Only what the library filled is said. */
static void say_stats(void) {
    tide_stats now;
    memset(&now, 0, sizeof now);
    if (stats_get == NULL || stats_get(&now, sizeof now) != 0) return;
    say(", \"stats\": {\"version\": %" PRIu32 ", \"returned_bytes\": %" PRIu64 ", \"retained_bytes\": %" PRIu64,
        now.version, now.returned_bytes - stats_before.returned_bytes, now.retained_bytes);
#if TIDE_STATS_VERSION >= 2
    if (now.version >= 2)
        say(", \"refault_bytes\": %" PRIu64 ", \"keeper_wakeup_count\": %" PRIu64 ", \"keeper_cpu_ns\": %" PRIu64
            ", \"patience_ns\": %" PRIu64 ", \"hold_hit_count\": %" PRIu64 ", \"hold_miss_count\": %" PRIu64,
            now.refault_bytes - stats_before.refault_bytes, now.keeper_wakeup_count - stats_before.keeper_wakeup_count,
            now.keeper_cpu_ns - stats_before.keeper_cpu_ns, now.patience_ns, now.hold_hit_count, now.hold_miss_count);
#endif
    say("}");
}

static void report_print(const char *scenario) {
    say("{\"scenario\": \"%s\", \"baseline\": ", scenario);
    say_sample(&baseline);
    say(", \"burst\": {\"wall_ns\": %" PRIu64 ", \"cpu_ns\": %" PRIu64 "}, \"live_page_kib\": %" PRIu64
        ", \"samples\": [",
        burst_wall_ns, burst_cpu_ns, live_pages * (BENCH_PAGE_BYTES / 1024));
    for (size_t i = 0; i < sample_count; i++) {
        if (i > 0) say(", ");
        say_sample(&samples[i]);
    }
    say("], \"cycles\": [");
    for (size_t i = 0; i < opt.cycles; i++)
        say("%s{\"wall_ns\": %" PRIu64 ", \"cpu_ns\": %" PRIu64 ", \"whole_cpu_ns\": %" PRIu64 "}", i > 0 ? ", " : "",
            cycles[i].wall_ns, cycles[i].cpu_ns, cycles[i].whole_cpu_ns);
    say("]");
    if (load.operations > 0)
        say(", \"load\": {\"operations\": %" PRIu64 ", \"wall_ns\": %" PRIu64 ", \"cpu_ns\": %" PRIu64 "}",
            load.operations, load.wall_ns, load.cpu_ns);
    if (quiet_seen) say_quiet();
    say_stats();
    say("}\n");
    report_send();
}

/* ---- options ---- */

static size_t choice(const char *value, const char *const *names) {
    for (size_t i = 0; names[i] != NULL; i++)
        if (strcmp(value, names[i]) == 0) return i;
    fprintf(stderr, "battle: what is %s?\n", value);
    exit(2);
}

static size_t number(const char *value) {
    char *end;
    unsigned long found = strtoul(value, &end, 10);
    if (end == value || *end != '\0') {
        fprintf(stderr, "battle: %s is no number\n", value);
        exit(2);
    }
    return found;
}

static void times_parse(const char *value) {
    opt.at_count = 0;
    while (*value != '\0') {
        char *end;
        if (opt.at_count == WATCH_MAX_SAMPLES) die("too many samples");
        opt.at_ms[opt.at_count++] = strtoull(value, &end, 10);
        if (end == value || (*end != ',' && *end != '\0')) die("at= is a list of milliseconds");
        value = end + (*end == ',');
    }
}

static void options_parse(int argc, char **argv) {
    static const char *const kinds[] = {"tiny", "mid", "large", "mixed", "small", NULL};
    static const char *const keeps[] = {"none", "runs", "scattered", NULL};
    static const char *const freers[] = {"own", "next", "main", NULL};
    static const char *const orders[] = {"random", "fifo", NULL};
    static const char *const loads[] = {"light", "heavy", NULL};
    opt = (options){.kind = KIND_MIXED, .mib = 128, .count = 2000, .quiet_ms = SETTLED_MS};
    times_parse("0,10,20,50,100,200,500,1000");
    const struct {
        const char *name;
        size_t *into;
    } numbers[] = {
        {"mib", &opt.mib},        {"kib", &opt.kib},       {"threads", &opt.threads}, {"trickle", &opt.trickle_ms},
        {"gap", &opt.gap_ms},     {"cycles", &opt.cycles}, {"count", &opt.count},     {"delay", &opt.delay_ms},
        {"quiet", &opt.quiet_ms}, {"work", &opt.work}};
    for (int i = 2; i < argc; i++) {
        char *value = strchr(argv[i], '=');
        if (value == NULL) die("options are NAME=VALUE");
        *value++ = '\0';
        size_t known = 0;
        while (known < sizeof numbers / sizeof *numbers && strcmp(argv[i], numbers[known].name) != 0) known++;
        if (known < sizeof numbers / sizeof *numbers)
            *numbers[known].into = number(value);
        else if (strcmp(argv[i], "kind") == 0)
            opt.kind = (kind)choice(value, kinds);
        else if (strcmp(argv[i], "keep") == 0)
            opt.keep = (keep)choice(value, keeps);
        else if (strcmp(argv[i], "free") == 0)
            opt.freer = (freer)choice(value, freers);
        else if (strcmp(argv[i], "order") == 0)
            opt.in_order = choice(value, orders) == 1;
        else if (strcmp(argv[i], "load") == 0)
            opt.heavy = choice(value, loads) == 1;
        else if (strcmp(argv[i], "at") == 0)
            times_parse(value);
        else
            die("unknown option");
    }
    if (opt.threads > CREW_MAX || opt.cycles > MAX_CYCLES) die("too many threads or cycles");
}

/* ---- watching the silence ---- */

/* The last things before the baseline: everything that watching needs has been used once. */
static void baseline_take(void) {
    thread_warm();
    memset(report, 0, sizeof report);
    memset(samples, 0, sizeof samples);
    memset(cycles, 0, sizeof cycles);
    memset(&quiet_before, 0, sizeof quiet_before);
    memset(&quiet_after, 0, sizeof quiet_after);
    stats_find();
    census_take(&quiet_before);
    thread_look(gettid());
    say_sample(&baseline);
    say_stats();
    report_length = 0;
    if (opt.delay_ms > 0) sleep_until(now_ns() + opt.delay_ms * WATCH_MS);
    sample_take(0, now_ns());
    baseline = sample_take(0, now_ns());
}

static uint64_t samples_late_ns(void) {
    uint64_t late_ns = 0;
    for (size_t i = 0; i < sample_count; i++) {
        uint64_t more_ns = samples[i].at_ns - samples[i].planned_ms * WATCH_MS;
        if (samples[i].planned_ms > 0 && more_ns > late_ns) late_ns = more_ns;
    }
    return late_ns;
}

/* Say, once, how late the worst sample was and how long the allocator's threads, and recurring bursts, waited for a
 * core: a run that other work on the machine disturbed can then be done again. */
static void settle_once(void) {
    static bool said;
    if (said) return;
    said = true;
    census_take(&quiet_after);
    say("settled %" PRIu64 " %" PRIu64 " %" PRIu64 "\n", samples_late_ns() / 1000,
        census_waited_ns(&quiet_before, &quiet_after) / 1000, burst_waited_ns / 1000);
    report_send();
}

static void silence_watch(uint64_t last_free_ns) {
    uint64_t trickle_ns = last_free_ns + opt.trickle_ms * WATCH_MS;
    for (size_t i = 0; i < opt.at_count; i++) {
        uint64_t at_ns = last_free_ns + opt.at_ms[i] * WATCH_MS;
        for (; opt.trickle_ms > 0 && trickle_ns < at_ns; trickle_ns += opt.trickle_ms * WATCH_MS) {
            sleep_until(trickle_ns);
            free(opaque(take(SMALL_BYTES)));
        }
        sleep_until(at_ns);
        samples[sample_count++] = sample_take(opt.at_ms[i], last_free_ns);
        if (i == 0) census_take(&quiet_before); /* for `settled` only */
        if (opt.at_ms[i] >= SETTLED_MS) settle_once();
        if (opt.at_ms[i] >= opt.quiet_ms && quiet_from_ms == 0) {
            census_take(&quiet_before);
            quiet_from_ms = opt.at_ms[i];
        }
    }
    settle_once();
    census_take(&quiet_after);
    quiet_seen = quiet_from_ms > 0 && opt.at_ms[opt.at_count - 1] > quiet_from_ms;
}

/* ---- idle ---- */

static void part_plan(member *m) {
    batch_plan(&m->work, opt.kind, ((opt.mib << 20) + (opt.kib << 10)) / batch_count(), opt.keep, opt.in_order,
               m->index);
}

static void part_allocate(member *m) { batch_allocate(&m->work); }
static void part_free(member *m) { batch_free(&m->work); }
static void part_free_next(member *m) { batch_free(&crew[(m->index + 1) % crew_count].work); }

/* A block of each owner in turn, so that their spans empty together. */
static void free_all_in_main(void) {
    bool more = true;
    for (size_t place = 0; more; place++) {
        more = false;
        for (size_t i = 0; i < crew_count; i++) {
            if (place >= crew[i].work.free_count) continue;
            batch_free_one(&crew[i].work, place);
            more = true;
        }
    }
}

/* All allocate before any frees, so that every thread's part is live at once. Returns the time of the last free. */
static uint64_t burst_run(void) {
    crew_do(part_allocate);
    if (opt.freer == FREE_OWN || crew_count == 0) return crew_do(part_free);
    if (opt.freer == FREE_NEXT) return crew_do(part_free_next);
    free_all_in_main();
    return now_ns();
}

static void survivors_count(page_set *pages) {
    for (size_t i = 0; i < batch_count(); i++) {
        survivors_check(&crew[i].work);
        survivors_add_pages(&crew[i].work, pages);
    }
    live_pages = pages->count;
}

static void idle(void) {
    page_set pages = {0};
    size_t pages_at_most = 0;
    crew_make(opt.threads);
    for (size_t i = 0; i < batch_count(); i++) {
        crew[i].index = i;
        part_plan(&crew[i]);
        pages_at_most += survivor_pages_at_most(&crew[i].work);
    }
    page_set_make(&pages, pages_at_most);
    baseline_take();

    uint64_t start_ns = now_ns(), start_cpu_ns = process_cpu_ns();
    uint64_t end_ns = burst_run();
    burst_cpu_ns = process_cpu_ns() - start_cpu_ns;
    burst_wall_ns = end_ns - start_ns;
    silence_watch(end_ns);
    survivors_count(&pages);
}

/* ---- recur ---- */

static void recur(void) {
    part_plan(&crew[0]);
    baseline_take();
    uint64_t end_ns = 0, waited_ns = thread_waited_ns(gettid());
    for (size_t i = 0; i < opt.cycles; i++) {
        uint64_t start_ns = now_ns(), cpu_ns = process_cpu_ns();
        end_ns = burst_run();
        cycles[i].wall_ns = end_ns - start_ns;
        cycles[i].cpu_ns = process_cpu_ns() - cpu_ns;
        if (i + 1 < opt.cycles) sleep_until(end_ns + opt.gap_ms * WATCH_MS);
        cycles[i].whole_cpu_ns = process_cpu_ns() - cpu_ns;
    }
    burst_waited_ns = thread_waited_ns(gettid()) - waited_ns;
    silence_watch(end_ns);
}

/* ---- churn ---- */

static void *churn_life(void *arg) {
    enum { BLOCKS = 400 };
    void *blocks[BLOCKS];
    rng random = rng_seed((uint64_t)(uintptr_t)arg);
    for (size_t i = 0; i < BLOCKS; i++) {
        size_t size = size_draw(&random, KIND_SMALL);
        blocks[i] = take(size);
        pages_write(blocks[i], size, i);
    }
    for (size_t i = 0; i < BLOCKS; i++) free(blocks[i]);
    return NULL;
}

static void *churn_first(void *arg) {
    thread_warm();
    pthread_barrier_wait(arg);
    return NULL;
}

/* At most `alive` threads at a time; their stacks are cached by the C library, and in the baseline. */
static void churn(void) {
    enum { ALIVE = 8 };
    pthread_t threads[ALIVE];
    pthread_barrier_t together;
    pthread_barrier_init(&together, NULL, ALIVE);
    for (size_t i = 0; i < ALIVE; i++) threads[i] = thread_start(churn_first, &together);
    for (size_t i = 0; i < ALIVE; i++) pthread_join(threads[i], NULL);
    baseline_take();

    uint64_t start_ns = now_ns(), start_cpu_ns = process_cpu_ns();
    for (size_t i = 0; i < opt.count; i++) {
        if (i >= ALIVE) pthread_join(threads[i % ALIVE], NULL);
        threads[i % ALIVE] = thread_start(churn_life, (void *)i);
    }
    for (size_t i = 0; i < ALIVE && i < opt.count; i++) pthread_join(threads[i], NULL);
    uint64_t end_ns = now_ns();
    burst_cpu_ns = process_cpu_ns() - start_cpu_ns;
    burst_wall_ns = end_ns - start_ns;
    silence_watch(end_ns);
}

/* ---- steady ---- */

enum { LIVE_BLOCKS = 4096, LIGHT_PERIOD_MS = 10, LIGHT_PAIRS = 400 };

typedef struct live_set {
    void *blocks[LIVE_BLOCKS];
    rng random;
} live_set;
static live_set *lives[CREW_MAX];

/* Replace random blocks of a live set: one free and one malloc each. */
static void live_replace(live_set *live, size_t count) {
    for (size_t i = 0; i < count; i++) {
        size_t place = rng_below(&live->random, LIVE_BLOCKS), size = size_draw(&live->random, KIND_SMALL);
        free(live->blocks[place]);
        live->blocks[place] = take(size);
        block_write(live->blocks[place], size, i);
    }
}

static void part_heavy(member *m) { live_replace(lives[m->index], opt.work); }

static uint64_t load_light(size_t periods) {
    uint64_t next_ns = now_ns();
    for (size_t i = 0; i < periods; i++) {
        live_replace(lives[0], LIGHT_PAIRS);
        sleep_until(next_ns += LIGHT_PERIOD_MS * WATCH_MS);
    }
    return now_ns();
}

/* A fixed amount of work: `work` pairs of each thread when heavy, `work` periods when light. */
static void steady(void) {
    if (opt.heavy) crew_make(opt.threads);
    for (size_t i = 0; i < batch_count(); i++) {
        lives[i] = ground(sizeof *lives[i]);
        lives[i]->random = rng_seed(i);
    }
    baseline_take();
    census_take(&quiet_before);
    quiet_from_ms = 0;
    uint64_t start_ns = now_ns(), start_cpu_ns = process_cpu_ns();
    uint64_t end_ns = opt.heavy ? crew_do(part_heavy) : load_light(opt.work);
    load.cpu_ns = process_cpu_ns() - start_cpu_ns;
    load.wall_ns = end_ns - start_ns;
    load.operations = opt.heavy ? opt.work * batch_count() : opt.work * LIGHT_PAIRS;
    samples[sample_count++] = sample_take(0, end_ns);
    census_take(&quiet_after);
    quiet_seen = true;
    settle_once();
}

int main(int argc, char **argv) {
    static const char *const names[] = {"idle", "recur", "churn", "steady", NULL};
    static void (*const scenarios[])(void) = {idle, recur, churn, steady};
    if (argc < 2) die("usage: battle idle|recur|churn|steady [NAME=VALUE ...]");
    size_t which = choice(argv[1], names);
    options_parse(argc, argv);
    thread_is_ours(gettid());
    scenarios[which]();
    report_print(names[which]);
    return 0;
}

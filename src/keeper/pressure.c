#include "keeper/pressure.h"

#include "base/format.h"

#define STALL_FILE "/proc/pressure/memory"
/* An unprivileged trigger needs a window that is a multiple of 2 s. */
#define STALL_TRIGGER "some 150000 2000000"
#define CGROUP_ROOT "/sys/fs/cgroup"
#define PATH_BYTES 512

static struct {
    int manager, stall; /* files, or negative */
    bool manager_priority;
    char cgroup[PATH_BYTES]; /* its folder, "" if unknown */
} pressure = {.manager = -1, .stall = -1};

/* --- small files --------------------------------------------------------------------------------------------------- */

/* Returns the length read; the text is ended by a zero, also that of a file that cannot be read. */
static size_t file_text(const char *path, char *text, size_t size) {
    text[0] = 0;
    int file = os_file_open(path, OS_READ);
    if (file < 0) return 0;
    long length = os_file_read(file, text, size - 1);
    os_file_close(file);
    if (length < 0) length = 0;
    text[length] = 0;
    return (size_t)length;
}

/* A number in the file `name` of the cgroup; UINT64_MAX for "max", and where there is none. */
static uint64_t cgroup_number(const char *folder, const char *name) {
    char path[PATH_BYTES + 32], text[32];
    size_t length = strlen(folder);
    memcpy(path, folder, length + 1);
    memcpy(path + length, name, strlen(name) + 1);
    size_t bytes = file_text(path, text, sizeof text);
    uint64_t number = 0;
    size_t i = strncmp(text, "anon ", 5) == 0 ? 5 : 0; /* the first line of memory.stat */
    size_t first = i;
    for (; i < bytes && text[i] >= '0' && text[i] <= '9'; i++) number = number * 10 + (uint64_t)(text[i] - '0');
    return i == first ? UINT64_MAX : number;
}

/* --- sources ------------------------------------------------------------------------------------------------------- */

static int base64_value(char c) {
    if (c >= 'A' && c <= 'Z') return c - 'A';
    if (c >= 'a' && c <= 'z') return c - 'a' + 26;
    if (c >= '0' && c <= '9') return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

static size_t base64_decode(const char *text, char *to, size_t size) {
    size_t length = 0;
    uint32_t bits = 0;
    unsigned count = 0;
    for (int value; (value = base64_value(*text)) >= 0 && length < size; text++) {
        bits = bits << 6 | (uint32_t)value;
        count += 6;
        if (count < 8) continue;
        count -= 8;
        to[length++] = (char)(bits >> count);
    }
    return length;
}

/* The service manager names a file, and perhaps what to write to it. A pipe tells by data, a trigger by a priority event. */
static void manager_open(void) {
    const char *path = os_environment("MEMORY_PRESSURE_WATCH");
    if (path == NULL || strcmp(path, "/dev/null") == 0) return;
    pressure.manager = os_file_open(path, OS_READ_WRITE);
    if (pressure.manager < 0) pressure.manager = os_file_open(path, OS_READ);
    const char *text = os_environment("MEMORY_PRESSURE_WRITE");
    if (pressure.manager < 0 || text == NULL) return;
    char bytes[PATH_BYTES];
    size_t length = base64_decode(text, bytes, sizeof bytes);
    pressure.manager_priority = true;
    if (os_file_write(pressure.manager, bytes, length) >= 0) return;
    os_file_close(pressure.manager);
    pressure.manager = -1;
}

static void stall_open(void) {
    pressure.stall = os_file_open(STALL_FILE, OS_READ_WRITE);
    if (pressure.stall < 0 || os_file_write(pressure.stall, STALL_TRIGGER, sizeof STALL_TRIGGER) >= 0) return;
    os_file_close(pressure.stall);
    pressure.stall = -1;
}

/* The line "0::/path" of version 2. */
static void cgroup_open(void) {
    char text[PATH_BYTES + 64];
    pressure.cgroup[0] = 0;
    file_text("/proc/self/cgroup", text, sizeof text);
    const char *line = strstr(text, "0::/");
    if (line == NULL || (line != text && line[-1] != '\n')) return;
    const char *path = line + strlen("0::");
    size_t length = strcspn(path, "\n"), root = strlen(CGROUP_ROOT);
    if (path[length] != '\n' || root + length + 1 > PATH_BYTES) return;
    memcpy(pressure.cgroup, CGROUP_ROOT, root + 1);
    memcpy(pressure.cgroup + root, path, length);
    pressure.cgroup[root + length] = 0;
    if (cgroup_number(pressure.cgroup, "/memory.stat") == UINT64_MAX) pressure.cgroup[0] = 0;
}

void pressure_open(void) {
    manager_open();
    stall_open();
    cgroup_open();
}

void pressure_close(void) {
    if (pressure.manager >= 0) os_file_close(pressure.manager);
    if (pressure.stall >= 0) os_file_close(pressure.stall);
    pressure.manager = pressure.stall = -1;
    pressure.cgroup[0] = 0;
}

/* --- looking ------------------------------------------------------------------------------------------------------- */

/* Takes in what a pipe or socket holds. A broken file is not looked at again. */
static bool file_reports(int *file, bool priority) {
    char data[64];
    if (*file < 0) return false;
    enum os_event event = os_file_poll(*file, priority);
    if (event == OS_EVENT && (priority || os_file_read(*file, data, sizeof data) > 0)) return true;
    if (event == OS_NO_EVENT) return false;
    os_file_close(*file);
    *file = -1;
    return false;
}

static bool cgroup_is_full(void) {
    if (pressure.cgroup[0] == 0) return false;
    uint64_t high = cgroup_number(pressure.cgroup, "/memory.high");
    uint64_t max = cgroup_number(pressure.cgroup, "/memory.max");
    uint64_t limit = high < max ? high : max;
    if (limit == UINT64_MAX) return false;
    /* Not memory.current: cached files fill every limit, and the kernel drops them by itself. */
    uint64_t anonymous = cgroup_number(pressure.cgroup, "/memory.stat");
    return anonymous != UINT64_MAX && anonymous >= limit - limit / 8;
}

enum pressure pressure_look(void) {
    if (file_reports(&pressure.manager, pressure.manager_priority)) return PRESSURE_MANAGER;
    if (file_reports(&pressure.stall, true)) return PRESSURE_STALL;
    return cgroup_is_full() ? PRESSURE_CGROUP : PRESSURE_NONE;
}

const char *pressure_name(enum pressure source) {
    static const char *const names[] = {"none", "service manager", "stalls", "cgroup limit"};
    return names[source];
}

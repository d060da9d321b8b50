#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "os/call.h"
#include "os/kernel.h"
#include "os/os.h"

#include <errno.h>
#include <sys/auxv.h>
#include <sys/resource.h>

#define PURGE_TRIES 8u

size_t os_page_bytes;
static bool emulated;

/* The kernel gives every program its vDSO; Valgrind and qemu-user (before 8.2, which walks a reserve page by page) hide it. What is not there
 * is an error to getauxval. */
void os_init(void) {
    int error = errno;
    size_t page = getauxval(AT_PAGESZ);
    os_page_bytes = page != 0 ? page : 4 * KIB;
    emulated = getauxval(AT_SYSINFO_EHDR) == 0;
    errno = error;
}

bool os_is_emulated(void) { return emulated; }

static void *os_mmap(void *at, size_t bytes, int protection, int flags) {
    long result = os_call6(SYS_mmap, (long)at, (long)bytes, protection, flags | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return result < 0 && result > -4096 ? NULL : (void *)result;
}

void *os_reserve(size_t bytes, size_t alignment) {
    size_t slack = alignment - os_page_bytes;
    if (bytes > SIZE_MAX - slack) return NULL;
    char *start = os_mmap(NULL, bytes + slack, PROT_NONE, 0);
    if (start == NULL) return NULL;
    char *aligned = (char *)size_round_up((uintptr_t)start, alignment);
    if (aligned > start) os_release(start, (size_t)(aligned - start));
    if (aligned + bytes < start + bytes + slack) os_release(aligned + bytes, (size_t)(start + slack - aligned));
    os_call(SYS_madvise, aligned, bytes, MADV_DONTDUMP, 0);
    return aligned;
}

void *os_map(size_t bytes) { return os_mmap(NULL, bytes, PROT_READ | PROT_WRITE, 0); }

int os_commit(void *at, size_t bytes) {
    long result = os_call(SYS_mprotect, at, bytes, PROT_READ | PROT_WRITE, 0);
    if (result == 0) os_call(SYS_madvise, at, bytes, MADV_DODUMP, 0);
    return (int)result;
}

/* Kernels before 5.14 do not know it. */
void os_populate(void *at, size_t bytes) {
    static _Atomic bool unknown;
    if (atomic_load_explicit(&unknown, memory_order_relaxed)) return;
    if (os_call(SYS_madvise, at, bytes, MADV_POPULATE_WRITE, 0) == -EINVAL)
        atomic_store_explicit(&unknown, true, memory_order_relaxed);
}

/* A kernel that is short of something for a moment says EAGAIN, and a filter may say so for ever. */
int os_purge(void *at, size_t bytes) {
    long result = -EAGAIN;
    for (unsigned tries = 0; result == -EAGAIN && tries < PURGE_TRIES; tries++)
        result = os_call(SYS_madvise, at, bytes, MADV_DONTNEED, 0);
    return (int)result;
}

int os_guard(void *at, size_t bytes) { return (int)os_call(SYS_madvise, at, bytes, MADV_GUARD_INSTALL, 0); }

int os_unguard(void *at, size_t bytes) { return (int)os_call(SYS_madvise, at, bytes, MADV_GUARD_REMOVE, 0); }

int os_protect(void *at, size_t bytes) { return (int)os_call(SYS_mprotect, at, bytes, PROT_NONE, 0); }

void os_label(void *at, size_t bytes, const char *name) {
    os_call6(SYS_prctl, PR_SET_VMA, PR_SET_VMA_ANON_NAME, (long)at, (long)bytes, (long)name, 0);
}

int os_renew(void *at, size_t bytes, const char *name) {
    if (os_mmap(at, bytes, PROT_READ | PROT_WRITE, MAP_FIXED) != at) return -ENOMEM;
    os_forbid_huge(at, bytes); /* as its neighbours are: mappings merge only when they are alike */
    os_label(at, bytes, name);
    return 0;
}

int os_move(void *from, void *to, size_t bytes, const char *name) {
    /* qemu-user moves the pages, but takes the old place for unmapped, and gives it to the next who asks for memory. */
    if (emulated) return -ENOSYS;
    long flags = MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP;
    long result = os_call6(SYS_mremap, (long)from, (long)bytes, (long)bytes, flags, (long)to, 0);
    if (result == (long)to) return 0;
    os_renew(to, bytes, name); /* the kernel may have unmapped the target before it refused */
    return (int)result;
}

size_t os_resident_bytes(const void *at, size_t bytes) {
    unsigned char present[512] = {0};
    size_t count = 0;
    for (size_t done = 0; done < bytes;) {
        size_t part = size_min(bytes - done, sizeof present * os_page_bytes);
        if (os_call(SYS_mincore, (const char *)at + done, part, present, 0) != 0) return bytes;
        for (size_t i = 0; i < part / os_page_bytes; i++) count += present[i] & 1;
        done += part;
    }
    return count * os_page_bytes;
}

void os_release(void *at, size_t bytes) { os_call(SYS_munmap, at, bytes, 0, 0); }

void os_forbid_huge(void *at, size_t bytes) { os_call(SYS_madvise, at, bytes, MADV_NOHUGEPAGE, 0); }

size_t os_address_space_limit(void) {
    struct rlimit limit = {0};
    if (os_limit_change(0, RLIMIT_AS, NULL, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return SIZE_MAX;
    return limit.rlim_cur;
}

int os_limit_change(int pid, int resource, const struct rlimit *new_limit, struct rlimit *old_limit) {
    return (int)os_call(SYS_prlimit64, pid, resource, new_limit, old_limit);
}

int os_lock_memory(int flags) { return (int)os_call(SYS_mlockall, flags, 0, 0, 0); }

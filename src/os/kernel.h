/* kernel.h - numbers of the kernel's interface that not every libc's headers have. The kernel's own headers are not installed for every libc, and may
 * be older than the kernel. All of these are the same on x86-64 and AArch64. */
#ifndef TIDE_OS_KERNEL_H
#define TIDE_OS_KERNEL_H

#include <fcntl.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>

#ifndef MADV_POPULATE_WRITE /* since 5.14 */
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MREMAP_DONTUNMAP /* since 5.7 */
#define MREMAP_DONTUNMAP 4
#endif
#ifndef MADV_GUARD_INSTALL /* since 6.13 */
#define MADV_GUARD_INSTALL 102
#define MADV_GUARD_REMOVE 103
#endif
#ifndef MFD_NOEXEC_SEAL /* since 6.3 */
#define MFD_NOEXEC_SEAL 8u
#endif
#ifndef PR_SET_VMA /* since 5.17, where it is configured */
#define PR_SET_VMA 0x53564d41
#define PR_SET_VMA_ANON_NAME 0
#endif
#ifndef CLOSE_RANGE_UNSHARE /* since 5.9 */
#define CLOSE_RANGE_UNSHARE 2u
#endif
#ifndef CLONE_NEWTIME /* since 5.6 */
#define CLONE_NEWTIME 0x80
#endif

enum {
    KERNEL_FUTEX_WAIT = 0,
    KERNEL_FUTEX_WAKE = 1,
    KERNEL_FUTEX_PRIVATE = 128, /* flag: no other process looks at this word */
};

enum {
    KERNEL_BARRIER_EXPEDITED = 8,
    KERNEL_BARRIER_REGISTER = 16,
};

#endif

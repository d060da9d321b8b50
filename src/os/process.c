#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "os/call.h"
#include "os/os.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/auxv.h>
#include <unistd.h>

char **os_environment_all(void) { return getauxval(AT_SECURE) != 0 ? NULL : environ; }

const char *os_environment(const char *name) {
    char **all = os_environment_all();
    size_t length = strlen(name);
    for (; all != NULL && *all != NULL; all++)
        if (strncmp(*all, name, length) == 0 && (*all)[length] == '=') return *all + length + 1;
    return NULL;
}

bool os_is_emulated(void) {
    const char *preload = os_environment("LD_PRELOAD");
    return preload != NULL && strstr(preload, "vgpreload") != NULL;
}

bool os_on_signal_stack(void) {
    stack_t stack = {0};
    return os_call(SYS_sigaltstack, NULL, &stack, 0, 0) == 0 && (stack.ss_flags & SS_ONSTACK) != 0;
}

void os_print_error(const char *text, size_t length) {
    while (length > 0) {
        long written = os_call(SYS_write, STDERR_FILENO, text, length, 0);
        if (written <= 0) return;
        text += written;
        length -= (size_t)written;
    }
}

void os_abort(void) { abort(); }

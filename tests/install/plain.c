/* Knows nothing of tidemalloc. Finds it when it was preloaded. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(void) {
    char *volatile block = malloc(100);
    strcpy(block, "tide");
    free(block);
    Dl_info info;
    void *address = dlsym(RTLD_DEFAULT, "malloc");
    if (address == NULL || dladdr(address, &info) == 0 || strstr(info.dli_fname, "libtidemalloc.so") == NULL) {
        fprintf(stderr, "malloc does not come from libtidemalloc.so\n");
        return 1;
    }
    return 0;
}

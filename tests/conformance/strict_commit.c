/* strict_commit.c - a process that runs while the kernel refuses to overcommit (vm.overcommit_memory=2). Run by
 * strict_commit.sh. Reserving address space must still work, and memory that was given back must not stay charged. */
#define _GNU_SOURCE 1
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "subject.h"

enum { MIB = 1024 * 1024, COUNT = 2000 };

int main(void) {
    subject_require();
    static unsigned char *blocks[COUNT];
    for (int round = 0; round < 20; round++) {
        for (size_t i = 0; i < COUNT; i++) {
            size_t size = 1 + i * (size_t)(round + 1) % 50000;
            blocks[i] = malloc(size);
            CHECKF(blocks[i] != NULL, "round %d: %zu bytes refused", round, size);
            memset(blocks[i], 1, size);
        }
        for (size_t i = 0; i < COUNT; i++) free(blocks[i]);
        void *volatile large = malloc(40 * (size_t)MIB);
        CHECKF(large != NULL, "round %d: 40 MiB refused", round);
        free(large);
        if (round % 4 == 0) subject_release_all();
    }
    void *volatile huge = malloc((size_t)1 << 50);
    CHECK(huge == NULL);
    puts("works without overcommit");
    return 0;
}

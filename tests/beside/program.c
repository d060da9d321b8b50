/* program.c - what is compiled with each sanitizer: some work in two threads, and one mistake, if asked for. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *work(void *nothing) {
    for (size_t size = 1; size < 3000; size += 7) {
        char *volatile p = malloc(size);
        memset(p, 1, size);
        p = realloc(p, size * 3);
        free(p);
        p = calloc(2, size);
        free(p);
        if (posix_memalign((void **)&p, 64, size) == 0) free(p);
    }
    return nothing;
}

int main(int argc, char **argv) {
    pthread_t threads[2];
    for (int i = 0; i < 2; i++)
        if (pthread_create(&threads[i], NULL, work, NULL) != 0) return 3;
    for (int i = 0; i < 2; i++) pthread_join(threads[i], NULL);
    puts("done");
    fflush(stdout);
    if (argc > 1 && strcmp(argv[1], "overflow") == 0) {
        char *volatile p = malloc(24);
        p[24] = 1;
        free(p);
    }
    return 0;
}

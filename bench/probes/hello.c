/* hello.c - the smallest program that uses malloc. With an argument it waits for its standard input to end before it
 * exits, so that its memory can be looked at. Used to measure the start-up and the RSS that an allocator adds.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv) {
    (void)argv;
    char *text = malloc(32);
    if (text == NULL) return 1;
    strcpy(text, "hello, world");
    puts(text);
    free(text);
    if (argc > 1) {
        fflush(stdout);
        while (getchar() != EOF) continue;
    }
    return 0;
}

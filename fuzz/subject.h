/* subject.h - force-included in front of the library's text in a fuzz target. See fuzz.h for why. */
#ifndef TIDE_FUZZ_SUBJECT_H
#define TIDE_FUZZ_SUBJECT_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <pthread.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <time.h>

/* A key and handlers cannot be given back, so there is one of each for all inputs. */
int fuzz_key_create(pthread_key_t *key, void (*destructor)(void *));
int fuzz_atfork(void (*prepare)(void), void (*parent)(void), void (*child)(void));
/* What the library maps anywhere is noted, and unmapped after the input. */
void *fuzz_mmap(void *at, size_t bytes, int protection, int flags, int file, off_t offset);
void fuzz_note_mapping(void *at, size_t bytes);
void fuzz_forget_mapping(void *at, size_t bytes);
int fuzz_clock_gettime(clockid_t clock, struct timespec *now);
/* Who starts a thread may lose its processor just then. */
int fuzz_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *), void *argument);

#define pthread_key_create fuzz_key_create
#define pthread_atfork fuzz_atfork
#define pthread_create fuzz_create
#define mmap fuzz_mmap
#define clock_gettime fuzz_clock_gettime

/* The library's static variables, where fuzz.c finds them. gcc has no such pragma; there each input has a process of its own. */
#ifdef __clang__
#pragma clang section bss = "tide_bss" data = "tide_data"
#endif

#endif

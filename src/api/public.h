/* public.h - how a function becomes part of the library's face. */
#ifndef TIDE_API_PUBLIC_H
#define TIDE_API_PUBLIC_H

#include "base/base.h"

#define PUBLIC __attribute__((visibility("default")))

/* STANDARD(malloc) is malloc, or tide_malloc in a library that leaves the program's own malloc alone (for sanitizers). */
#ifdef TIDE_PREFIXED
#define STANDARD(name) tide_##name
#else
#define STANDARD(name) name
#endif

#endif

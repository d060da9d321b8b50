/* format.h - lines of text built without malloc, locks or stdio, for messages from any place. */
#ifndef TIDE_BASE_FORMAT_H
#define TIDE_BASE_FORMAT_H

#include "base/base.h"

/* A line under construction. What does not fit is cut; the text always ends in a zero. */
struct line {
    size_t length;
    char text[256];
};

tide_hidden void line_add(struct line *line, const char *text);
tide_hidden void line_add_number(struct line *line, uint64_t number);
tide_hidden void line_add_pointer(struct line *line, const void *pointer); /* as printf's %p writes it */

/* "64K", "1g", "4096" -> bytes; K, M, G, T are powers of 1024. False: not a number, or more than SIZE_MAX. */
tide_hidden bool size_parse(const char *text, size_t *bytes);

#endif

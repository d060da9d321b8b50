/* figures.h - struct tide_stats, from a census and from what the keeper has counted. */
#ifndef TIDE_KEEPER_FIGURES_H
#define TIDE_KEEPER_FIGURES_H

#include "heap/census.h"
#include "tidemalloc.h"

tide_hidden tide_cold void figures_fill(struct tide_stats *stats, const struct census *census);

#endif

/* note.h - TIDE_LOG=keeper: each decision of the keeper and its reason as one line on stderr. At most 10 lines a second; what is left out is
 * counted. Without the option nothing happens. */
#ifndef TIDE_KEEPER_NOTE_H
#define TIDE_KEEPER_NOTE_H

#include "keeper/policy.h"
#include "keeper/pressure.h"

tide_hidden tide_cold void note_start(void);
/* Quiet: so much went, so much is kept for so long (0: until something happens). */
tide_hidden tide_cold void note_plan(size_t given_bytes, size_t keep_bytes, uint64_t wait_ns);
tide_hidden tide_cold void note_burst(uint64_t quiet_ns);
tide_hidden tide_cold void note_trim(size_t given_bytes, size_t spare_bytes);
tide_hidden tide_cold void note_pressure(enum pressure pressure, size_t given_bytes);
tide_hidden tide_cold void note_failure(const char *what, int error);

#endif

/* pressure.h - how the system says that memory is scarce. For the keeper's thread, which has open files of its own.
 *
 *   source                                   tells when                                       who may
 *   MEMORY_PRESSURE_WATCH (environment)      the service manager says so (systemd's protocol)  its children
 *   /proc/pressure/memory                    threads have waited for memory, 150 ms of 2 s     everybody (windows of 2 s)
 *   memory.stat of the own cgroup            anonymous memory fills 7/8 of memory.high or .max  who can read it
 *
 * What is missing or forbidden is left out without a word.
 */
#ifndef TIDE_KEEPER_PRESSURE_H
#define TIDE_KEEPER_PRESSURE_H

#include "os/os.h"

enum pressure { PRESSURE_NONE, PRESSURE_MANAGER, PRESSURE_STALL, PRESSURE_CGROUP };

/* Open what there is to watch. */
tide_hidden tide_cold void pressure_open(void);
tide_hidden tide_cold void pressure_close(void);
/* Whether a source reports pressure at this moment. Costs a few system calls. */
tide_hidden tide_cold enum pressure pressure_look(void);
tide_hidden tide_cold const char *pressure_name(enum pressure pressure);

#endif

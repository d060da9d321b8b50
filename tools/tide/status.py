"""How tide's commands exit. `tide run` has its own statuses (125 to 127), since it must pass on those of the program.

    0  done
    1  failed: a file cannot be written, the disk is full, ...
    2  the command line is wrong
    3  there is no such process, or it has ended
    4  not permitted: the process belongs to another user
    5  the process does not run on tidemalloc
    6  it does, but has no keeper to ask, or the keeper does not answer
    7  a file or a window that this tide cannot read: truncated, foreign, or of another version
"""

OK = 0
FAILED = 1
USAGE = 2
NO_PROCESS = 3
NOT_PERMITTED = 4
NOT_TIDEMALLOC = 5
NO_KEEPER = 6
BAD_FILE = 7

"""tide: run programs on tidemalloc and watch their memory.

One module per subcommand (`run`, `sample`), each with `register`, which declares its arguments, and `main`, which
does the work and returns the exit status. `cli` puts them together; `elf` and `messages` serve them all. Everything
here uses the standard library only, because `tide run` must work on a machine that has nothing but Python.
"""

__version__ = "0.1.0"  # the same as TIDEMALLOC_VERSION in include/tidemalloc.h; a test compares them

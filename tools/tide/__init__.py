"""tide: run programs on tidemalloc, see what their memory does, and have it given back.

One module per subcommand, each with `register`, which declares its arguments, and `main`, which does the work and
returns the exit status. `cli` puts them together and imports the one that is asked for.

    cli -+- run, record, investigate, bench      start programs: parent, children, allocators, options, elf
         |- stat, flush, top, smaps, exporter    look into processes: process, window, mappings, pages, sampler
         `- report                               shows records: series, report_figures, report_page, report_text

The standard library is enough to run, record and ask, because that must work on a machine that has nothing but Python.
rich, urwid, prometheus_client and Chart.js are used by the command that needs them, which says so when they are missing.
"""

__version__ = "0.1.0"  # the same as TIDEMALLOC_VERSION in include/tidemalloc.h; a test compares them

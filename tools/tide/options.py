"""The allocator's options, as flags of `tide run`.

The table mirrors that of docs/OPTIONS.md, and with it src/os/options.c; a test compares them. The library checks the
values once more, so that an older or newer one of them is no problem: `-o NAME=VALUE` passes anything.
"""

import argparse
import re

# name: (values, or the name that the help shows for one; what it is for)
OPTIONS = {
    "mode": (
        ("static", "flush", "shrink", "adaptive", "hybrid"),
        "how memory goes back by itself (default: hybrid; static: not at all)",
    ),
    "keeper": (("on", "off"), "off: no thread of the library's own; the program calls tide_tick()"),
    "visible": (("on", "off"), "off: tide stat, top and flush see nothing of the process"),
    "log": (("off", "keeper"), "keeper: each decision of the keeper on the standard error"),
    "reserve": ("SIZE", "address space of the first region, 16M to 16T (default: 1T); it takes no memory"),
    "secure": (("0", "1"), "guard pages, and large blocks out of reach once they are freed"),
    "check": (("0", "1"), "the library checks its own structures whenever caches are swept"),
    "print_stats": (("0", "1"), "statistics on the standard error when the program ends"),
}


class SetOption(argparse.Action):
    """Puts (TIDE_NAME, value) at the end of the list of `-o`, so that the last mention wins, in whatever form."""

    def __init__(self, option_strings, dest, variable, const=None, **rest):
        super().__init__(option_strings, dest, const=const, default=[], **rest)
        self.variable = variable

    def __call__(self, parser, namespace, value, option_string=None):
        value = self.const if self.nargs == 0 else value
        setattr(namespace, self.dest, [*getattr(namespace, self.dest), (self.variable, value)])


def assignment(text):
    """Turn `name=value` into (TIDE_NAME, value)."""
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"'{text}' is not of the form NAME=VALUE")
    if not re.fullmatch(r"[a-z_]+", name):
        raise argparse.ArgumentTypeError(f"bad option name '{name}': only lower-case letters and '_' are allowed")
    return "TIDE_" + name.upper(), value


def add_to(parser):
    """Give the parser a flag for each option, and -o; they gather (variable, value) in `option`."""
    group = parser.add_argument_group("options of the allocator (docs/OPTIONS.md)")
    for name, (values, purpose) in OPTIONS.items():
        flag = "--" + name.replace("_", "-")
        common = {"action": SetOption, "dest": "option", "variable": "TIDE_" + name.upper(), "help": purpose}
        if values == ("0", "1"):
            group.add_argument(flag, nargs=0, const="1", **common)
        elif isinstance(values, tuple):
            group.add_argument(flag, choices=values, **common)
        else:
            group.add_argument(flag, metavar=values, **common)
    group.add_argument(
        "-o",
        "--option",
        metavar="NAME=VALUE",
        type=assignment,
        action="append",
        default=[],
        help="any of them: puts TIDE_NAME=VALUE into the environment; may be repeated",
    )

"""Entry point of the `tide` tool: of the zipapp build/tide, and of `python3 -m tide` inside tools/."""

import sys

from .cli import main

sys.exit(main())

"""`python -m stylerdalle` is the command line, like the installed command `stylerdalle`."""

import sys

from .cli.main import main

sys.exit(main())

"""`python -m stylerdalle` is the command line, like the installed command `stylerdalle`."""

from .cli.main import entry

entry()

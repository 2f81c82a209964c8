"""The command line: `stylerdalle COMMAND --help`."""

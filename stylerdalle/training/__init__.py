"""How the bundled models were made: one recipe per file, most of them run by `python -m stylerdalle.training.NAME`."""

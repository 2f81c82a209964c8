"""The command line: `stylerdalle COMMAND --help`.

One file per group of commands. Each command has two functions: NAME_options sets up its parser, run_NAME does the work and
returns the exit code. Modules that load torch are imported in the run functions, so that --help is fast. Options that are the
fields of a config class have it from a module without torch (tune/config.py, learn/options.py, training/options.py).
"""

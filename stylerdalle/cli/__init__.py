"""The command line: `stylerdalle COMMAND --help`.

One file per group of commands. Each command has two functions: NAME_options sets up its parser, run_NAME does the work and
returns the exit code. Modules that load torch are imported in the run functions, so that --help is fast. Only the
commands that train need torch for it: their options are the fields of config classes that stand beside the training code.
"""

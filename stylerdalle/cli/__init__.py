"""The command line: `stylerdalle COMMAND --help`.

One file per group of commands. Each command has two functions: NAME_options sets up its parser, run_NAME does the work and
returns the exit code. Modules that load torch are imported in the run functions, so that --help is fast. The trainings (train.py,
pretrain.py, tune.py) cannot do that: their options are read from config classes beside their code.
"""

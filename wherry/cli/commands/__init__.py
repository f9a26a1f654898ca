"""One module a command, imported only when it is called for: `add_arguments(parser)` and `run(arguments)`."""

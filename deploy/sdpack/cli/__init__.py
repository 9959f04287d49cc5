"""The command line; a file a subcommand. It parses, calls one function and prints."""

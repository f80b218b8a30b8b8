"""The command line: a thin shell over tasks."""

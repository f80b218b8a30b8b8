"""One user verb per file: a frozen Spec and a function that runs it."""

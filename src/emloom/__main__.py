"""`python -m emloom` is the `emloom` command."""

from emloom.cli.main import main

main()

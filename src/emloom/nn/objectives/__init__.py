"""One file per scientific problem: targets, heads, loss and decoding of it, told in one place."""

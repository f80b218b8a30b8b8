"""Where bytes live: every on-disk format behind one `Volume` protocol. Formats are converted here and nowhere else."""

"""Where bytes live: every on-disk format behind one `Volume`; formats are converted here and nowhere else."""

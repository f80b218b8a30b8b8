"""Truth against result: metrics from exact integer tables."""

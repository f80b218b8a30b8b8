"""Networks, their training and their predictions: the only place where torch is imported."""

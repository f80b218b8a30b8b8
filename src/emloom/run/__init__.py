"""How blocks are executed, remembered and accounted for."""

"""What builds pages of the documentation; no part of the package."""

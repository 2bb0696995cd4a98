"""Command line and `ray job submit` doors of the farm."""

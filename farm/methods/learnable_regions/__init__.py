"""Learnable Regions (arXiv:2311.16432): where to edit is learned, what is drawn there inpainted."""

METHOD_VERSION = 3
"""Counted up whenever the same configuration may give another result; part of every digest."""

"""EditInfinity (arXiv:2510.20217): inversion and blending in the bits of an Infinity model."""

METHOD_VERSION = 1
"""Counted up whenever the same configuration may give another result; part of every digest."""

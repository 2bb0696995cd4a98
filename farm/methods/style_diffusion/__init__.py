"""StyleDiffusion (arXiv:2303.15649): value-input inversion and prompt-to-prompt editing."""

METHOD_VERSION = 3
"""Counted up whenever the same configuration may give another result; part of every digest."""

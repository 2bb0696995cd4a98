"""Infinity: a bitwise, scale-by-scale autoregressive image model, its tokenizer and its text side.

Written from our own specification ("spec" in docstrings, with its sections).
"""

"""Frozen networks, one file per family; each owns its normalisation and its dtype."""

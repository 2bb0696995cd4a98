"""Machines and resources: one table and what is rendered from it."""

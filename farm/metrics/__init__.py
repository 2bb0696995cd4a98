"""Measures of an edit."""

"""Shells around `farm`: the only home of Ray objects."""

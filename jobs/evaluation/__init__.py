"""Held-out scenes through the farm and against their truth: cases, arms, measures, scores."""

"""Model sets: which networks there are, and the small ones that ship with the farm."""

"""Object storage: the only truth of the farm."""

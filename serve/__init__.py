"""HTTP door of the farm."""

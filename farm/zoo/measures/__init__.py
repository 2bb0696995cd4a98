"""What the zoo's networks reach on held-out scenes, one file a measurement."""

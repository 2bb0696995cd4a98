"""The scenes world: procedural captioned pictures with exact ground truth."""

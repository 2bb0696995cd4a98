"""How the networks of the scenes zoo are trained: plain resumable loops, one file a part."""

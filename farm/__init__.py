"""The algorithms of the edit farm: no Ray, no HTTP, no cloud."""

"""StyleDiffusion (arXiv:2303.15649): value-input inversion and prompt-to-prompt editing."""

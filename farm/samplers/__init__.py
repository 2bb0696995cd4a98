"""Samplers: pure functions of a denoiser or a predictor."""

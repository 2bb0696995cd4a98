"""Parts of `tests.parity.test_learnable_regions`, which collects them."""

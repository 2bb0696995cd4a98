"""Parts of `tests.parity.test_infinity`, which collects them."""

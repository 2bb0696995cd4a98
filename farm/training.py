"""What per-image training shares: random numbers that depend on nothing but their key."""

import hashlib

import torch


def keyed_generator(*key: str | int) -> torch.Generator:
    """A generator seeded by `key` alone, e.g. `(seed, stage, step)`.

    A retry, another worker or another order of work sees the same numbers, and no global state is
    read or changed.
    """
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    # 63 bits: Generator.manual_seed takes a signed integer
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)

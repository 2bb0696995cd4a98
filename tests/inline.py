"""An executor in this process for any family of networks: each call, or a whole batch, at once."""

import numpy as np
import torch

from farm.calls import Answer
from farm.errors import BackboneLostError


class Inline:
    """Answers each call in a batch of its own.

    Args:
        networks: what the operations compute with.
        operations: by name.
    """

    def __init__(self, networks, operations):
        self.networks, self.operations = networks, operations

    def run_all(self, calls):
        return [self.run_batch([call])[0] for call in calls]

    def run_batch(self, calls):
        """Answers of calls of one key, from one batch."""
        assert len({call.key for call in calls}) == 1
        tensors = {n: stacked(n, calls, self.networks.device) for n in calls[0].arrays}
        batch = self.operations[calls[0].op](self.networks, tensors, calls[0].static)
        arrays = {n: t.cpu().numpy() for n, t in batch.tensors.items()}
        return [
            Answer({n: np.asarray(a[row]) for n, a in arrays.items()}, batch.work_of(row), 0.0)
            for row in range(len(calls))
        ]


def stacked(name, calls, device):
    return torch.from_numpy(np.stack([call.arrays[name] for call in calls])).to(device)


class LostAfter:
    """A backbone that is gone after some calls."""

    def __init__(self, host, calls):
        self.host, self.left = host, calls

    def run_all(self, calls):
        self.left -= len(calls)
        if self.left < 0:
            raise BackboneLostError("the backbone is gone: try again")
        return self.host.run_all(calls)

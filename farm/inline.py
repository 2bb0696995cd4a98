"""The networks of a model set in this process: the inline executor, and what a backbone holds.

Importing this imports the networks' libraries (4 s).
"""

import torch
from transformers.utils.logging import disable_progress_bar

from farm.backbones.host import OperationHost
from farm.backbones.networks import load_networks
from farm.zoo.model_sets import ModelSet


def load_host(model_set: ModelSet, device: str | None = None) -> OperationHost:
    """Load a model set's networks here, and answer calls with them.

    Args:
        model_set: which.
        device: where they compute; the accelerator if there is one, by default.

    Raises:
        ModelSetError: they differ from their digests, which results name, or cannot be loaded.
    """
    model_set.verify()
    disable_progress_bar()  # whoever edits shows progress of their own
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    return OperationHost(load_networks(model_set.folder, model_set.spec, device))

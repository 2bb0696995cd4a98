"""The algorithms of the edit farm: no Ray, no HTTP server, no cloud; and `edit` for notebooks.

from farm import edit
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from farm.notebook import Edited, HttpFarm, InProcess, edit

__all__ = ["Edited", "HttpFarm", "InProcess", "edit"]


def __getattr__(name: str) -> Any:
    """Parts of `farm.notebook`, imported when they are asked for: the rest of farm pays nothing."""
    if name not in __all__:
        raise AttributeError(f"module 'farm' has no attribute {name!r}")
    return getattr(importlib.import_module("farm.notebook"), name)

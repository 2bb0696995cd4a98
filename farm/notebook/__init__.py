"""Edits from Python, for notebooks and scripts; no Ray."""

from farm.notebook.edited import Edited
from farm.notebook.editing import edit
from farm.notebook.http_farm import HttpFarm
from farm.notebook.places import Finished, InProcess, Place, Task

__all__ = ["Edited", "Finished", "HttpFarm", "InProcess", "Place", "Task", "edit"]

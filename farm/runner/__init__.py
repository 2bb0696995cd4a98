"""The life of one edit, with no Ray in it: checked, its stages made or found, edited, committed.

`prepare` refuses everything that can be refused without a network. `run_edit` is what a trainer
does, wherever it runs: inline in this process, or in a Ray task with a remote executor.
"""

from farm.runner.loading import load_output, load_result, load_stage
from farm.runner.method import PreparedEdit
from farm.runner.preparing import prepare, read_image, read_mask
from farm.runner.running import Report, ShouldStop, run_edit
from farm.runner.versions import versions

__all__ = [
    "PreparedEdit",
    "Report",
    "ShouldStop",
    "load_output",
    "load_result",
    "load_stage",
    "prepare",
    "read_image",
    "read_mask",
    "run_edit",
    "versions",
]

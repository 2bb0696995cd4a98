"""How this process was called, in words that somebody can type again."""

import shlex
import sys
from pathlib import Path


def command_line() -> str:
    """`editfarm evaluate …`, or `python -m jobs.evaluate …` where that was it."""
    program = Path(sys.argv[0])
    called = ["python", "-m", f"jobs.{program.stem}"] if program.suffix == ".py" else [program.name]
    return shlex.join([*called, *sys.argv[1:]])

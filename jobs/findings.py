"""What the doctor says: one line each, and how bad it is."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

Level: TypeAlias = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Finding:
    """One line of the doctor.

    Attributes:
        check: what was looked at.
        level: "warn" can go wrong, "fail" will.
        found: what there is.
        advice: what to do; empty where all is well.
    """

    check: str
    level: Level
    found: str
    advice: str = ""

"""`Prefer: wait=N` and `respond-async` (RFC 7240)."""

import re

_WAIT = re.compile(r"wait\s*=\s*\"?(\d{1,6})\"?")


def wait_seconds(prefer: str, most: int) -> int:
    """How long the caller wants to wait for an edit's end; 0 where it does not."""
    parts = [part.strip().lower() for part in prefer.split(",")]
    if "respond-async" in parts and not any(_WAIT.fullmatch(part) for part in parts):
        return 0
    for part in parts:
        match = _WAIT.fullmatch(part)
        if match:
            return min(int(match.group(1)), most)
    return 0

"""Logs of a farm: lines of JSON that name the edit they are about.

EDITFARM_LOG=json, which every rendered deployment sets, turns them on. Without it Python's logging
stays as it is.
"""

import contextvars
import json
import logging
import os
import socket
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

VARIABLE = "EDITFARM_LOG"
_FORM = "json"
_OURS = ("farm", "actors", "serve", "jobs", "editfarm")

_edit: contextvars.ContextVar[tuple[str, str] | None] = contextvars.ContextVar("edit", default=None)


class JsonLines(logging.Formatter):
    """A record as one line: time, level, logger, message, process, and the edit if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "host": socket.gethostname(),
            "pid": record.process,
        }
        edit = _edit.get()
        if edit is not None:
            line["edit"], line["tenant"] = edit
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def configure_logs() -> None:
    """Write our loggers' lines as JSON to stderr, where the environment asks for it; once."""
    if os.environ.get(VARIABLE) != _FORM:
        return
    for name in _OURS:
        logger = logging.getLogger(name)
        if any(isinstance(handler.formatter, JsonLines) for handler in logger.handlers):
            continue
        handler = logging.StreamHandler()
        handler.setFormatter(JsonLines())
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False


@contextmanager
def logged_edit(edit_id: str, tenant: str) -> Generator[None]:
    """Name an edit in all lines that this thread writes meanwhile."""
    configure_logs()
    token = _edit.set((edit_id, tenant))
    try:
        yield
    finally:
        _edit.reset(token)

"""What `editfarm --version` says: of this program, and of what it computes with."""

import json
import platform
import subprocess
from importlib import metadata
from pathlib import Path

_FACTS = Path(__file__).with_name("build_facts.json")
"""Written into a wheel when it is built (`setup.py`)."""
_LIBRARIES = ("torch", "ray", "diffusers", "transformers")
_SECONDS = 5.0


def version_text() -> str:
    """The version and its commit; below, Python, the libraries that matter, and the machine."""
    versions = [f"python {platform.python_version()}", *map(_library, _LIBRARIES)]
    machine = f"{platform.system().lower()} {platform.machine()}"
    return (
        f"editfarm {metadata.version('editfarm')} ({_commit()})\n{', '.join(versions)}, {machine}"
    )


def _commit() -> str:
    """The commit that this was built from; of a checkout, the one that is checked out."""
    if _FACTS.is_file():
        return f"commit {json.loads(_FACTS.read_text(encoding='utf-8'))['commit']}"
    root = _FACTS.parents[1]
    if not (root / ".git").exists():
        return "commit unknown"
    found = git(root, "rev-parse", "--short=12", "HEAD")
    changed = "" if git(root, "status", "--porcelain", "-uno") == "" else ", changed since"
    return f"commit {found or 'unknown'}{changed}"


def git(root: Path, *arguments: str) -> str | None:
    """What git says of a checkout; None where it cannot say anything."""
    command = ["git", "-C", str(root), *arguments]
    try:
        ran = subprocess.run(  # noqa: S603 - our own words
            command, capture_output=True, text=True, timeout=_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return ran.stdout.strip()


def _library(name: str) -> str:
    try:
        return f"{name} {metadata.version(name)}"
    except metadata.PackageNotFoundError:
        return f"no {name}"

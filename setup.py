"""What pyproject.toml cannot say: a wheel knows the commit that it was built from."""

import json
import os
import subprocess
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithFacts(build_py):
    """Writes `jobs/build_facts.json` beside what is built, and never into the checkout."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        facts = Path(self.build_lib) / "jobs" / "build_facts.json"
        facts.write_text(json.dumps({"commit": commit()}) + "\n", encoding="utf-8")


def commit() -> str:
    """EDITFARM_COMMIT, or what is checked out, with a plus where files have changed since."""
    if os.environ.get("EDITFARM_COMMIT"):
        return os.environ["EDITFARM_COMMIT"]
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        head = _said([*git, "rev-parse", "--short=12", "HEAD"])
        return head + ("+" if _said([*git, "status", "--porcelain", "-uno"]) else "")
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def _said(command: list[str]) -> str:
    ran = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 - git
    return ran.stdout.strip()


setup(cmdclass={"build_py": BuildWithFacts})

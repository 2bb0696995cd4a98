"""A method's PAPER.md as a map: what it names, and whether that is there."""

import importlib
import re
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

TESTS = Path(__file__).parents[2]
_SHARED = (
    TESTS / "parity",
    TESTS / "farm",
    *(TESTS / "farm" / name for name in ("losses", "backbones", "samplers")),
)
"""Where tests of a paper may lie besides those of its method."""


@dataclass(frozen=True)
class Paper:
    """The map of one method.

    Attributes:
        method: its package.
    """

    method: ModuleType

    @property
    def folder(self) -> Path:
        return Path(self.method.__path__[0])

    @property
    def text(self) -> str:
        return (self.folder / "PAPER.md").read_text(encoding="utf-8")

    @property
    def code(self) -> list[str]:
        """What is named as `module:name`."""
        return sorted(set(re.findall(r"`([a-z_.]+:[A-Za-z_.]+)`", self.text)))

    @property
    def tests(self) -> list[str]:
        """What is named as `test_file::test_name`."""
        return sorted(set(re.findall(r"`(test_[a-z_]+::test_[a-z_0-9]+)`", self.text)))

    @property
    def deviations(self) -> list[str]:
        return re.findall(r"^\*\*(D\d+)\*\*", self.text, flags=re.MULTILINE)

    def named_in(self, section: str) -> set[str]:
        """Plain names in a section of the paper's page."""
        part = self.text.split(f"## {section}")[1].split("## ")[0]
        return set(re.findall(r"`([a-z_0-9]+)`", part))

    def check_code(self, path: str) -> None:
        """That what is named exists: in the method, or anywhere in the farm."""
        module, names = path.split(":")
        root = "" if module.startswith("farm.") else f"{self.method.__name__}."
        found = importlib.import_module(root + module)
        for name in names.split("."):
            fields = getattr(found, "model_fields", {})
            assert hasattr(found, name) or name in fields, path
            found = getattr(found, name, None)

    def check_test(self, path: str) -> None:
        """That the test exists: written there, or collected there from its cases."""
        module, name = path.split("::")
        own = TESTS / "farm" / "methods" / self.folder.name
        files = [folder / f"{module}.py" for folder in (own, *_SHARED)]
        here = re.compile(rf"def {name}\(|^    {name},$", re.MULTILINE)
        assert any(here.search(file.read_text()) for file in files if file.is_file()), path

    def check_deviations(self) -> None:
        """That the code says at its line where it deviates."""
        code = "".join(path.read_text(encoding="utf-8") for path in self.folder.glob("*.py"))
        for number in self.deviations:
            assert re.search(rf"\b{number}\b", code), f"{number} is not marked at its line"

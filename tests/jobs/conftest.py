import json
from pathlib import Path

import pytest
import torch

from farm.images import encode_png
from tests.tiny import write_tiny_set

QUICK = {"num_steps": 2, "inner_steps": 1}
LINE = {"source_prompt": "a red ball", "target_prompt": "a blue ball", "parameters": QUICK}


@pytest.fixture(scope="session")
def tiny_set(tmp_path_factory) -> str:
    """A model-set folder whose networks are random, real and tiny."""
    folder = tmp_path_factory.mktemp("tiny-set")
    write_tiny_set(folder)
    return str(folder)


def write_picture(path: Path, seed: int = 0, side: int = 20) -> Path:
    generator = torch.Generator().manual_seed(seed)
    path.write_bytes(encode_png(torch.rand(3, side, side, generator=generator)))
    return path


@pytest.fixture
def picture(tmp_path) -> Path:
    return write_picture(tmp_path / "a.png")


@pytest.fixture
def manifest(tmp_path, picture):
    """Writes a manifest of lines, each `LINE` with changes; a string is written as it is."""

    def write(*lines: dict | str) -> str:
        texts = [
            line if isinstance(line, str) else json.dumps({"image": picture.name} | LINE | line)
            for line in lines
        ]
        path = tmp_path / "manifest.jsonl"
        path.write_text("\n".join(texts) + "\n")
        return str(path)

    return write

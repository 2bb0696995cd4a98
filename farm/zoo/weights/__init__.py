"""The networks that ship with the farm, as fp16 safetensors in Hugging Face layout."""

from pathlib import Path

SCENES_FOLDER = Path(__file__).parent / "scenes"
"""The scenes zoo: the embedded default model set."""

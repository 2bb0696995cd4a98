"""Parts of the program that are installed only when asked for, and how a missing one is said."""

from collections.abc import Mapping

EXTRAS: Mapping[str, tuple[str, ...]] = {
    "serve": ("fastapi", "starlette", "uvicorn", "multipart", "prometheus_client"),
    "ui": ("gradio",),
    "s3": ("boto3", "botocore"),
    "train": ("pandas", "pyarrow"),
    "docs": ("mkdocs",),
}
"""Top modules by the extra of pyproject.toml that brings them."""


def missing(command: str, module: str | None) -> str:
    """What to say of a command whose import of a module failed."""
    top = (module or "").partition(".")[0]
    found = [extra for extra, modules in EXTRAS.items() if top in modules]
    if not found:
        return f"`editfarm {command}` needs {module}, which is not installed: install editfarm anew"
    return (
        f"`editfarm {command}` needs {module}, which is not installed: "
        f"pip install 'editfarm[{found[0]}]'"
    )

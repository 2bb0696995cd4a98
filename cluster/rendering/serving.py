"""Ray Serve's configuration for a deployment: the laptop's file with what differs replaced."""

from typing import Any

import yaml

from cluster.rendering.text import plain_yaml
from cluster.settings import SERVE_PORT


def serve_config(
    base: str, *, store: str, model_set: str, keys_file: str, sizes: dict[str, int]
) -> str:
    """The configuration as text; empty where there is no base.

    It listens beyond the machine, which the application allows only with keys.

    Args:
        base: `serve/config.yaml`.
        store: where edits lie; every node reaches it.
        model_set: name or folder.
        keys_file: tenants and digests of their keys, at the same path on every node.
        sizes: further arguments of the application.
    """
    if not base:
        return ""
    config: dict[str, Any] = yaml.safe_load(base)
    config["http_options"] |= {"host": "0.0.0.0", "port": SERVE_PORT}  # noqa: S104
    application, studio = config["applications"]
    studio["args"]["with_keys"] = True
    application["args"] |= {
        "store": store,
        "model_set": model_set,
        "keys_file": keys_file,
        **sizes,
    }
    return plain_yaml(config)

"""Serve the HTTP API from this machine: its own Ray, backbones, dispatcher and HTTP replicas.

    editfarm serve                                         # 127.0.0.1:8000, scenes, no keys
    editfarm serve --host 0.0.0.0 --keys keys.json         # for others; `editfarm keys add` first

Starting takes some 25 s, most of it the backbones' networks; `/readyz` says when edits start.
"""

import os
import signal
import tempfile
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import ray
import typer
from ray import serve as ray_serve

from actors.local import local_ray
from farm.storage.opening import open_store
from farm.storage.store import check_writable
from farm.zoo.model_sets import open_model_set
from jobs.console import FarmCommand, ModelSetOption, command_app, say
from serve.deployment import build
from serve.gate import check_listening, is_loopback
from serve.keys import read_keys
from serve.settings import Settings
from serve.studio.deployment import StudioSettings, build_studio, check_gradio, has_gradio
from serve.tuning import tune_serve

app = command_app()


@app.command(cls=FarmCommand)
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8000,
    store: Annotated[str, typer.Option(help="Path, file:// or s3://bucket.")] = "out/store",
    model_set: ModelSetOption = "scenes",
    beside: Annotated[
        list[str] | None,
        typer.Option(help="Model set that another door serves on the same GPUs; may be repeated."),
    ] = None,
    keys: Annotated[Path | None, typer.Option(help="Keys file; see `editfarm keys`.")] = None,
    image_store: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=STORE", help="Where requests may name images: NAME://key."),
    ] = None,
    webhook_host: Annotated[
        list[str] | None, typer.Option(help="Host, or host:port, that webhooks may go to.")
    ] = None,
    max_in_flight: Annotated[int, typer.Option(min=1, help="Edits that run at once.")] = 8,
    replicas: Annotated[int, typer.Option(min=1, help="Processes of the HTTP side.")] = 1,
    studio: Annotated[
        bool | None,
        typer.Option(
            "--studio/--no-studio",
            help="The page for people under /studio; by default where Gradio is installed.",
        ),
    ] = None,
) -> None:
    """Serve the HTTP API."""
    check_listening(host, has_keys=keys is not None)
    if studio:
        check_gradio()
    with_studio = has_gradio() if studio is None else studio
    if keys is not None:
        read_keys(keys)
    open_model_set(model_set)
    opened = open_store(store)
    check_writable(opened)
    settings = Settings(
        store=opened.uri,
        model_set=model_set,
        beside=tuple(beside or ()),
        keys_file=keys,
        image_stores=dict(_named_store(text) for text in image_store or []),
        webhook_hosts=tuple(webhook_host or ()),
        max_in_flight=max_in_flight,
        replicas=replicas,
    )
    tune_serve()
    say("starting Ray and Serve")
    with local_ray(), _key_to_ray() as watch:
        ray_serve.start(http_options={"host": host, "port": port})
        try:
            ray_serve.run(build(settings), name="editfarm", route_prefix="/")
            shown = "127.0.0.1" if is_loopback(host) else host
            if with_studio:
                page = build_studio(StudioSettings(with_keys=keys is not None))
                ray_serve.run(page, name="studio", route_prefix="/studio")
                say(f"studio: http://{shown}:{port}/studio/")
            say(f"from another shell: {watch} editfarm top")
            say(f"http://{shown}:{port}/v1/edits; ready when /readyz says so; Ctrl-C ends it")
            _until_asked()
        finally:
            ray_serve.shutdown()


@contextmanager
def _key_to_ray() -> Generator[str]:
    """What another command needs in its environment to see this Ray, for as long as it lives.

    The token of a Ray of our own is random and kept in this process; a file of this user has it, so
    that nobody else on this machine can read it from a command line.
    """
    found = f"RAY_ADDRESS={ray.get_runtime_context().gcs_address}"
    token = os.environ.get("RAY_AUTH_TOKEN")
    if token is None or os.environ.get("RAY_AUTH_MODE") != "token":
        yield found
        return
    with tempfile.TemporaryDirectory(prefix="editfarm-") as folder:  # its mode is 700
        path = Path(folder) / "token"
        path.write_text(token, encoding="ascii")
        path.chmod(0o600)
        yield f"{found} RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH={path}"


def _named_store(text: str) -> tuple[str, str]:
    name, equals, uri = text.partition("=")
    if not name.isidentifier() or not equals or not uri:
        raise typer.BadParameter(
            f"--image-store {text!r}: write NAME=STORE, as photos=/data/photos"
        )
    return name, uri


def _until_asked() -> None:
    asked = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: asked.set())
    asked.wait()


if __name__ == "__main__":
    app()

import json
import os
import shutil
import socket
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from farm.errors import ModelSetError
from farm.zoo.model_sets import open_model_set
from jobs import model_cache
from jobs.model_cache import app, convert, fill
from tests.jobs.small_hub import REVISION, write_hub


@pytest.fixture(scope="module")
def mirror(tmp_path_factory):
    """A bucket's copy of the hub: `owner/name/file`, and which commit that is."""
    hub, folder = tmp_path_factory.mktemp("hub"), tmp_path_factory.mktemp("mirror")
    write_hub(hub)
    for commit in hub.glob(f"*/*/{REVISION}"):
        target = folder / commit.parent.relative_to(hub)
        shutil.copytree(commit, target)
        (target / "refs").mkdir()
        (target / "refs" / "main").write_text(REVISION + "\n")
    return folder


def test_a_set_is_fetched_once_checked_and_mended(tmp_path, tiny_set):
    source = tmp_path / "source" / "tiny"
    shutil.copytree(tiny_set, source)
    cache = tmp_path / "models"
    runner = CliRunner()
    arguments = [str(source), "--to", str(cache)]
    assert runner.invoke(app, arguments).exit_code == 0
    folder = cache / "tiny"
    digests = json.loads((folder / "model_set.json").read_text())["digests"]
    assert fill(str(source), folder) == 0
    weights = folder / next(iter(digests))
    weights.write_bytes(b"torn")
    assert fill(str(source), folder) == 1
    assert weights.read_bytes() == (source / next(iter(digests))).read_bytes()
    assert not list(folder.rglob(".*"))  # no part of a file stays


def test_a_source_that_is_not_what_it_says_is_refused(tmp_path, tiny_set):
    source = tmp_path / "source"
    shutil.copytree(tiny_set, source)
    next(source.rglob("*.safetensors")).write_bytes(b"other")
    wrong = CliRunner().invoke(app, [str(source), "--to", str(tmp_path / "models")])
    assert wrong.exit_code == 2
    assert "is not what model_set.json says" in wrong.stderr
    empty = tmp_path / "empty"
    empty.mkdir()
    none = CliRunner().invoke(app, [str(empty), "--to", str(tmp_path / "models")])
    assert none.exit_code == 2
    assert "holds no model_set.json" in none.stderr


def test_what_comes_with_the_package_need_not_be_fetched(tmp_path):
    shown = CliRunner().invoke(app, ["scenes", "--to", str(tmp_path)])
    assert shown.exit_code == 0
    assert list(tmp_path.iterdir()) == []


def test_released_checkpoints_are_converted_from_a_mirror_once(mirror, tmp_path):
    arguments = ["sd15+infinity-2b", "--mirror", str(mirror), "--to", str(tmp_path)]
    first = CliRunner().invoke(app, arguments)
    assert first.exit_code == 0, first.stderr
    found = open_model_set(str(tmp_path / "sd15+infinity-2b"))
    found.verify()
    assert {source.revision for source in found.manifest.sources.values()} == {REVISION}
    files = {path.relative_to(found.folder) for path in found.folder.rglob("*.*") if path.is_file()}
    assert {path.suffix for path in files} <= {".safetensors", ".json", ".txt"}  # some were pickles
    assert [path.name for path in tmp_path.iterdir()] == ["sd15+infinity-2b"]  # nothing half-made
    again = CliRunner().invoke(app, arguments)
    assert "is there" in again.stderr + again.stdout


def test_a_start_after_a_crash_goes_on_where_it_was(mirror, tmp_path, monkeypatch):
    folder, real = tmp_path / "sd15", model_cache.HubMirror
    asked = []

    class Crashing(real):
        def __call__(self, repository, revision, patterns):
            asked.append(patterns)
            if len(asked) == 3:
                raise KeyboardInterrupt
            return super().__call__(repository, revision, patterns)

    monkeypatch.setattr(model_cache, "HubMirror", Crashing)
    with pytest.raises(KeyboardInterrupt):
        convert("sd15", folder, str(mirror))
    assert not folder.exists()
    (half,) = [path for path in tmp_path.iterdir() if not path.name.endswith(".fetched")]
    weights = next(half.rglob("*.safetensors"))
    inode = weights.stat().st_ino
    assert convert("sd15", folder, str(mirror))
    assert (folder / weights.relative_to(half)).stat().st_ino == inode  # not made again


def test_the_first_of_two_machines_wins(mirror, tmp_path, monkeypatch):
    monkeypatch.setattr(model_cache.socket, "gethostname", lambda: "other")
    folder = tmp_path / "sd15"
    real = model_cache.pull

    def overtaken(name, mine, fetch):
        real(name, mine, fetch=fetch)
        shutil.copytree(mine, folder)

    monkeypatch.setattr(model_cache, "pull", overtaken)
    assert not convert("sd15", folder, str(mirror))
    assert [path.name for path in tmp_path.iterdir()] == ["sd15"]


def test_what_a_machine_left_a_day_ago_is_removed_and_no_younger_one(mirror, tmp_path):
    old, own = 2 * 86_400, socket.gethostname()
    for name, age in (("gone", old), ("busy", 60), (own, old)):
        left = tmp_path / f".sd15.{name}" / "vae" / "part.safetensors"
        left.parent.mkdir(parents=True)
        left.write_bytes(b"half")
        os.utime(left, (0, 0))  # shared with an old cache, which says nothing
        for folder in (left.parent, left.parent.parent):
            os.utime(folder, (time.time() - age,) * 2)
    (tmp_path / "sd15").mkdir()
    (tmp_path / "sd15" / "model_set.json").write_text("{}")  # there is nothing more to make
    assert not convert("sd15", tmp_path / "sd15", str(mirror))
    left = {".sd15.busy", f".sd15.{own}", "sd15"}  # its own is gone on with
    assert {path.name for path in tmp_path.iterdir()} == left


def test_a_folder_that_another_machine_removes_meanwhile_is_no_error(mirror, tmp_path, monkeypatch):
    (tmp_path / ".sd15.gone").mkdir()
    walk = Path.rglob

    def removed_meanwhile(path, pattern):
        shutil.rmtree(path)
        return walk(path, pattern)

    monkeypatch.setattr(Path, "rglob", removed_meanwhile)
    (tmp_path / "sd15").mkdir()
    (tmp_path / "sd15" / "model_set.json").write_text("{}")
    assert not convert("sd15", tmp_path / "sd15", str(mirror))


def test_a_mirror_says_what_it_lacks(mirror, tmp_path):
    lacking = tmp_path / "lacking"
    shutil.copytree(mirror, lacking)
    shutil.rmtree(lacking / "openai")
    shown = CliRunner().invoke(app, ["sd15", "--mirror", str(lacking), "--to", str(tmp_path / "m")])
    assert shown.exit_code == 3
    assert "has no openai/clip-vit-base-patch16/" in shown.stderr
    other = model_cache.HubMirror(model_cache.open_store(str(mirror)), tmp_path)
    with pytest.raises(ModelSetError, match=f"has commit {REVISION} of openai"):
        other("openai/clip-vit-base-patch16", "fedcba", ["config.json"])


def test_a_mirror_for_what_is_none_of_the_hubs_is_refused(mirror, tmp_path):
    shown = CliRunner().invoke(app, ["mine", "--mirror", str(mirror), "--to", str(tmp_path)])
    assert shown.exit_code == 2
    assert "names none" in shown.stderr

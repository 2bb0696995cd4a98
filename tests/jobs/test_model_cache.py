import json
import shutil

from typer.testing import CliRunner

from jobs.model_cache import app, fill


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

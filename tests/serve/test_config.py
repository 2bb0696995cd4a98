"""serve/config.yaml is what Serve takes, and what our own settings take."""

from pathlib import Path

import pytest
import yaml
from ray.serve.schema import ServeDeploySchema

import serve.app
from farm.errors import InvalidRequestError
from serve.gate import check_listening
from serve.preferences import wait_seconds
from serve.settings import Settings
from serve.studio.deployment import StudioSettings
from serve.studio.panels import ROOT

CONFIG = Path(serve.app.__file__).parent / "config.yaml"


def test_the_config_file_is_valid_and_knows_no_other_keys():
    found = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    parsed = ServeDeploySchema.model_validate(found)
    assert set(found) <= set(ServeDeploySchema.model_fields)
    application, studio = parsed.applications
    assert application.import_path == "serve.app:app"
    assert studio.import_path == "serve.app:studio"
    assert studio.route_prefix == ROOT
    page = StudioSettings.model_validate(studio.args)
    for entry in found["applications"]:
        assert set(entry) <= set(type(application).model_fields)  # Serve itself ignores others
    settings = Settings.model_validate(application.args)
    assert settings.model_set == "scenes"
    assert page.with_keys == (settings.keys_file is not None)
    check_listening(found["http_options"]["host"], has_keys=settings.keys_file is not None)
    with pytest.raises(InvalidRequestError):
        check_listening("0.0.0.0", has_keys=settings.keys_file is not None)


def test_settings_mean_the_same_in_another_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    given = Settings(store="a/store", keys_file=Path("k.json"), image_stores={"p": "pictures"})
    found = given.absolute()
    assert found.store == (tmp_path / "a/store").as_uri()
    assert found.image_stores == {"p": (tmp_path / "pictures").as_uri()}
    assert found.keys_file == tmp_path / "k.json"
    assert found.model_set == "scenes"
    assert Settings(model_set="models").absolute().model_set == str(tmp_path / "models")
    assert found.absolute() == found


@pytest.mark.parametrize(
    ("prefer", "seconds"),
    [
        ("", 0),
        ("wait=5", 5),
        ("wait = 5", 5),
        ('wait="5"', 5),
        ("respond-async, wait=10", 10),
        ("respond-async", 0),
        ("wait=999999", 120),
        ("wait=9999999", 0),
        ("wait=-1", 0),
        ("return=minimal, wait=3", 3),
        ("waiting=3", 0),
    ],
)
def test_preferences(prefer, seconds):
    assert wait_seconds(prefer, 120) == seconds

"""The studio as Serve deploys it, beside the API on one port."""

import json

import pytest

from serve.settings import Settings
from serve.studio.deployment import StudioSettings
from tests.serve.conftest import PICTURE, WORDS
from tests.serve.served import served

pytestmark = [pytest.mark.ray, pytest.mark.chaos, pytest.mark.timeout(600)]  # slow: `make chaos`


def test_the_page_and_its_files_come_through_serves_proxy(tiny_set, tmp_path):
    settings = Settings(store=str(tmp_path / "store"), model_set=str(tiny_set))
    with served(settings, studio=StudioSettings()) as client:
        page = client.get("/studio/")
        assert page.status_code == 200
        assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
        config = client.get("/studio/config").json()
        assert config["title"] == "edit farm studio"
        assert config["root"].endswith("/studio")
        assert client.get("/studio/theme.css").status_code == 200
        uploaded = client.post(
            "/studio/gradio_api/upload", files={"files": ("a.png", PICTURE, "image/png")}
        )
        (path,) = uploaded.json()
        assert client.get(f"/studio/gradio_api/file={path}").content == PICTURE

        form = {**WORDS, "parameters": json.dumps({"num_steps": 2, "inner_steps": 1})}
        edit = client.post(
            "/v1/edits", data=form, files={"image": PICTURE}, headers={"Prefer": "wait=120"}
        ).json()
        assert edit["state"] == "done"
        shown = client.get(f"/studio/files/{edit['id']}/image")
        assert shown.content == PICTURE
        assert shown.headers["content-type"] == "image/png"
        direct = client.get(edit["outputs"]["edited.png"]).content
        assert client.get(f"/studio/files/{edit['id']}/edited.png").content == direct
        assert client.get(f"/studio/files/{edit['id']}/none.png").status_code == 404
        assert client.get("/studio/files/..%2f..%2fetc/passwd").status_code == 404
        stranger = {"Host": "evil.example"}
        assert client.get("/studio/", headers=stranger).status_code == 421

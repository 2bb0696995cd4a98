"""A farm that is stopped with edits under way, and started again on the same store."""

import pytest

from serve.settings import Settings
from tests.serve.served import LONG, ended, served, submit, wait_until

pytestmark = [pytest.mark.ray, pytest.mark.chaos, pytest.mark.timeout(600)]


def test_edits_outlive_a_restart_of_ray(tiny_set, tmp_path):
    settings = Settings(store=str(tmp_path / "store"), model_set=str(tiny_set), max_in_flight=2)
    with served(settings) as client:
        names = [submit(client, seed, LONG) for seed in range(8)]
        wait_until(lambda: client.get(f"/v1/edits/{names[0]}").json().get("progress"))
    with served(settings) as client:
        assert {ended(client, name)["state"] for name in names} == {"done"}
    commits = list((tmp_path / "store" / "tenants/default/edits").glob("*/COMMIT.json"))
    assert len(commits) == len(names)

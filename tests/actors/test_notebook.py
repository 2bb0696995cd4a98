"""`farm.edit` on a Ray cluster: the session's own."""

import pytest

from actors.notebook import RayFarm
from farm import edit
from farm.errors import InvalidRequestError, UnavailableError, UnknownWordError
from tests.actors.conftest import SMALL
from tests.jobs.conftest import QUICK, write_picture
from tests.tiny import write_tiny_set

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session")]
WORDS = {"source": "a red ball", "target": "a blue ball", "parameters": QUICK}


@pytest.mark.chaos
def test_edits_on_a_ray_cluster(tmp_path):
    (tmp_path / "tiny").mkdir()
    write_tiny_set(tmp_path / "tiny")
    picture = write_picture(tmp_path / "a.png")
    cluster = RayFarm(tmp_path / "store", model_set=str(tmp_path / "tiny"), placement=SMALL)
    with pytest.raises(UnavailableError, match="inside its `with`"):
        edit(picture, **WORDS, farm=cluster)
    with cluster:
        result = edit(picture, **WORDS, farm=cluster)
        assert result.edited.size == (20, 20)
        assert result.provenance.trainer_node
        assert edit(picture, **WORDS, farm=cluster).reused
        with pytest.raises(UnknownWordError, match="zebra"):
            edit(picture, **WORDS, word="zebra", farm=cluster)
        with pytest.raises(InvalidRequestError, match="is not on this farm"):
            edit(picture, **WORDS, model_set="scenes", farm=cluster)
    with pytest.raises(UnavailableError, match="inside its `with`"):
        edit(picture, **WORDS, farm=cluster)

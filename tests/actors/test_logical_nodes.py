"""What a cluster of logical nodes finds on a machine where Ray never ran, and leaves behind."""

from pathlib import Path

import pytest
from ray._common.utils import get_ray_address_file

from actors import logical_nodes
from actors.logical_nodes import logical_cluster


class Fake:
    """Notes what it is told, as Ray's own would do it."""

    def __init__(self) -> None:
        self.is_shut_down = False

    def add_node(self, temp_dir: str, **options: object) -> None:
        Path(get_ray_address_file(None)).write_text("127.0.0.1:1")  # as Ray's does
        self.folder, self.options = Path(temp_dir), options
        assert self.folder.is_dir()

    def shutdown(self) -> None:
        self.is_shut_down = True


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(logical_nodes, "Cluster", Fake)
    monkeypatch.setattr(logical_nodes, "require_token", lambda: None)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / "none"))


@pytest.mark.usefixtures("nowhere")
def test_ray_need_not_have_run_before() -> None:
    assert not Path(get_ray_address_file(None)).parent.exists()
    with logical_cluster(num_cpus=3) as cluster:
        assert isinstance(cluster, Fake)
        assert cluster.options == {"num_cpus": 3}
    assert cluster.is_shut_down
    assert not cluster.folder.exists()


@pytest.mark.usefixtures("nowhere")
def test_it_is_gone_after_an_error_too() -> None:
    with pytest.raises(ZeroDivisionError), logical_cluster() as cluster:
        raise ZeroDivisionError
    assert isinstance(cluster, Fake)
    assert cluster.is_shut_down
    assert not cluster.folder.exists()

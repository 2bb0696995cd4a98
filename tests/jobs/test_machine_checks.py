import py_compile
import socket
from math import isclose

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from actors.sharing import Gpu, driver_gpus
from cluster.fractions import needed_bytes, share_accelerators
from jobs.machine_checks import bytecode, disk, graphics, ports, session_path, sharing

GIB = 2**30
REAL = {"sd15": int(4.1 * GIB), "clip": GIB // 2, "dino": GIB // 3, "infinity": 9 * GIB}


def test_a_backbone_alone_has_the_whole_device():
    (placed,) = share_accelerators({"scenes": 22_000_000}, [24 * GIB]).placed
    assert (placed.accelerator, placed.share) == (0, 1.0)


def test_large_ones_go_apart_and_small_ones_together():
    sharing = share_accelerators(REAL, [24 * GIB, 24 * GIB])
    homes = {placed.name: placed.accelerator for placed in sharing.placed}
    assert homes["infinity"] != homes["sd15"]
    assert homes["clip"] == homes["dino"] == homes["sd15"]  # where most room is left
    assert sharing.left_out == ()


def test_who_has_no_room_is_named():
    sharing = share_accelerators(REAL, [13 * GIB])
    assert sharing.left_out == ("infinity",)
    assert share_accelerators(REAL, []).left_out == ("infinity", "sd15", "clip", "dino")


@given(
    st.dictionaries(st.text("abc", min_size=1, max_size=3), st.integers(0, 40 * GIB), max_size=6),
    st.lists(st.integers(1, 80 * GIB), max_size=4),
)
def test_everybody_gets_what_it_needs_and_no_device_is_promised_twice(weights, memories):
    sharing = share_accelerators(weights, memories)
    assert {placed.name for placed in sharing.placed} | set(sharing.left_out) == weights.keys()
    for number, memory in enumerate(memories):
        here = [placed for placed in sharing.placed if placed.accelerator == number]
        assert sum(placed.share for placed in here) <= 1 + 1e-9
        for placed in here:
            need = needed_bytes(weights[placed.name]) / memory
            assert placed.share > need or isclose(placed.share, need, abs_tol=1e-4)


def test_the_doctor_says_who_goes_where():
    finding = sharing({"a": 22_000_000, "b": 22_000_000}, [24 * GIB], "GPU")
    assert finding.level == "ok"
    assert finding.found == "a on GPU (50%), b on GPU (50%)"
    full = sharing({"infinity": 40 * GIB}, [24 * GIB], "GPU")
    assert full.level == "warn"
    assert "infinity needs 52.0 GiB" in full.found
    assert full.advice


def smi(folder, text, code=0):
    script = folder / "smi"
    script.write_text(f"#!/bin/sh\ncat <<'X'\n{text}\nX\nexit {code}\n")
    script.chmod(0o755)
    return [str(script)]


def test_the_drivers_answer_is_read(tmp_path):
    text = "NVIDIA L4, 570.86.15, 23034\nNVIDIA L4, 570.86.15, 23034"
    gpus = driver_gpus(smi(tmp_path, text))
    assert gpus == [Gpu("NVIDIA L4", "570.86.15", 23034 * 2**20)] * 2
    assert driver_gpus(smi(tmp_path, "no devices were found", code=6)) == []
    assert driver_gpus(["no-such-program"]) == []


def test_a_gpu_that_torch_cannot_use_is_a_failure(monkeypatch):
    gpu = Gpu("NVIDIA L4", "470.1", 24 * GIB)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    finding = graphics([gpu])
    assert finding.level == "fail"
    assert "--gpus all" in finding.advice
    monkeypatch.setattr(torch.version, "cuda", None)
    assert "for the CPU alone" in graphics([gpu]).advice
    assert graphics([]).level == "ok"


RELEASED = ("sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120")


@pytest.mark.parametrize(
    ("device", "built_for", "level"),
    [
        pytest.param((8, 9), RELEASED, "ok", id="L4 runs code of sm_86"),
        pytest.param((9, 0), RELEASED, "ok", id="H100 has code of its own"),
        pytest.param((10, 3), RELEASED, "ok", id="B300 runs code of sm_100"),
        pytest.param((8, 9), ("sm_75", "sm_90"), "warn", id="no other major's code"),
        pytest.param((8, 0), ("sm_86",), "warn", id="no later minor's code"),
        pytest.param((3, 7), RELEASED, "warn", id="K80 is too old"),
        pytest.param((12, 0), ("sm_90", "compute_90"), "ok", id="PTX is compiled forward"),
        pytest.param((8, 9), ("sm_75", "compute_90"), "warn", id="and never backward"),
        pytest.param((9, 0), ("sm_90a",), "ok", id="for this device alone"),
        pytest.param((10, 3), ("sm_100a", "compute_90a"), "warn", id="for others alone"),
        pytest.param((9, 0), ("gfx942",), "warn", id="another maker's"),
    ],
)
def test_a_gpu_that_torch_has_no_code_for_is_a_warning(monkeypatch, device, built_for, level):
    monkeypatch.setattr(torch.version, "cuda", "13.2")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "a GPU")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: device)
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: list(built_for))
    assert graphics([Gpu("a GPU", "570", 24 * GIB)]).level == level


def test_a_taken_port_is_named():
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        finding = ports({port: "HTTP"})
        assert finding.level == "warn"
        assert f"{port} (HTTP)" in finding.found
    assert ports({port: "HTTP"}).level == "ok"


@pytest.mark.parametrize(
    ("free", "level"), [(50 * GIB, "ok"), (8 * GIB, "warn"), (4 * GIB, "fail")]
)
def test_disk(tmp_path, monkeypatch, free, level):
    usage = type("Usage", (), {"total": 100 * GIB, "free": free})
    monkeypatch.setattr("shutil.disk_usage", lambda folder: usage)
    assert disk(tmp_path).level == level


def test_a_session_folder_must_leave_room_for_sockets(tmp_path):
    deep = tmp_path / ("x" * 80)
    deep.mkdir()
    assert session_path(deep).level == "fail"
    assert "RAY_TMPDIR" in session_path(deep).advice
    assert session_path(tmp_path / "no").level == "fail"


def test_packages_that_every_process_would_compile_are_warned_of(tmp_path):
    module = tmp_path / "package.py"
    module.write_text("")
    lost = bytecode(module, is_kept=False)
    assert lost.level == "warn"
    assert "PYTHONDONTWRITEBYTECODE" in lost.found
    assert bytecode(module, is_kept=True).level == "ok"
    py_compile.compile(str(module))
    assert bytecode(module, is_kept=False).level == "ok"

import json

import numpy as np
import pytest
import safetensors
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from farm.errors import CorruptArtifactError
from farm.storage.tensors import pack_tensors, unpack_tensors

DTYPES = [
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.float64,
    torch.int64,
    torch.int8,
    torch.uint8,
    torch.bool,
]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(), (0, 3), (2, 3, 4)])
def test_round_trip(dtype, shape):
    generator = torch.Generator().manual_seed(0)
    tensor = (torch.randn(shape, generator=generator) * 3).to(dtype)
    back, metadata = unpack_tensors(pack_tensors({"t": tensor}, {}))
    assert back["t"].dtype == dtype
    assert back["t"].shape == tensor.shape
    assert torch.equal(back["t"], tensor)
    assert metadata == {}


def test_strides_shared_memory_and_gradients_do_not_matter():
    base = torch.arange(12.0).view(3, 4)
    weight = torch.nn.Parameter(base.clone())
    given_ = {"whole": base, "turned": base.T, "row": base[1], "again": base, "weight": weight}
    back, _ = unpack_tensors(pack_tensors(given_, {}))
    for name, tensor in given_.items():
        assert torch.equal(back[name], tensor.detach())
        assert not back[name].requires_grad
    back["whole"].zero_()  # writable, and nobody else's
    assert back["again"].sum() == 66
    assert base.sum() == 66


def test_numpy_arrays_of_any_layout():
    arrays = {
        "reversed": np.arange(6, dtype=np.float32)[::-1],
        "foreign": np.arange(6, dtype=">i4"),
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "scalar": np.array(3, dtype=np.int64),
    }
    for array in arrays.values():
        array.setflags(write=False)
    back, _ = unpack_tensors(pack_tensors(arrays, {}))
    for name, array in arrays.items():
        np.testing.assert_array_equal(back[name].numpy(), array)
        assert back[name].shape == array.shape


@settings(deadline=None)  # the machine may be busy
@given(
    st.dictionaries(
        st.text(st.characters(codec="utf-8"), max_size=9),
        st.text(st.characters(codec="utf-8"), max_size=9),
        max_size=5,
    )
)
def test_any_metadata_comes_back(metadata):
    data = pack_tensors({"t": torch.ones(2)}, metadata)
    back, found = unpack_tensors(data)
    assert found == metadata
    assert torch.equal(back["t"], torch.ones(2))


def test_equal_input_gives_equal_bytes():
    metadata = {f"key {i}": str(i) for i in range(10)}
    tensors = {name: torch.ones(3) for name in "abc"}
    backwards = dict(reversed(tensors.items())), dict(reversed(metadata.items()))
    assert pack_tensors(tensors, metadata) == pack_tensors(*backwards)


def test_the_file_is_what_the_library_reads(tmp_path):
    path = tmp_path / "t.safetensors"
    metadata = {"prompt": "ein roter Würfel", "steps": "20"}
    path.write_bytes(
        pack_tensors({"a": torch.eye(3), "b": torch.zeros(2, dtype=torch.bool)}, metadata)
    )
    with safetensors.safe_open(path, framework="pt") as file:
        assert file.metadata() == metadata
        assert torch.equal(file.get_tensor("a"), torch.eye(3))
        assert sorted(file.keys()) == ["a", "b"]
    length = int.from_bytes(path.read_bytes()[:8], "little")
    assert length % 8 == 0  # so that the data can be mapped and used in place


def test_no_tensors_at_all():
    assert unpack_tensors(pack_tensors({}, {"a": "b"})) == ({}, {"a": "b"})


@pytest.mark.parametrize("cut", [0, 4, 20, -1])
def test_what_is_cut_short_is_corrupt(cut):
    data = pack_tensors({"t": torch.ones(8)}, {"a": "b"})
    with pytest.raises(CorruptArtifactError, match="no safetensors file"):
        unpack_tensors(data[:cut])


def test_a_pickle_is_refused():
    with pytest.raises(CorruptArtifactError):
        unpack_tensors(b"\x80\x04\x95" + json.dumps({"a": 1}).encode() * 10)

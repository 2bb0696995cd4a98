import numpy as np
import torch

from farm.backbones.transfers import to_device, to_host


def test_numbers_arrive_in_single_precision_and_the_rest_as_it_is():
    arrays = {
        "half": np.ones(2, np.float16),
        "double": np.full(2, 0.1, np.float64),
        "count": np.arange(3),
        "switch": np.array([True]),
    }
    found = to_device(arrays, "cpu")
    assert {n: t.dtype for n, t in found.items()} == {
        "half": torch.float32,
        "double": torch.float32,
        "count": torch.int64,
        "switch": torch.bool,
    }
    assert found["count"].tolist() == [0, 1, 2]


def test_answers_are_arrays_also_of_precisions_that_arrays_have_not():
    found = to_host({"a": torch.tensor([1.5], dtype=torch.bfloat16), "b": torch.tensor([2])})
    assert found["a"].dtype == np.float32
    assert found["a"].tolist() == [1.5]
    assert found["b"].tolist() == [2]

"""What all tests against the Infinity set share: tolerances of spec §10, and how they compare."""

import torch

from farm.backbones.infinity.generation import Guidance, generate
from farm.backbones.infinity.quantiser import (
    teacher_inputs,
)
from farm.backbones.infinity.sampling import Filter
from farm.backbones.infinity.transformer import PassOptions
from farm.methods.edit_infinity.client import (
    InfinityClient,
)
from farm.methods.edit_infinity.config import (
    NoiseConfig,
)
from tests.parity.infinity_set import Vectors, folders_of

ENCODER = 2e-5
DECODER = 1e-5
LOGITS = 5e-5
ROPE = 1e-6
MAP = 1e-6
CODES = 2e-6  # sums of up to 13 codes of at most 1/√6 each, in single precision
GRADIENT = 1e-4
LOSS = 2e-6  # means over thousands of tokens in single precision
NOTHING = NoiseConfig(flip_strength=0.0)
GREEDY = Filter(top_k=1)
AR_RUNS = {  # README: tag -> guidance, temperature, insertion
    "cfg1": (1.0, 1.0, 0),
    "cfg3": (3.0, 0.5, 0),
    "cfg3_layer": (3.0, 1.0, -2),
}
SAMPLERS = {
    "k900_p97": Filter(900, 0.97),
    "k0_p90": Filter(0, 0.90),
    "k1_p0": Filter(1, 0.0),
    "k0_p0": Filter(0, 0.0),
}


_FOUND = {}


def found_in(root):
    """Everything in a set, opened once."""
    if root not in _FOUND:
        folders = folders_of(root)
        _FOUND[root] = {
            "folders": folders,
            "edits": [(f, b, v) for f in folders for b, v in f.edits.items()],
            "large": [(f, b, v) for f in folders for b, v in f.large_edits.items()],
            "tables": [Vectors(p) for p in sorted(root.glob("rope_*.npz"))],
            "masks": Vectors(root / "masks.npz"),
        }
    return _FOUND[root]


def assert_close(actual, expected, tolerance):
    worst = (actual - expected).abs().max().item()
    assert actual.shape == expected.shape
    assert worst <= tolerance, f"largest difference {worst:.2e}"


def assert_same_bits(actual, expected):
    assert actual.shape == expected.shape
    assert int((actual != expected).sum()) == 0


def mean_pool(images, size):
    return torch.nn.functional.avg_pool2d(images, size)


def as_bgr(images):
    """Pictures in [0, 1] as the public program writes them: BGR, truncated; (batch, h, w, 3)."""
    # Ours comes from a clamped [-1, 1] by (x + 1) / 2, which is what theirs multiplies by 255.
    return (images * 255).to(torch.uint8).permute(0, 2, 3, 1).flip(3)


def assert_nearly_equal_bytes(actual, expected):
    """Truncation turns a rounding error into a whole level where a value is nearly one."""
    difference = (actual.int() - expected.int()).abs()
    assert int(difference.max()) <= 1
    assert difference.float().mean() < 1e-3


def teacher_logits(folder, text, biases=True, lora=None):
    """Logits of sample 0's bits."""
    schedule = folder.schedule()
    inputs = teacher_inputs(folder.stored, schedule)[:1]
    with torch.no_grad():
        given = folder.transformer.condition(text[None], biases=biases)
        options = PassOptions(biases=biases, lora=lora)
        return folder.transformer(given, inputs, schedule, options)[0]


def generated(folder, text, strength, temperature, insertion, biases=True, keep=None, size=None):
    model, schedule = folder.transformer, folder.schedule(size)
    options = PassOptions(biases=biases)
    with torch.no_grad():
        given = model.condition(text[None], biases=biases)
        uncond = None
        if strength != 1:
            uncond = model.condition(model.unconditional(len(text))[None], biases=biases)
    scales = schedule.num_scales
    guidance = Guidance(
        uncond,
        torch.full((1, scales), strength),
        torch.full((1, scales), temperature),
        insertion,
    )
    return list(
        generate(model, given, schedule, guidance, GREEDY, None, keep=keep, options=options)
    )


def client_of(folder, biases, size=None):
    return InfinityClient(folder.executor(size), folder.spec(size), biases=biases)

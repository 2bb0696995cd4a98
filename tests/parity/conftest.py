"""The golden set of StyleDiffusion (`--golden DIR`) as networks, specs and ready clients."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from farm.backbones.host import OperationHost
from farm.backbones.networks import Networks
from farm.diffusion import DiffusionClient
from farm.model_spec import ModelSpec
from tests.parity.golden_networks import golden_networks_of, golden_spec_of


@pytest.fixture(scope="session")
def golden(request: pytest.FixtureRequest) -> Path:
    """Folder of the golden set; `golden / "full64"` is its second, complete network."""
    return Path(request.config.getoption("--golden"))


@pytest.fixture(scope="session")
def golden_meta(golden: Path) -> dict[str, Any]:
    return json.loads((golden / "meta.json").read_text())


@pytest.fixture(scope="session")
def golden_ddim(golden: Path) -> dict[str, Tensor]:
    """`ddim.safetensors`, half-precision tensors cast to float."""
    return load_float(golden / "ddim.safetensors")


@pytest.fixture(scope="session")
def golden_spec(golden: Path) -> ModelSpec:
    return golden_spec_of(golden)


@pytest.fixture(scope="session")
def golden_networks(golden: Path, golden_spec: ModelSpec) -> Networks:
    """The golden UNet and image encoder; autoencoder and text encoder are tiny stand-ins."""
    return golden_networks_of(golden / "unet", golden_spec, golden / "image_encoder.safetensors")


@pytest.fixture(scope="session")
def golden_host(golden_networks: Networks) -> OperationHost:
    return OperationHost(golden_networks)


@pytest.fixture(scope="session")
def golden_client(golden_host: OperationHost, golden_spec: ModelSpec) -> DiffusionClient:
    return DiffusionClient(golden_host, golden_spec)


@pytest.fixture(scope="session")
def full64_spec(golden: Path) -> ModelSpec:
    return golden_spec_of(golden / "full64")


@pytest.fixture(scope="session")
def full64_client(golden: Path, full64_spec: ModelSpec) -> DiffusionClient:
    """Client of the set's second UNet, which has the block layout of Stable Diffusion 1."""
    networks = golden_networks_of(golden / "full64" / "unet", full64_spec)
    return DiffusionClient(OperationHost(networks), full64_spec)


def load_float(path: Path) -> dict[str, Tensor]:
    return {
        name: tensor.float() if tensor.dtype == torch.float16 else tensor
        for name, tensor in load_file(path).items()
    }

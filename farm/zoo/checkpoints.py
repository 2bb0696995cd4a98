"""Every released checkpoint that the farm knows: where it is, how large, under what terms.

The farm was built where none of them could be fetched. So a revision or digest is stated only where
it is published (OpenAI's CLIP carries its digest in its address); for the others `None` stands for
unknown, and the first `editfarm models pull` records the commit it got and the digest of every
file in the model set's manifest. From then on `editfarm models check` holds the files to that.
Sizes follow from the architectures (`farm.zoo.architectures`), in the precision that is published.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

_OPENRAIL = "CreativeML OpenRAIL-M"
_SINGLE, _HALF = 4, 2
"""Bytes of a number in single and in half precision."""

Kind = Literal["hub", "infinity"]


@dataclass(frozen=True)
class Checkpoint:
    """Networks that are published together.

    Attributes:
        repository: on the hub.
        mirrors: where they are too, or were before; the first that answers is taken.
        revision: commit; None: unknown, the default branch is taken and recorded.
        licence: of the weights, as their card states it.
        numbers: parameters by network (names of `farm.zoo.architectures`).
        precision: bytes of a number as published, in safetensors where there are some.
        folders: folder in the repository of each network; "" is the repository itself.
        files: names of single files, for those that are no folder in the hub's layout.
        digests: sha256 by file, where published; empty: unknown.
        about: what else should be known.
    """

    repository: str
    licence: str
    numbers: Mapping[str, int]
    mirrors: tuple[str, ...] = ()
    revision: str | None = None
    precision: int = _SINGLE
    folders: Mapping[str, str] = field(default_factory=dict[str, str])
    files: tuple[str, ...] = ()
    digests: Mapping[str, str] = field(default_factory=dict[str, str])
    about: str = ""

    @property
    def bytes(self) -> int:
        """Of the weights, as published."""
        return self.precision * sum(self.numbers.values())


_SD1 = {
    "unet": "unet",
    "vae": "vae",
    "text_encoder": "text_encoder",
    "safety_checker": "safety_checker",
}
_SD1_NUMBERS = {
    "sd1-unet": 859_520_964,
    "sd-vae": 83_653_863,
    "sd1-text": 123_060_480,
    "sd-safety": 303_981_588,
}

CHECKPOINTS: Mapping[str, Checkpoint] = MappingProxyType(
    {
        "sd14": Checkpoint("CompVis/stable-diffusion-v1-4", _OPENRAIL, _SD1_NUMBERS, folders=_SD1),
        "sd15": Checkpoint(
            "stable-diffusion-v1-5/stable-diffusion-v1-5",
            _OPENRAIL,
            _SD1_NUMBERS,
            mirrors=("runwayml/stable-diffusion-v1-5",),
            folders=_SD1,
            about="a community mirror; the original repository is gone",
        ),
        "sd15-inpainting": Checkpoint(
            "stable-diffusion-v1-5/stable-diffusion-inpainting",
            _OPENRAIL,
            {"sd1-inpainting-unet": 859_535_364},
            mirrors=("runwayml/stable-diffusion-inpainting",),
            precision=_HALF,
            folders={"inpainting": "unet"},
            about="a community mirror; the original repository is gone; in single precision the "
            "UNet is a pickle alone, in half precision safetensors, which are taken",
        ),
        "sd2-inpainting": Checkpoint(
            "sd2-community/stable-diffusion-2-inpainting",
            "CreativeML Open RAIL++-M",
            {"sd2-inpainting-unet": 865_925_124, "sd-vae": 83_653_863, "sd2-text": 340_387_840},
            mirrors=("stabilityai/stable-diffusion-2-inpainting",),
            folders={"inpainting": "unet", "vae": "vae", "text_encoder": "text_encoder"},
            about="a community mirror; the original is gone since November 2025",
        ),
        "clip-b32": Checkpoint(
            "openai/clip-vit-base-patch32",
            "MIT",
            {"clip-b32": 151_277_313},
            folders={"clip": ""},
            digests={
                "ViT-B-32.pt": "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af"
            },
        ),
        "clip-b16": Checkpoint(
            "openai/clip-vit-base-patch16",
            "MIT",
            {"clip-b16": 149_620_737},
            folders={"clip": ""},
            digests={
                "ViT-B-16.pt": "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f"
            },
        ),
        "clip-l14": Checkpoint(
            "openai/clip-vit-large-patch14",
            "MIT",
            {"clip-l14": 427_616_513},
            folders={"clip": ""},
            digests={
                "ViT-L-14.pt": "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836"
            },
        ),
        "dino-b8": Checkpoint(
            "timm/vit_base_patch8_224.dino",
            "Apache-2.0",
            {"dino-b8": 85_807_872},
            folders={"dino": ""},
            about="the authors' file is dino_vitbase8_pretrain.pth; `models convert` reads it too",
        ),
        "dino-b16": Checkpoint(
            "timm/vit_base_patch16_224.dino",
            "Apache-2.0",
            {"dino-b16": 85_798_656},
            folders={"dino": ""},
            about="the authors' file is dino_vitbase16_pretrain.pth; `models convert` reads it too",
        ),
        "flan-t5-xl": Checkpoint(
            "google/flan-t5-xl",
            "Apache-2.0",
            {"flan-t5-xl-encoder": 1_223_527_424},
            folders={"t5": ""},
            about="the decoder is fetched with it, and left out when converted to bf16",
        ),
        "infinity-125m": Checkpoint(
            "FoundationVision/Infinity",
            "MIT",
            {"infinity-125m": 125_168_000, "bsq-d16": 109_970_611},
            files=("infinity_125M_256x256.pth", "infinity_vae_d16.pth"),
            about="which autoencoder belongs to it is not documented; its bits say d16",
        ),
        "infinity-2b": Checkpoint(
            "FoundationVision/Infinity",
            "MIT",
            {"infinity-2b": 2_204_697_152, "bsq-d32": 110_118_115},
            files=("infinity_2b_reg.pth", "infinity_vae_d32reg.pth"),
            about="the autoencoder's file holds training state too: 1.56 GB instead of 0.44",
        ),
        "infinity-8b": Checkpoint(
            "FoundationVision/Infinity",
            "MIT",
            {"infinity-8b": 8_376_082_128, "bsq-d14-f8": 81_624_237},
            files=("infinity_8b_weights", "infinity_vae_d56_f8_14_patchify.pth"),
            about="33.5 GB in four shards; 16.8 GB once converted to bf16",
        ),
    }
)
"""By name."""

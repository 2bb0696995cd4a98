"""Training of the judge: on renders and on what the autoencoder makes of renders.

Half of the training pictures are edited the way a good edit would be (re-rendered), none by a
method. Autoencoded pictures and mild blur, noise and shifts of brightness keep the judge from
relying on detail that no decoder can give.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from jaxtyping import Float
from safetensors.torch import save_file
from torch import Tensor, nn

from farm.backbones.stable_diffusion import Autoencoder
from farm.zoo.judge import GRID, Judge, is_present, load_judge, read_object
from farm.zoo.scenes.rendering import render
from farm.zoo.scenes.scenes import Scenes, generator_for, sample_scenes


class JudgeRecipe:
    """Cross-entropy per cell and attribute.

    Args:
        start_from: folder of the autoencoder whose decoded pictures the judge must read too;
            None trains on renders alone.
    """

    name = "judge"

    def __init__(self, *, start_from: Path | None = None) -> None:
        self.autoencoder: Autoencoder | None = None
        if start_from is not None:
            self.autoencoder = Autoencoder(AutoencoderKL.from_pretrained(start_from).float())

    def build(self) -> nn.Module:
        with torch.random.fork_rng():
            torch.random.manual_seed(0)
            return Judge()

    def loss(
        self, module: nn.Module, step: int, batch_size: int, generator: torch.Generator
    ) -> tuple[Float[Tensor, ""], dict[str, float]]:
        del step
        scenes = sample_scenes(batch_size, generator, split="train", two_share=0.5)
        drawn = render(scenes)
        images = self._degrade(drawn.images, generator)
        reading = module(images)
        coverage = F.adaptive_avg_pool2d(drawn.masks, GRID)
        slot = coverage.argmax(1)
        covered = coverage.amax(1)
        weight = torch.where(covered > 0.3, covered, 0)

        def cells(logits: Tensor, values: Tensor) -> Tensor:
            wanted = values.gather(1, slot.flatten(1)).view_as(slot)
            each = F.cross_entropy(logits.float(), wanted, reduction="none")
            return (each * weight).sum() / weight.sum()

        presence = F.binary_cross_entropy_with_logits(reading.presence.float(), covered)
        loss = (
            presence
            + cells(reading.shape, scenes.shape)
            + 0.6 * cells(reading.colour, scenes.colour)
            + 0.8 * cells(reading.pattern, scenes.pattern)
            + 0.3 * F.cross_entropy(reading.background.float(), scenes.background)
        )
        return loss, {"presence": presence.item()}

    def evaluate(self, module: nn.Module) -> dict[str, float]:
        """Share of right answers per attribute, on renders and on autoencoded renders."""
        scenes = sample_scenes(512, generator_for("heldout", 991), split="heldout")
        drawn = render(scenes)
        figures = _accuracies(module, scenes, drawn.images, drawn.masks, "rendered")
        if self.autoencoder is not None:
            figures |= _accuracies(
                module, scenes, self._through(drawn.images), drawn.masks, "decoded"
            )
        return figures

    def export(self, module: nn.Module, folder: Path) -> None:
        (folder / self.name).mkdir(parents=True, exist_ok=True)
        state = {
            k: v.half() if v.is_floating_point() else v for k, v in module.state_dict().items()
        }
        save_file(state, folder / self.name / "model.safetensors")

    def load(self, folder: Path) -> nn.Module:
        return load_judge(folder)

    def _through(self, images: Tensor) -> Tensor:
        assert self.autoencoder is not None
        model = self.autoencoder
        with torch.no_grad():
            return torch.cat([model.decode(model.encode(i)) for i in images.split(64)])

    def _degrade(self, images: Tensor, generator: torch.Generator) -> Tensor:
        half = len(images) // 2
        if self.autoencoder is not None:
            images = torch.cat([self._through(images[:half]), images[half:]])
        amount = torch.rand(len(images), 3, 1, 1, generator=generator)
        blurred = F.avg_pool2d(images, 3, 1, 1, count_include_pad=False)
        images = images + (blurred - images) * (amount[:, :1] - 0.3).clamp(min=0)
        images = images * (0.94 + 0.12 * amount[:, 1:2])
        noise = torch.randn(images.shape, generator=generator)
        return (images + 0.03 * amount[:, 2:] * noise).clamp(0, 1)


def _accuracies(
    module: nn.Module, scenes: Scenes, images: Tensor, masks: Tensor, name: str
) -> dict[str, float]:
    reading = module(images)
    present = scenes.present()
    right: dict[str, list[Tensor]] = {"shape": [], "colour": [], "pattern": [], "present": []}
    for slot in range(masks.shape[1]):
        rows = present[:, slot]
        found = read_object(reading, masks[:, slot])
        right["shape"].append((found.shape == scenes.shape[:, slot])[rows])
        right["colour"].append((found.colour == scenes.colour[:, slot])[rows])
        right["pattern"].append((found.pattern == scenes.pattern[:, slot])[rows])
        right["present"].append(is_present(found)[rows])
    figures = {f"{name}_{k}": torch.cat(v).float().mean().item() for k, v in right.items()}
    background = (reading.background.argmax(1) == scenes.background).float().mean().item()
    return figures | {f"{name}_background": background}

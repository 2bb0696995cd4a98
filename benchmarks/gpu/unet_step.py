"""The step that StyleDiffusion repeats: SD-1.5's UNet, a value's loss and its gradient.

    python -m benchmarks.gpu.unet_step --json out/gpu
    python -m benchmarks.gpu.unet_step --tiny

Samples a second at several batches, launched kernel by kernel, captured, and compiled and captured;
the share of what the card's tensor cores could do, with 0.803 TFLOP forward and 0.862 back to the
value input (specs/style_diffusion.md §9; counted anew on the meta device).
"""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.gpu.report import Report, peak_flops
from benchmarks.gpu.setting import Setting, main
from benchmarks.gpu.timing import forget_peak, median_seconds, peak_gb
from farm.adapters.attention import AttentionControl
from farm.backbones.capture import StepCache
from farm.backbones.networks import Networks
from farm.backbones.training_operations import value_step

BATCHES = (1, 2, 4, 8, 16)
_COMPILE_SECONDS = 150.0


def inputs_for(networks: Networks, batch: int) -> dict[str, Tensor]:
    """Random rows as `value_loss` hands them to the step, targets included."""
    spec, device = networks.spec, networks.device
    generator = torch.Generator().manual_seed(batch)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(batch, *shape, generator=generator).to(device)

    latents, embeds = spec.latent_shape, (spec.tokens, spec.text_width)
    ones = torch.ones(batch, device=device)
    tensors = {
        "latents": drawn(*latents),
        "timestep": torch.full((batch,), 500, device=device),
        "embeds": drawn(*embeds),
        "value_embeds": drawn(*embeds),
        "noise_uncond": drawn(*latents),
        "guidance_scale": 7.5 * ones,
        "alpha": 0.5 * ones,
        "alpha_prev": 0.6 * ones,
        "target_latents": drawn(*latents),
        "attention_weight": ones,
    }
    with torch.no_grad():
        maps = _maps(networks, tensors)
    return tensors | {f"target_map_{n:02}": torch.rand_like(m) for n, m in enumerate(maps)}


def _maps(networks: Networks, tensors: dict[str, Tensor]) -> list[Tensor]:
    """Maps of the layers that are compared, for their shapes."""
    control = AttentionControl(record_pixels=networks.spec.map_size**2)
    networks.unet(tensors["latents"], tensors["timestep"], tensors["embeds"], control)
    return control.maps


def run(setting: Setting) -> Report:
    """Kernel by kernel, and captured; figures are kept as they come."""
    report = setting.report("unet_step")
    networks = setting.networks(setting.model_set("sd15"))
    flops = _flops(networks)
    report.count(step_flops=flops)
    report.add(step_tflop=flops / 1e12)
    for mode in ("eager", "captured"):
        _measure(report, setting, networks, mode, (1, 2) if setting.tiny else BATCHES, flops)
    return report


def run_compiled(setting: Setting) -> Report:
    """Compiled and captured, at the batch that counts."""
    report = setting.report("compiled_step")
    if setting.tiny or not report.has_time_for("compiled", _COMPILE_SECONDS):
        return report
    networks = setting.networks(setting.model_set("sd15"))
    _measure(report, setting, networks, "compiled", (8,), _flops(networks))
    return report


def _measure(
    report: Report,
    setting: Setting,
    networks: Networks,
    mode: str,
    batches: Sequence[int],
    flops: int,
) -> None:
    step = partial(value_step, networks.unet, networks.spec.map_size**2)
    steps = StepCache(enabled=mode != "eager", compiled=mode == "compiled")
    for batch in batches:
        inputs = inputs_for(networks, batch)
        forget_peak()
        seconds = median_seconds(
            partial(steps.run, "value_step", step, inputs),
            rounds=2 if setting.tiny else 15,
            warm_up=1 if setting.tiny else 3,
        )
        report.add(**_figures(mode, batch, seconds, flops))
        base = report.figures.get("eager_1_ms")
        if base is not None:
            report.add(**{f"{mode}_{batch}_to_eager_1": batch * base / (1000 * seconds)})
    report.count(**{f"{mode}_captures": steps.captures})
    steps.clear()


def _figures(mode: str, batch: int, seconds: float, flops: int) -> dict[str, float]:
    found = {
        f"{mode}_{batch}_ms": 1000 * seconds,
        f"{mode}_{batch}_samples_per_second": batch / seconds,
        f"{mode}_{batch}_peak_gb": peak_gb(),
    }
    peak = peak_flops()
    if peak is not None:
        found[f"{mode}_{batch}_mfu"] = batch * flops / seconds / peak
    return found


def _flops(networks: Networks) -> int:
    """Of one sample's step: matrix products and convolutions, forward and back."""
    inputs = inputs_for(networks, 1)
    leaf = inputs["value_embeds"].requires_grad_()
    control = AttentionControl(value_embeds=leaf * 1, record_pixels=networks.spec.map_size**2)
    with FlopCounterMode(display=False) as counter:
        noise = networks.unet(inputs["latents"], inputs["timestep"], inputs["embeds"], control)
        sum((m.sum() for m in control.maps), noise.sum()).backward()
    return int(counter.get_total_flops())


if __name__ == "__main__":
    main(run)

"""Operations of an Infinity model set: pure, batched, named.

Each takes stacked tensors and answers with stacked tensors; no sample influences another, so the
gradient of summed losses is each sample's own. Only what is trained asks for a gradient: prompt
rows or adapters, never the frozen weights.

Static arguments: `schedule` (a name that the spec knows), `biases` (False drops those that the
released EditInfinity drops), `rank` of adapters.
"""

from collections.abc import Mapping
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from farm.backbones.infinity.cache import LayerCache, new_cache
from farm.backbones.infinity.generation import (
    Generation,
    Guidance,
    Keep,
    check_insertion,
    joined,
    source_log_odds,
)
from farm.backbones.infinity.lora import Dropout, Lora, LoraShape
from farm.backbones.infinity.loss import BitLoss, bit_loss
from farm.backbones.infinity.maps import attention_map
from farm.backbones.infinity.networks import InfinityNetworks
from farm.backbones.infinity.packing import pack_bits, unpack_bits
from farm.backbones.infinity.quantiser import (
    Quantised,
    accumulate,
    quantise,
    teacher_inputs,
    teacher_targets,
    to_cells,
)
from farm.backbones.infinity.sampling import Filter, KeyedNoise
from farm.backbones.infinity.schedules import Schedule
from farm.backbones.infinity.transformer import Conditioning, PassOptions
from farm.backbones.rows import Branches, State
from farm.calls import Batch, Midway, Operation, Static, Stepped, Tensors
from farm.errors import InvalidRequestError

Rows = Float[Tensor, "batch rows text_width"]


def embed_tokens(networks: InfinityNetworks, tensors: Tensors, static: Static) -> Batch:
    """Text rows of token `ids`, the end token's included."""
    del static
    with torch.no_grad():
        return Batch({"rows": networks.text(tensors["ids"])}, {"t5_forward": 1})


def encode(networks: InfinityNetworks, tensors: Tensors, static: Static) -> Batch:
    """Features of `image` in [0, 1], and their bits of all scales, packed."""
    schedule = _schedule(networks, static)
    image = tensors["image"]
    if tuple(image.shape[-2:]) != schedule.image_size:
        raise InvalidRequestError(
            f"found a picture of {tuple(image.shape[-2:])} pixels, expected {schedule.image_size} "
            f"for the schedule {schedule.name}: fit it first"
        )
    with torch.no_grad():
        features = networks.vae.encode(image)
        bits = quantise(features, schedule).bits
    return Batch({"features": features, "bits": pack_bits(bits)}, {"bsq_encode": 1})


def decode(networks: InfinityNetworks, tensors: Tensors, static: Static) -> Batch:
    """Pictures in [0, 1] of packed `bits`."""
    schedule = _schedule(networks, static)
    with torch.no_grad():
        codes = accumulate(_bits(networks, tensors["bits"], schedule), schedule).codes
        return Batch({"image": networks.vae.decode(codes)}, {"bsq_decode": 1})


def prompt_loss(networks: InfinityNetworks, tensors: Tensors, static: Static) -> Batch:
    """Loss of a training step of the `prompt` rows, which follow the text's, and its gradient."""
    with torch.enable_grad():
        prompt = tensors["prompt"].detach().requires_grad_()
        text = torch.cat([tensors["text"], prompt], dim=1)
        loss, found = _training_loss(networks, tensors, static, text, None)
        (gradient,) = torch.autograd.grad(loss.sum(), prompt)
    return _training_answer(loss, found, {"grad_prompt": gradient})


def lora_loss(networks: InfinityNetworks, tensors: Tensors, static: Static) -> Batch:
    """Loss of a training step of the adapters, given as one flat vector, and its gradient."""
    with torch.enable_grad():
        flat = tensors["lora"].detach().requires_grad_()
        rate = static.get("dropout", 0.0)
        assert isinstance(rate, float)
        dropout = Dropout(rate, tensors["dropout_seed"]) if rate > 0 else None
        lora = _lora(networks, tensors, static, flat, dropout)
        loss, found = _training_loss(networks, tensors, static, tensors["text"], lora)
        (gradient,) = torch.autograd.grad(loss.sum(), flat)
    return _training_answer(loss, found, {"grad_lora": gradient})


def bit_accuracy(networks: InfinityNetworks, tensors: Tensors, static: Static) -> Batch:
    """How well packed `bits` are foretold, scale by scale, each from the true ones before."""
    schedule = _schedule(networks, static)
    with torch.no_grad():
        quantised = accumulate(_bits(networks, tensors["bits"], schedule), schedule)
        options = _options(static, _given_lora(networks, tensors, static))
        found = _pass(networks, tensors["text"], quantised, schedule, options)
    return Batch(
        {"loss": found.weighted, "accuracy": found.accuracy, "by_scale": found.by_scale},
        {"infinity_forward": 1},
    )


def word_attention(networks: InfinityNetworks, tensors: Tensors, static: Static) -> Batch:
    """Where the text rows `span` are looked at while packed `bits` are foretold (spec §5.5).

    One pass without guidance: its inputs are the true bits, so it sees what every scale of a
    generation would see that is made to give those bits.
    """
    schedule = _schedule(networks, static)
    size = _map_size(static, schedule)
    span = tensors["span"] / tensors["span"].sum(1, keepdim=True)
    with torch.no_grad():
        quantised = accumulate(_bits(networks, tensors["bits"], schedule), schedule)
        options = replace(_options(static, None), watched=span[:, None])
        given = networks.transformer.condition(tensors["text"], biases=options.biases)
        inputs = teacher_inputs(quantised, schedule)
        _, shares = networks.transformer(given, inputs, schedule, options)
        assert shares is not None
        maps = attention_map(shares[:, 0], schedule, size)
    return Batch({"map": maps}, {"infinity_forward": 1})


def log_odds(networks: InfinityNetworks, tensors: Tensors, static: Static) -> Batch:
    """Log odds of a one with which `infinity.edit` would draw packed `bits`, under their own text.

    Taken with the same guidance, `insertion`, temperature, `negative` and adapters as that.
    """
    schedule = _schedule(networks, static)
    biases = _options(static, None).biases
    with torch.no_grad():
        given = networks.transformer.condition(tensors["text"], biases=biases)
        uncond = None
        if _guided(static):
            uncond = networks.transformer.condition(_negative(networks, tensors), biases=biases)
        odds = source_log_odds(
            networks.transformer,
            given,
            schedule,
            Guidance(
                uncond,
                tensors["guidance"],
                tensors["temperature"],
                _integer(static, "insertion", 0),
            ),
            _bits(networks, tensors["bits"], schedule),
            options=_options(static, _given_lora(networks, tensors, static)),
        )
    return Batch({"log_odds": odds}, {"infinity_forward": _copies(static)})


class Edit(Stepped):
    """A picture for the text that keeps the source where `weight` says so (spec §5.7).

    Weights of 0 everywhere keep nothing: plain text to image. Adapters are optional, and so are
    `negative`, the text that guidance leads away from, and `log_odds`, of `infinity.log_odds`: with
    them the picture is drawn with the noise that gives the source. A step is a scale: pictures of
    one kind that are at the same scale share a batch, and others' work comes between two scales.
    """

    def begin(self, networks: InfinityNetworks, tensors: Tensors, static: Static) -> Midway:
        schedule = _schedule(networks, static)
        check_insertion(networks.transformer, _integer(static, "insertion", 0))
        _bits(networks, tensors["bits"], schedule)  # refused now if it cannot be unpacked
        _given_lora(networks, tensors, static)
        _check_log_odds(networks, tensors, schedule)
        biases = _options(static, None).biases
        with torch.no_grad():
            text = networks.transformer.condition(tensors["text"], biases=biases)
            if _guided(static):
                negative = _negative(networks, tensors)
                text = joined(text, networks.transformer.condition(negative, biases=biases))
        kept = {n: t for n, t in tensors.items() if n not in ("text", "negative", "seed")}
        noise = KeyedNoise(tensors["seed"].tolist()).states
        state = {**kept, **_stored_text(text, _copies(static)), "noise": noise}
        return Midway(state, [0] * len(noise))

    def step(
        self, networks: InfinityNetworks, tensors: State, static: Static, phase: int
    ) -> Midway:
        scale, schedule = phase, _schedule(networks, static)
        cache = new_cache(schedule, networks.transformer.config.depth)
        if scale > 0:
            length = sum(schedule.lengths[:scale])
            cache = [
                LayerCache.resumed(
                    tensors[f"keys_{n}"].tensor, tensors[f"values_{n}"].tensor, length
                )
                for n in range(len(cache))
            ]
        noise = KeyedNoise.resumed(tensors["noise"])
        generation = _generation(networks, tensors, static)
        step, inputs = generation.step(
            scale, cache, noise, tensors.get("inputs"), tensors.get("total")
        )
        cells = to_cells(step.bits, schedule.grids[scale], schedule.cell)
        state = {**tensors, "noise": noise.states, "total": step.codes, f"cells_{scale}": cells}
        if inputs is None:
            return Midway(state, [None] * len(cells))
        state["inputs"] = inputs
        for number, layer in enumerate(cache):
            keys, values = (Branches(room, _copies(static)) for room in layer.room)
            state |= {f"keys_{number}": keys, f"values_{number}": values}
        return Midway(state, [scale + 1] * len(cells))

    def end(self, networks: InfinityNetworks, tensors: State, static: Static) -> Batch:
        scales = _schedule(networks, static).num_scales
        with torch.no_grad():
            image = networks.vae.decode(tensors["total"])
        bits = pack_bits([tensors[f"cells_{scale}"] for scale in range(scales)])
        work = {"infinity_forward": _copies(static), "bsq_decode": 1}
        return Batch({"image": image, "bits": bits}, work)


OPERATIONS: Mapping[str, Operation] = {
    "t5.embed_tokens": embed_tokens,
    "bsq.encode": encode,
    "bsq.decode": decode,
    "infinity.prompt_loss": prompt_loss,
    "infinity.lora_loss": lora_loss,
    "infinity.bit_accuracy": bit_accuracy,
    "infinity.word_attention": word_attention,
    "infinity.log_odds": log_odds,
    "infinity.edit": Edit(),
}


def _training_loss(
    networks: InfinityNetworks, tensors: Tensors, static: Static, text: Rows, lora: Lora | None
) -> tuple[Float[Tensor, " batch"], BitLoss]:
    """Cross-entropy with scales weighted, and a small divergence (spec §4, §5.3, §5.4)."""
    schedule = _schedule(networks, static)
    flips = _bits(networks, tensors["flips"], schedule)
    uncond = _unconditional(networks, text)
    text = torch.where(tensors["dropped"][:, None, None], uncond, text)
    options = _options(static, lora)
    options = replace(options, branch_scale=tensors["branch_scale"], recompute=networks.recompute)
    quantised = quantise(tensors["features"], schedule, flips)
    found = _pass(networks, text, quantised, schedule, options)
    return found.weighted + tensors["divergence_weight"] * found.divergence, found


def _training_answer(
    loss: Float[Tensor, " batch"], found: BitLoss, gradient: Mapping[str, Tensor]
) -> Batch:
    results = {
        "loss": loss,
        "weighted": found.weighted,
        "divergence": found.divergence,
        "accuracy": found.accuracy,
        **gradient,
    }
    return Batch(
        {name: tensor.detach() for name, tensor in results.items()},
        {"infinity_forward": 1, "infinity_backward": 1},
    )


def _pass(
    networks: InfinityNetworks,
    text: Rows,
    quantised: Quantised,
    schedule: Schedule,
    options: PassOptions,
) -> BitLoss:
    given = networks.transformer.condition(text, biases=options.biases)
    inputs = teacher_inputs(quantised, schedule)
    logits, _ = networks.transformer(given, inputs, schedule, options)
    return bit_loss(logits, teacher_targets(quantised, schedule), schedule)


def _schedule(networks: InfinityNetworks, static: Static) -> Schedule:
    return networks.spec.schedule(str(static["schedule"]))


def _bits(networks: InfinityNetworks, packed: Tensor, schedule: Schedule) -> tuple[Tensor, ...]:
    return unpack_bits(packed, schedule, networks.spec.latent_channels)


def _options(static: Static, lora: Lora | None) -> PassOptions:
    return PassOptions(biases=bool(static.get("biases", True)), lora=lora)


def _given_lora(networks: InfinityNetworks, tensors: State, static: Static) -> Lora | None:
    flat = tensors.get("lora")
    return None if flat is None else _lora(networks, tensors, static, flat, None)


def _lora(
    networks: InfinityNetworks,
    tensors: State,
    static: Static,
    flat: Float[Tensor, "batch numbers"],
    dropout: Dropout | None,
) -> Lora:
    config = networks.transformer.config
    shape = LoraShape(config.depth, config.width, config.hidden, _integer(static, "rank", 0))
    if flat.shape[1] != shape.size:
        raise InvalidRequestError(
            f"found adapters of {flat.shape[1]} numbers, expected {shape.size} of rank "
            f"{shape.rank}: train them for this model"
        )
    return Lora.unflatten(flat, shape, tensors["lora_scale"], dropout)


def _guided(static: Static) -> bool:
    return bool(static.get("guided", True))


def _copies(static: Static) -> int:
    """Of the batch: guidance computes each sample for the text and for the other one."""
    return 2 if _guided(static) else 1


def _stored_text(text: Conditioning, copies: int) -> dict[str, Branches]:
    """A text as the state of a stepped operation."""
    stored = {"pooled": text.pooled, "modulation": text.modulation}
    if text.present is not None:
        stored["present"] = text.present
    for number, (key, value) in enumerate(text.text):
        stored |= {f"text_key_{number}": key, f"text_value_{number}": value}
    return {name: Branches(tensor, copies) for name, tensor in stored.items()}


def _generation(networks: InfinityNetworks, state: State, static: Static) -> Generation:
    schedule = _schedule(networks, static)
    text = Conditioning(
        pooled=state["pooled"].tensor,
        modulation=state["modulation"].tensor,
        text=tuple(
            (state[f"text_key_{n}"].tensor, state[f"text_value_{n}"].tensor)
            for n in range(networks.transformer.config.depth)
        ),
        present=state["present"].tensor if "present" in state else None,
    )
    return Generation(
        networks.transformer,
        schedule,
        text,
        _guided(static),
        state["guidance"],
        state["temperature"],
        _integer(static, "insertion", 0),
        Filter(_integer(static, "top_k", 0), _number(static, "top_p", 0.0)),
        Keep(
            _bits(networks, state["bits"], schedule),
            state["weight"][:, None],
            state.get("log_odds"),
        ),
        _options(static, _given_lora(networks, state, static)),
    )


def _check_log_odds(networks: InfinityNetworks, tensors: Tensors, schedule: Schedule) -> None:
    odds = tensors.get("log_odds")
    expected = (schedule.num_tokens, networks.transformer.config.token_bits)
    if odds is not None and tuple(odds.shape[1:]) != expected:
        raise InvalidRequestError(
            f"found log odds of {tuple(odds.shape[1:])} bits, expected {expected}, tokens of the "
            f"schedule {schedule.name} and bits of each: take them from infinity.log_odds"
        )


def _negative(networks: InfinityNetworks, tensors: Tensors) -> Rows:
    given = tensors.get("negative")
    if given is not None:
        return given
    return _unconditional(networks, tensors["text"]).expand(len(tensors["text"]), -1, -1)


def _unconditional(networks: InfinityNetworks, text: Rows) -> Float[Tensor, "rows text_width"]:
    rows, most = text.shape[1], networks.transformer.config.text_rows
    if rows > most:
        raise InvalidRequestError(
            f"found {rows} text rows, learned ones included, and the model takes {most}: shorten "
            "the prompt"
        )
    return networks.transformer.unconditional(rows)


def _map_size(static: Static, schedule: Schedule) -> tuple[int, int]:
    height, width = schedule.grids[-1]
    return _integer(static, "map_height", height), _integer(static, "map_width", width)


def _integer(static: Static, name: str, default: int) -> int:
    value = static.get(name, default)
    assert isinstance(value, int)
    return value


def _number(static: Static, name: str, default: float) -> float:
    value = static.get(name, default)
    assert isinstance(value, float)
    return value

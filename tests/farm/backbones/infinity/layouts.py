"""Our tiny networks in the layouts of the released files."""

import json

import torch
from safetensors.torch import save_file

from tests.tiny_infinity import CONFIG, tiny_transformer, tiny_vae


def released_transformer(chunks=1):
    """A state dict as released: blocks in chunks, buffers of zeros, keys that nothing reads."""
    per_chunk = CONFIG.depth // chunks
    state = {}
    for name, tensor in tiny_transformer().state_dict().items():
        parts = name.split(".")
        if parts[0] == "blocks":
            number = int(parts[1])
            chunk, place = number // per_chunk, number % per_chunk
            parts = ["block_chunks", str(chunk), "module", str(place), *parts[2:]]
        state[".".join(parts)] = tensor.clone()
        if name.endswith("v_bias"):
            zero = ".".join([*parts[:-1], "zero_k_bias"])
            state[zero] = torch.zeros_like(tensor)
    state["lvl_1L"] = torch.zeros(1, 7)
    state["attn_bias_for_masking"] = torch.zeros(1, 1, 7, 7)
    return state


def released_vae(*, short=False):
    """A state dict as released, with its unused masks; `short` leaves the inner names out."""
    state = {n: t.clone() for n, t in tiny_vae().state_dict().items()}
    if short:
        state = {n.replace(".norm.", ".").replace(".conv.", ".", 1): t for n, t in state.items()}
    return state | {
        "quantizer.lfq.mask": torch.tensor([1, 2]),
        "quantize.lfq.mask": torch.tensor(1),
    }


def write_shards(state, folder, count=2):
    """Shards with an index."""
    folder.mkdir(parents=True)
    names = list(state)
    places = {}
    for shard in range(count):
        file = f"model-{shard + 1:05d}-of-{count:05d}.safetensors"
        mine = {n: state[n].contiguous() for n in names[shard::count]}
        save_file(mine, folder / file)
        places |= dict.fromkeys(mine, file)
    index = {"metadata": {}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))

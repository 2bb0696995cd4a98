"""Requests that nobody should send, drawn from a seed: pictures, forms, JSON, ids, heads."""

import json
import random
from collections.abc import Iterator
from typing import Any

import torch

from farm.images import encode_jpeg, encode_png, encode_webp
from tests.serve.conftest import PICTURE, WORDS

_FIELDS = (
    *("source_prompt", "target_prompt", "target_word", "method", "seed", "model_set", "priority"),
    *("deterministic", "id", "user", "webhook_url", "parameters", "image", "prompt", "n", "size"),
    *("response_format", "output_format", "output_compression", "stream", "mask", "model", "job"),
)
_PARAMETERS = (
    *("num_steps", "inner_steps", "tau_v", "tau_c", "tau_s", "tau_u", "edit_type", "equalizer"),
    *("cross_windows", "local_blend", "blend_pool", "source_words", "further_targets", "learned"),
    *("anchornet", "point_number", "window_step", "aspect_ratios", "template", "quirks", "epochs"),
)
_PATHS = (
    *("/v1/edits", "/v1/images/edits", "/v1/jobs", "/v1/models", "/v1/uploads", "/healthz"),
    *("/v1/edits/{id}", "/v1/edits/{id}/events", "/v1/edits/{id}/result", "/v1/edits/{id}/cancel"),
    *("/v1/edits/{id}/outputs/{id}", "/v1/jobs/{id}", "/v1/links/{id}/{id}", "/v1/models/{id}"),
    *(
        "/v1/edits/{id}/image",
        "/v1/edits/{id}/preview",
        "/v1/edits/{id}/retry",
        "/v1/jobs/{id}/cancel",
        "/v1/edits/{id}/outputs/{id}/link",
    ),
)
_TEXTS = (
    *(
        "",
        " ",
        "a red ball",
        "a blue ball",
        "\x00",
        "\ud7ff",
        "😀" * 50,
        "a" * 5000,
        "../..",
        "null",
    ),
    *("true", "-1", "0", "1e400", "9" * 400, "[]", "{}", "generated:", "file:///etc/passwd"),
    *(
        "photos://../x",
        "photos://ball.png",
        "inputs/" + "0" * 64,
        "http://[::1",
        "%00",
        "%2e%2e%2f",
    ),
    *("style_diffusion", "learnable_regions", "ball", "e" + "0" * 27, "j" + "f" * 27, "'\"<>&;"),
)
_IDS = (
    *("e" + "0" * 27,) * 5,
    *("j" + "0" * 27, "%2e%2e", "x" * 300, "a b", "%ff", "é", "edited.png"),
)


def requests(seed: int, count: int) -> Iterator[dict[str, Any]]:
    """Arguments of `client.request`."""
    draw = random.Random(seed)
    pictures = _pictures()
    for _ in range(count):
        kind = draw.choice((_form, _form, _json, _openai, _path, _manifest))
        yield kind(draw, pictures)


def _pictures() -> list[bytes]:
    image = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(1))
    alpha = torch.rand(1, 16, 16, generator=torch.Generator().manual_seed(2))
    return [
        PICTURE,
        encode_png(image, alpha=alpha),
        encode_jpeg(image),
        encode_webp(image, alpha=alpha),
        encode_png(image[:1]),
    ]


def _picture(draw: random.Random, pictures: list[bytes]) -> bytes:
    """A whole picture now and then; mostly one with some bytes changed, cut out or put in."""
    data = bytearray(draw.choice(pictures))
    for _ in range(draw.choice((0, 0, 0, 0, 1, 2, 8, 64))):
        place = draw.randrange(len(data) + 1)
        match draw.randrange(4):
            case 0 if place < len(data):
                data[place] = draw.randrange(256)
            case 1:
                del data[place : place + draw.choice((1, 4, 100))]
            case 2:
                data[place:place] = draw.randbytes(draw.choice((1, 4, 100)))
            case _:
                data[8:40] = draw.randbytes(32)
    return bytes(data[: draw.choice((None,) * 8 + (10, 60))])


def _value(draw: random.Random, depth: int = 0) -> Any:
    match draw.randrange(8):
        case 0:
            return draw.choice((None, True, False))
        case 1:
            return draw.choice((0, 1, -1, 3, 2**31, 2**63, 10**30))
        case 2:
            return draw.choice((0.0, 0.5, 1.0, -0.1, 1e308, 5e-324))
        case 3 if depth < 3:
            return [_value(draw, depth + 1) for _ in range(draw.randrange(4))]
        case 4 if depth < 3:
            return {_text(draw): _value(draw, depth + 1) for _ in range(draw.randrange(4))}
        case _:
            return _text(draw)


def _text(draw: random.Random) -> str:
    if draw.random() < 0.7:
        return draw.choice(_TEXTS)
    return "".join(
        chr(draw.choice((draw.randrange(128), draw.randrange(0xD800)))) for _ in range(9)
    )


def _parameters(draw: random.Random) -> dict[str, Any]:
    found = {"num_steps": 2, "inner_steps": 1}
    return found | {
        draw.choice(_PARAMETERS): _value(draw) for _ in range(draw.choice((0, 0, 1, 2)))
    }


def _headers(draw: random.Random) -> dict[str, str]:
    names = ("prefer", "idempotency-key", "x-request-id", "authorization", "range", "accept")
    values = ("wait=0", "wait=x", "respond-async", "a" * 300, "k", "Bearer ef_", "bytes=0-", "")
    return {draw.choice(names): draw.choice(values) for _ in range(draw.randrange(3))}


def _form(draw: random.Random, pictures: list[bytes]) -> dict[str, Any]:
    fields = {**WORDS, "parameters": json.dumps(_parameters(draw))}
    fields |= {draw.choice(_FIELDS): _text(draw) for _ in range(draw.choice((0, 0, 1, 2)))}
    name = draw.choice(("image", "image", "image", "image[]", "mask", "parameters"))
    files = {name: (_text(draw)[:50] or "a", _picture(draw, pictures), "image/png")}
    if draw.random() < 0.3:  # the one method that takes a mask, and the others
        fields["method"] = draw.choice(("edit_infinity", "edit_infinity", "style_diffusion"))
        fields["mask_edits"] = draw.choice(("white", "black", "grey"))
        files["mask"] = ("m.png", _picture(draw, pictures), "image/png")
    return {
        "method": "POST",
        "url": "/v1/edits",
        "data": fields,
        "files": files,
        "headers": _headers(draw),
    }


def _openai(draw: random.Random, pictures: list[bytes]) -> dict[str, Any]:
    form = _form(draw, pictures)
    form["url"] = "/v1/images/edits"
    form["data"] = {**form["data"], "prompt": "a blue ball"}
    if draw.random() < 0.8:
        del form["data"]["target_prompt"]
    if draw.random() < 0.3:
        form["files"]["mask"] = ("m.png", _picture(draw, pictures), "image/png")
    return form


def _json(draw: random.Random, pictures: list[bytes]) -> dict[str, Any]:
    del pictures
    fields: dict[str, Any] = {**WORDS, "image": _text(draw), "parameters": _parameters(draw)}
    fields |= {draw.choice(_FIELDS): _value(draw) for _ in range(draw.randrange(3))}
    body = json.dumps(fields).encode()
    if draw.random() < 0.2:
        body = body[: draw.randrange(len(body))] + draw.randbytes(draw.randrange(4))
    url = draw.choice(("/v1/edits", "/v1/jobs"))
    headers = {**_headers(draw), "content-type": "application/json"}
    return {"method": "POST", "url": url, "content": body, "headers": headers}


def _manifest(draw: random.Random, pictures: list[bytes]) -> dict[str, Any]:
    del pictures
    lines = [json.dumps({**WORDS, "image": _text(draw), "parameters": _parameters(draw)})]
    lines += [_text(draw).replace("\n", " ") for _ in range(draw.randrange(4))]
    draw.shuffle(lines)
    fields = {"manifest": "photos://fuzz.jsonl", "max_in_flight": draw.choice((1, 8, 64))}
    return {
        "method": "POST",
        "url": "/v1/jobs",
        "json": fields,
        "manifest": "\n".join(lines).encode("utf-8", "replace"),
    }


def _path(draw: random.Random, pictures: list[bytes]) -> dict[str, Any]:
    del pictures
    url = draw.choice(_PATHS)
    while "{id}" in url:
        name = draw.choice(_IDS)
        url = url.replace("{id}", name, 1)
    query = {draw.choice(("after", "limit", "state", "job", "expires")): _text(draw)[:100]}
    method = draw.choice(("GET",) * 6 + ("POST", "POST", "DELETE", "PUT", "PATCH", "HEAD"))
    return {"method": method, "url": url, "params": query, "headers": _headers(draw)}

"""What a visitor asks for, and the same as a command, a curl line and a Python script."""

import json
import shlex
from dataclasses import dataclass
from typing import Any

from serve.studio.client import Submission

_TAKE_MASKS = ("edit_infinity",)


@dataclass(frozen=True)
class Wish:
    """An edit as the page's form says it.

    Attributes:
        picture: its bytes.
        source_prompt: what it shows.
        target_prompt: what it shall show.
        word: what is new, or for EditInfinity what goes; may be empty.
        method: a name of `farm.requests.METHODS`.
        seed: of everything random.
        parameters: of the method, those that are set.
        mask: PNG of the picture's size, white where it may change.
    """

    picture: bytes
    source_prompt: str
    target_prompt: str
    word: str
    method: str
    seed: int
    parameters: dict[str, Any]
    mask: bytes | None

    @property
    def takes_mask(self) -> bool:
        """Whether the method itself is given the mask; otherwise it is applied to the result."""
        return self.method in _TAKE_MASKS

    def submission(self) -> Submission:
        """The form that is posted."""
        return Submission(
            self.picture, form_fields(self.request()), self.mask if self.takes_mask else None
        )

    def request(self) -> dict[str, Any]:
        """The same in the words of an edit's record."""
        fields: dict[str, Any] = {
            "source_prompt": self.source_prompt,
            "target_prompt": self.target_prompt,
            "method": self.method,
            "seed": self.seed,
        }
        if self.word:
            fields["target_word"] = self.word
        if self.parameters:
            fields["parameters"] = self.parameters
        return fields


def form_fields(request: dict[str, Any]) -> dict[str, str]:
    """Fields of `POST /v1/edits` for a request."""
    given = _given(request)
    parameters = given.pop("parameters", {})
    fields = {name: str(value) for name, value in given.items()}
    return fields | ({"parameters": json.dumps(parameters)} if parameters else {})


def as_curl(request: dict[str, Any], url: str, *, with_key: bool) -> str:
    """Lines for a shell."""
    parts = [f"curl -s --fail-with-body {url}/v1/edits -H 'Prefer: wait=120'"]
    if with_key:
        parts.append('-H "Authorization: Bearer $EDITFARM_KEY"')
    parts.append("-F image=@picture.png")
    parts += [_curl_field(name, value) for name, value in form_fields(request).items()]
    return " \\\n  ".join(parts)


def as_python(request: dict[str, Any], url: str, *, with_key: bool) -> str:
    """A script with OpenAI's client."""
    given = _given(request)
    prompt, method = given.pop("target_prompt"), given.pop("method")
    key = 'os.environ["EDITFARM_KEY"]' if with_key else '"none"'
    extra = json.dumps(given, indent=4, ensure_ascii=False)
    extra = extra.replace(": true", ": True").replace(": false", ": False")
    return (
        f"import base64\n{'import os' + chr(10) if with_key else ''}from openai import OpenAI\n\n"
        f'client = OpenAI(base_url="{url}/v1", api_key={key})\n'
        "result = client.images.edit(\n"
        '    image=open("picture.png", "rb"),\n'
        f"    prompt={prompt!r},\n"
        f'    model="{method}",\n'
        f"    extra_body={_indented(extra)},\n"
        ")\n"
        'open("edited.png", "wb").write(base64.b64decode(result.data[0].b64_json))\n'
    )


def as_command(request: dict[str, Any]) -> str:
    """The same on this machine's command line."""
    given = _given(request)
    parts = ["editfarm edit --image picture.png"]
    parts.append(f"--source {shlex.quote(given['source_prompt'])}")
    parts.append(f"--target {shlex.quote(given['target_prompt'])}")
    if "target_word" in given:
        parts.append(f"--word {shlex.quote(given['target_word'])}")
    parts.append(f"--method {given['method']} --seed {given['seed']}")
    for name, value in given.get("parameters", {}).items():
        text = value if isinstance(value, str) else json.dumps(value)
        parts.append(f"--param {shlex.quote(f'{name}={text}')}")
    parts.append("--output edited.png")
    return " \\\n  ".join(parts)


def _given(request: dict[str, Any]) -> dict[str, Any]:
    """What determines the edit, of a form's request or a record's."""
    names = ("source_prompt", "target_prompt", "target_word", "method", "seed", "parameters")
    found = {name: request[name] for name in names if request.get(name) not in (None, {})}
    return {"method": "style_diffusion", "seed": 0} | found


def _curl_field(name: str, value: str) -> str:
    # --form-string: a prompt that begins with @ or < is no file
    kind = "--form-string" if value[:1] in {"@", "<"} or ";" in value else "-F"
    return f"{kind} {shlex.quote(f'{name}={value}')}"


def _indented(text: str) -> str:
    return text.replace("\n", "\n    ")

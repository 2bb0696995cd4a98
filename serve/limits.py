"""What one request and one tenant may ask for; what is beyond is refused before it costs much."""

import unicodedata
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from farm.errors import InvalidRequestError
from farm.images import ImageLimits
from farm.requests import AutoRequest, EditRequest
from farm.runner.auto import request_of

Positive = Annotated[int, Field(gt=0)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RequestLimits(_Strict):
    """Of one request, whoever sends it."""

    max_body_bytes: Positive = 24 * 2**20
    max_json_bytes: Positive = 256 * 2**10
    max_image_bytes: Positive = 16 * 2**20
    max_pixels: Positive = 12_582_912
    max_side: Positive = 8192
    max_headers: Positive = 64
    max_header_bytes: Positive = 16 * 2**10
    max_form_files: Positive = 4
    max_form_fields: Positive = 48
    max_form_field_bytes: Positive = 64 * 2**10
    max_prompt_characters: Positive = 1000
    max_steps: Positive = 500
    """Of each parameter that counts steps or iterations."""
    max_edits: Positive = 16
    """In one request: targets times combinations of parameters, or OpenAI's `n`."""
    max_wait_seconds: Positive = 120
    """Of `Prefer: wait`."""
    max_manifest_bytes: Positive = 64 * 2**20
    """Of a job's lines."""
    max_listeners: Positive = 1000
    """Event streams that one replica has open; a tenant may have half of them."""

    @property
    def images(self) -> ImageLimits:
        """The same for `farm.images`."""
        return ImageLimits(
            max_bytes=self.max_image_bytes, max_pixels=self.max_pixels, max_side=self.max_side
        )


class TenantLimits(_Strict):
    """Of one tenant; None is no limit."""

    edits_per_minute: Positive | None = 600
    max_queued: Positive | None = 1000
    """Edits accepted and not finished."""
    max_running: Positive | None = None
    """Edits that run at once; further ones wait."""
    max_jobs: Positive | None = 16
    """Jobs accepted and not finished."""
    pixels_per_minute: Positive | None = None
    max_stored_bytes: Positive | None = None
    """Images handed in and outputs, as the records count them."""


def check_request(request: EditRequest, limits: RequestLimits) -> None:
    """Refuse what HTTP does not offer: long prompts, many steps, paths of this machine.

    Raises:
        InvalidRequestError: saying which field, what was found and what is possible.
    """
    for name in ("source_prompt", "target_prompt"):
        length = len(getattr(request, name))
        if length > limits.max_prompt_characters:
            raise InvalidRequestError(
                f"{name} has {length:,} characters, at most {limits.max_prompt_characters:,} are "
                "possible here; shorten it"
            )
        if any(unicodedata.category(letter) in {"Cc", "Cs"} for letter in getattr(request, name)):
            raise InvalidRequestError(f"{name} has a control character; remove it")
    _check_parameters(request, limits, "parameters")
    if isinstance(request, AutoRequest):
        _check_settings(request, limits)


def _check_settings(request: AutoRequest, limits: RequestLimits) -> None:
    """The same for the parameters of single methods, among which `auto` chooses."""
    for method in request.parameters.settings:
        try:
            single = request_of(method, request, {})
        except InvalidRequestError:
            continue  # a method that does not take its settings is no choice, and never runs
        _check_parameters(single, limits, f"parameters.settings.{method}")


def _check_parameters(request: EditRequest, limits: RequestLimits, where: str) -> None:
    parameters = request.parameters.model_dump(exclude_none=True)
    if "anchornet" in parameters:
        raise InvalidRequestError(
            f"{where}.anchornet names a file, which is not possible over HTTP; leave it out"
        )
    for name, value in parameters.items():
        if _counts_steps(name) and value > limits.max_steps:
            raise InvalidRequestError(
                f"{where}.{name} is {value:,}, at most {limits.max_steps:,} is possible here"
            )
    edits = getattr(request.parameters, "num_cells", 1)
    if edits > limits.max_edits:
        raise InvalidRequestError(
            f"{edits} edits in one request, at most {limits.max_edits} are possible; shorten lists"
        )


def _counts_steps(name: str) -> bool:
    return name.endswith(("_steps", "_iter", "_iteration")) or name in {"epochs", "finalists"}

"""Arms: ways to do the same edits, compared pair by pair in one run."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from farm.errors import InvalidRequestError
from farm.requests import METHODS
from jobs.edit import parse_parameter
from jobs.evaluation.baselines import BASELINES

DEFAULT_ARM = "default"
_FORM = re.compile(r"[a-z0-9][a-z0-9_.-]{0,39}")
_NEXT = re.compile(r",(?=[a-z_]+=)")  # a value may hold commas of its own


@dataclass(frozen=True)
class Arm:
    """A method with some of its parameters set.

    Attributes:
        name: in tables and JSON.
        method: one of `farm.requests.METHODS`, or of `jobs.evaluation.baselines.BASELINES`.
        parameters: of the method; the rest is the model set's default.
    """

    name: str
    method: str
    parameters: dict[str, Any] = field(default_factory=dict[str, Any])


def plan_arms(method: str, parameters: dict[str, Any], texts: Sequence[str]) -> list[Arm]:
    """The default arm, then one for each text.

    Args:
        method: of all arms that name no other.
        parameters: of the default arm, and of the others of its method where they do not differ.
        texts: see `parse_arm`.

    Raises:
        InvalidRequestError: there is no such method, a text is not in the form, or a name is twice.
    """
    _check_method(method, METHODS)
    default = Arm(DEFAULT_ARM, method, parameters)
    arms = [default, *(parse_arm(text, default) for text in texts)]
    names = [arm.name for arm in arms]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise InvalidRequestError(
            f"--arm: {', '.join(sorted(twice))} is there twice (the run without --arm is called "
            f"{DEFAULT_ARM}): give each arm a name of its own"
        )
    return arms


def parse_arm(text: str, default: Arm) -> Arm:
    """`NAME:parameter=value,parameter=value`; `method=…` among them takes another method.

    An arm of the default's method starts from the default's parameters.

    Raises:
        InvalidRequestError: there is no such method, or the text is not in the form.
    """
    name, colon, rest = text.partition(":")
    if not colon or _FORM.fullmatch(name) is None:
        raise InvalidRequestError(
            f"--arm {text!r}: write NAME:PARAMETER=VALUE,PARAMETER=VALUE, for example "
            "plain:learned=nothing"
        )
    given = dict(parse_parameter(part) for part in _NEXT.split(rest) if part)
    method = str(given.pop("method", default.method))
    _check_method(method, (*METHODS, *BASELINES))
    kept = default.parameters if method == default.method else {}
    return Arm(name, method, {**kept, **given})


def _check_method(method: str, known: Sequence[str]) -> None:
    if method not in known:
        raise InvalidRequestError(f"no method {method!r}; there are {', '.join(known)}")

"""Arms: ways to do the same edits, compared pair by pair in one run."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from farm.errors import InvalidRequestError
from farm.requests import METHODS
from jobs.edit import parse_parameter
from jobs.evaluation.baselines import BASELINES
from jobs.evaluation.standard import STANDARD

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


def plan_arms(
    methods: Sequence[str],
    parameters: dict[str, Any],
    texts: Sequence[str],
    *,
    standard: bool = False,
) -> list[Arm]:
    """The default arm, one for each further method, those that they are compared with, and texts.

    Args:
        methods: the first is that of the default arm, and of all arms that name no other.
        parameters: of the default arm, and of the others of its method where they do not differ.
        texts: see `parse_arm`.
        standard: whether every method's own `STANDARD` arms are run, too.

    Raises:
        InvalidRequestError: there is no such method, a text is not in the form, or a name is twice.
    """
    for method in methods:
        _check_method(method, METHODS)
    first, *others = methods
    default = Arm(DEFAULT_ARM, first, parameters)
    further = [Arm(method, method) for method in others]
    compared = [
        parse_arm(text, arm)
        for arm in (default, *further)
        for text in (STANDARD.get(arm.method, ()) if standard else ())
    ]
    arms = [default, *further, *compared, *(parse_arm(text, default) for text in texts)]
    names = [arm.name for arm in arms]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise InvalidRequestError(
            f"--method, --arm: {', '.join(sorted(twice))} is there twice (the first method's run "
            f"is called {DEFAULT_ARM}): give each arm a name of its own"
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

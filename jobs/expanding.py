"""Several edits of one line: more seeds (`--variations`), other methods (`--compare`)."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from farm.errors import InvalidManifestError, InvalidRequestError
from farm.requests import EditRequest, parse_request
from jobs.manifests import BrokenLine, Line, ManifestLine

_COMMON = {
    *("id", "image", "source_prompt", "target_prompt", "target_word"),
    *("seed", "model_set", "priority", "deterministic"),
}
"""What a request of any method may say."""


def expand(lines: Iterable[Line], variations: int, methods: Sequence[str]) -> Iterator[Line]:
    """Each line for each method and, of each, with as many seeds; in the order of the lines.

    Args:
        lines: of a manifest.
        variations: seeds of each edit: the line's own and those after it.
        methods: to compare; none for the line's own. A line's parameters are those of its method,
            another method has its defaults.
    """
    for line in lines:
        if isinstance(line, BrokenLine) or (variations == 1 and not methods):
            yield line
        else:
            yield from _variants(line, variations, methods)


def _variants(line: ManifestLine, variations: int, methods: Sequence[str]) -> Iterator[Line]:
    number = 0
    for method in methods or [line.request.method]:
        name = f"{line.name}-{method}" if len(methods) > 1 else line.name
        for step in range(variations):
            full = f"{name}-v{step + 1}" if variations > 1 else name
            try:
                request = _request(line.request, method, line.request.seed + step)
            except InvalidRequestError as error:
                place = line.place or f"line {line.number}"
                problem = InvalidManifestError(f"{place}, as {method}: {error.message}")
                yield BrokenLine(line.number, full, problem, number)
            else:
                yield replace(line, name=full, request=request, variant=number)
            number += 1


def _request(request: EditRequest, method: str, seed: int) -> EditRequest:
    fields = request.model_dump(mode="json", exclude_unset=True) | {"seed": seed}
    if method != request.method:
        fields = {name: value for name, value in fields.items() if name in _COMMON}
    return parse_request(fields | {"method": method})

"""The CSV files of StyleDiffusion's program (seed 004; spec §7, "CLI") as requests.

| file | columns |
|---|---|
| prompts (training) | case_number, prompt, image_path |
| editing | these and target, blend_word, eq_params, tau_v, tau_c, tau_s, tau_u, edit_type |

A first unnamed column, `url` and other columns are passed over. The files for one word have the
same columns. Relative images are looked for beside the file, in the folder above it (the program's
root, whose `data` holds the files) and where the command runs. docs/style_diffusion.md says what
becomes of each of the program's parameters.
"""

import string
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from os.path import relpath
from pathlib import Path
from typing import Any

from farm.errors import InvalidManifestError, InvalidRequestError
from farm.requests import parse_request
from jobs.importers.csv_rows import Row, read_rows
from jobs.importers.literals import is_number, listed, literal
from jobs.importers.options import ImportOptions
from jobs.manifests import BrokenLine, Line, ManifestLine

_EDITING = ("target", "blend_word", "eq_params", "tau_v", "tau_c", "tau_s", "tau_u", "edit_type")
_STORE = "StoreAttn"
_EDIT_TYPES: Mapping[str, str | None] = {
    "Replacement": "replace",
    "Refinement": "refine",
    _STORE: None,
}
_CASE = "a whole number such as 1"
_PROMPT = "what the picture shows, in words"
_TARGET = "what the picture shall show, in words"
_IMAGE = "the path of a picture"
_BLEND = "None or a word of each prompt such as [('dog',), ('tiger',)]"
_EQUALIZER = "None or words and their factors such as [('tiger',), (2,)]"
_SHARES = "a list of numbers from 0 to 1 such as [.6,]"
_WINDOWS = f"{_SHARES}, or of windows such as [(.2, .8)]"
_WORD_WINDOWS = f"{_WINDOWS}, or one dict of words such as [{{'default_': .8, 'tiger': .4}}]"
_DEFAULT = "default_"


def read_style_diffusion(path: Path, options: ImportOptions) -> Iterator[Line]:
    """All rows whose case counts, in order; one at a time in memory.

    A row that cannot be read is a broken line that names row, column, what was found and what is
    expected. Several values of a tau become one request whose edits are all combinations.

    Raises:
        InvalidManifestError: the file cannot be read or has no header.
    """
    names = _Names()
    for row in read_rows(path):
        name = f"row-{row.number}"
        try:
            case = _case(row)
            if not options.counts(case):
                continue
            name = names.new(case)
            yield _line(row, name, path, options)
        except InvalidManifestError as error:
            yield BrokenLine(row.line, name, error)


@dataclass
class _Names:
    """Names of edits from case numbers, which several rows may share."""

    counts: dict[int, int] = field(default_factory=dict[int, int])

    def new(self, case: int) -> str:
        count = self.counts[case] = self.counts.get(case, 0) + 1
        return f"case-{case}" if count == 1 else f"case-{case}-{count}"


def _line(row: Row, name: str, path: Path, options: ImportOptions) -> ManifestLine:
    prompt = _text(row, "prompt", _PROMPT)
    fields: dict[str, Any] = {
        "id": name,
        "method": "style_diffusion",
        "model_set": options.model_set,
        "image": _image(row, path),
        "source_prompt": prompt,
    }
    is_edit = any(column in row.columns for column in _EDITING)
    fields |= _edit(row, prompt) if is_edit else _reconstruction(prompt)
    fields["parameters"] = {**options.parameters, **fields["parameters"]}
    try:
        request = parse_request(fields)
    except InvalidRequestError as error:
        raise InvalidManifestError(f"{row.place}: {error.message}") from error
    return ManifestLine(row.line, name, request, None, row.place)


def _edit(row: Row, prompt: str) -> dict[str, Any]:
    """What an editing row asks for, in the fields of a request."""
    expected = f"one of {', '.join(_EDIT_TYPES)}"
    edit_type = row.cell("edit_type", expected).strip()
    if edit_type not in _EDIT_TYPES:
        raise row.wrong("edit_type", repr(edit_type), expected)
    if edit_type == _STORE:
        return _reconstruction(prompt)
    target = _text(row, "target", _TARGET)
    blend = _blend_words(row, prompt, target)
    equalizer = _equalizer(row, target)
    tau_c, windows = _cross_windows(row, target)
    taus = {
        "tau_v": _taus(row, "tau_v", _SHARES, windows=False),
        "tau_c": tau_c,
        "tau_s": _taus(row, "tau_s", _WINDOWS),
        "tau_u": _taus(row, "tau_u", _WINDOWS),
    }
    parameters = {"edit_type": _EDIT_TYPES[edit_type], **taus, "local_blend": blend is not None}
    if blend is not None:
        parameters["source_words"], parameters["target_words"] = blend
    if equalizer:
        parameters["equalizer"] = equalizer
    if windows:
        parameters["cross_windows"] = windows
    return {"target_prompt": target, "parameters": parameters}


def _reconstruction(prompt: str) -> dict[str, Any]:
    """Training alone, or the program's StoreAttn: the picture again, from its learned values.

    The prompt does not change, and its first word is weighed by 1, which changes nothing either.
    """
    return {
        "target_prompt": prompt,
        "parameters": {
            "equalizer": {prompt.split()[0]: 1.0},
            "tau_v": 1.0,
            "tau_c": 0.0,
            "tau_s": 0.0,
            "tau_u": 0.0,
            "local_blend": False,
        },
    }


def _case(row: Row) -> int:
    text = row.cell("case_number", _CASE).strip().removesuffix(".0")  # spreadsheets write 1.0
    if not (text.isascii() and text.isdigit() and len(text) <= 12):
        raise row.wrong("case_number", repr(text[:80]), _CASE)
    return int(text)


def _text(row: Row, column: str, expected: str) -> str:
    text = row.cell(column, expected).strip()
    if not text:
        raise row.wrong(column, "an empty cell", expected)
    return text


def _image(row: Row, path: Path) -> str:
    """The picture's path relative to the file's folder, or absolute as it was given."""
    name = _text(row, "image_path", _IMAGE)
    given = Path(name)
    if given.is_absolute():
        return name
    folders = dict.fromkeys(f.resolve() for f in (path.parent, path.parent / "..", Path()))
    for folder in folders:
        if (folder / given).is_file():
            return relpath(folder / given, path.parent.resolve())
    looked = ", ".join(map(str, folders))
    raise row.wrong("image_path", repr(name), f"{_IMAGE} in one of {looked}")


def _blend_words(row: Row, prompt: str, target: str) -> tuple[list[str], list[str]] | None:
    """Words of the source and of the target that the local blend follows, or no blend."""
    if not row.cell("blend_word", _BLEND).strip():
        return None
    value = literal(row, "blend_word", _BLEND)
    if value is None:
        return None
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise row.wrong("blend_word", repr(value)[:80], _BLEND)
    source, new = (_words(row, "blend_word", part, _BLEND) for part in value)
    for words, text in ((source, prompt), (new, target)):
        _check_words(row, "blend_word", words, text)
    return source, new


def _equalizer(row: Row, target: str) -> dict[str, float]:
    """Factors by word of the target."""
    if not row.cell("eq_params", _EQUALIZER).strip():
        return {}
    value = literal(row, "eq_params", _EQUALIZER)
    if value is None:
        return {}
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise row.wrong("eq_params", repr(value)[:80], _EQUALIZER)
    words, factors = _words(row, "eq_params", value[0], _EQUALIZER), listed(value[1])
    if not all(is_number(factor) for factor in factors):
        raise row.wrong("eq_params", f"factors {value[1]!r:.80}", _EQUALIZER)
    if len(words) != len(factors) or len(set(words)) != len(words):
        found = f"{len(words)} words and {len(factors)} factors ({value!r:.80})"
        raise row.wrong("eq_params", found, "one factor for each word, each word once")
    _check_words(row, "eq_params", words, target)
    return {word: float(factor) for word, factor in zip(words, factors, strict=True)}


def _words(row: Row, column: str, value: Any, expected: str) -> list[str]:
    words = listed(value)
    if not words or not all(isinstance(word, str) and word.strip() for word in words):
        raise row.wrong(column, repr(value)[:80], expected)
    return [word.strip() for word in words]


def _check_words(row: Row, column: str, words: list[str], prompt: str) -> None:
    """Each word, or words in a row, must be in its prompt, in any case and punctuation."""
    known = [_plain(word) for word in prompt.split()]
    for word in words:
        parts = [_plain(part) for part in word.split()]
        starts = range(len(known) - len(parts) + 1)
        if any(parts) and not any(known[n : n + len(parts)] == parts for n in starts):
            raise row.wrong(column, repr(word), f"words of the prompt {prompt!r}")


def _plain(word: str) -> str:
    return word.casefold().strip(string.punctuation)


def _cross_windows(row: Row, target: str) -> tuple[Any, dict[str, Any]]:
    """tau_c, and windows of words of their own where it is a dict of them."""
    value = literal(row, "tau_c", _WORD_WINDOWS)
    values = listed(value)
    if not any(isinstance(item, dict) for item in values):
        return _taus(row, "tau_c", _WORD_WINDOWS), {}
    if len(values) != 1:
        raise row.wrong("tau_c", repr(value)[:80], f"{_WORD_WINDOWS}; write a row for each dict")
    given = values[0]
    if not all(isinstance(word, str) for word in given):
        raise row.wrong("tau_c", repr(value)[:80], _WORD_WINDOWS)
    windows = {word: _window(row, "tau_c", item, _WORD_WINDOWS) for word, item in given.items()}
    default = windows.pop(_DEFAULT, 1.0)  # as the program: without a default, all steps
    _check_words(row, "tau_c", list(windows), target)
    return default, windows


def _taus(row: Row, column: str, expected: str, *, windows: bool = True) -> Any:
    """One value of a tau, or a list of several."""
    value = literal(row, column, expected)
    values = listed(value)
    if not values:
        raise row.wrong(column, "an empty list", expected)
    found = [_window(row, column, item, expected, windows=windows) for item in values]
    return found[0] if len(found) == 1 else found


def _window(row: Row, column: str, value: Any, expected: str, *, windows: bool = True) -> Any:
    """A share of the steps, or `{begin, end}`."""
    if windows and isinstance(value, list | tuple) and len(value) == 2:
        begin, end = (_share(row, column, item, expected) for item in value)
        if begin > end:
            raise row.wrong(column, f"a window from {begin:g} to {end:g}", "begin before end")
        return {"begin": begin, "end": end}
    return _share(row, column, value, expected)


def _share(row: Row, column: str, value: Any, expected: str) -> float:
    if not is_number(value):
        raise row.wrong(column, repr(value)[:80], expected)
    if not 0 <= value <= 1:
        raise row.wrong(column, f"{value:g}", f"a share of the steps, from 0 to 1: {expected}")
    return float(value)

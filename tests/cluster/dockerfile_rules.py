"""Rules for Dockerfiles, in the spirit and under the numbers of hadolint; written from its list."""

import re
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Line:
    """One instruction, continuation lines joined."""

    word: str
    rest: str


def instructions(text: str) -> list[Line]:
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\s*\n", " ", "\n".join(lines))
    found = []
    for line in joined.splitlines():
        if line.strip():
            word, _, rest = line.strip().partition(" ")
            found.append(Line(word.upper(), rest.strip()))
    return found


def stages(text: str) -> list[tuple[str, str, list[Line]]]:
    """Base, name and instructions of each stage."""
    arguments: dict[str, str] = {}
    found: list[tuple[str, str, list[Line]]] = []
    for line in instructions(text):
        if line.word == "ARG" and not found:
            name, _, value = line.rest.partition("=")
            arguments[name] = value
        elif line.word == "FROM":
            base, _, name = re.sub(r"(?i)\s+as\s+", " ", line.rest).partition(" ")
            for argument, value in arguments.items():
                base = base.replace("${" + argument + "}", value)
            found.append((base, name.strip(), []))
        else:
            found[-1][2].append(line)
    return found


def violations(text: str) -> Iterator[str]:
    """Numbers of the rules that are broken, with what breaks them."""
    names: set[str] = set()
    for base, name, lines in stages(text):
        if base not in names:
            yield from _base(base)
        names.add(name)
        whole = _whole(text, base, lines)
        for number, line in enumerate(lines, len(whole) - len(lines)):
            yield from _line(line, whole[:number])
    base, _, lines = stages(text)[-1]
    users = [line.rest for line in _whole(text, base, lines) if line.word == "USER"]
    if not users or re.match(r"(root|0)(:|$)", users[-1]):
        yield "DL3002 the last user is root"


def _whole(text: str, base: str, lines: list[Line]) -> list[Line]:
    """A stage's instructions after those of the stages that it starts from."""
    by_name = {name: (earlier, own) for earlier, name, own in stages(text)}
    while base in by_name:
        base, own = by_name[base]
        lines = [*own, *lines]
    return lines


def _base(base: str) -> Iterator[str]:
    tag = base.rpartition("/")[2]
    if ":" not in tag and "@" not in tag:
        yield f"DL3006 {base} has no tag"
    elif tag.endswith(":latest"):
        yield f"DL3007 {base}"
    elif not re.search(r"@sha256:|:\d+\.\d+\.\d+", base):
        yield f"DL3006 {base} is not pinned to a whole version"


def _line(line: Line, before: list[Line]) -> Iterator[str]:
    if line.word == "WORKDIR" and not line.rest.startswith("/"):
        yield f"DL3000 {line.rest}"
    if line.word == "ADD":
        yield f"DL3020 {line.rest}"
    if line.word in ("CMD", "ENTRYPOINT") and not line.rest.startswith("["):
        yield f"DL3025 {line.rest}"
    if line.word in ("ENV", "ARG") and re.search(
        r"(?i)(secret|password|token)\w*[= ]\S", line.rest
    ):
        yield f"secret in {line.word} {line.rest.split('=')[0]}"
    relative = line.word == "COPY" and not line.rest.split()[-1].startswith("/")
    if relative and not any(earlier.word == "WORKDIR" for earlier in before):
        yield f"DL3045 {line.rest}"
    if line.word == "RUN":
        yield from _run(line.rest, before)


def _run(command: str, before: list[Line]) -> Iterator[str]:
    if re.search(r"\bsudo\b", command):
        yield "DL3004 sudo"
    if re.search(r"(^|[;&])\s*cd\s", command):
        yield "DL3003 cd instead of WORKDIR"
    if re.search(r"[^|]\|[^|]", re.sub(r"'[^']*'", "''", command)):
        piped = [earlier for earlier in before if earlier.word == "SHELL"]
        if not piped or "pipefail" not in piped[-1].rest:
            yield "DL4006 a pipe without pipefail"
    if "apt-get install" in command:
        if "--no-install-recommends" not in command:
            yield "DL3015"
        if "/var/lib/apt/lists" not in command:
            yield "DL3009"
    if re.search(r"pip install", command):
        for words in re.findall(r"pip install ([^;&]*)", command):
            asked = [word for word in words.split() if not word.startswith("-")]
            pinned = "-r" in words.split() or all(
                "==" in word or word.endswith(".whl") or word == "." for word in asked
            )
            if not pinned:
                yield f"DL3013 {words}"
        told = any(line.word == "ENV" and "PIP_NO_CACHE_DIR=1" in line.rest for line in before)
        if not told and "--no-cache-dir" not in command:
            yield "DL3042 pip keeps its cache"

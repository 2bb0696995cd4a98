"""Released checkpoints from a bucket instead of the hub, where a cluster reaches only its store."""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from farm.errors import ModelSetError
from farm.storage.store import Store
from jobs.bars import bar

_COMMIT = "refs/main"
"""Object under a repository that names its commit, as in the hub's own cache."""


class HubMirror:
    """Fetches files of repositories that lie in a store as `owner/name/file`.

    Args:
        store: holds the repositories.
        folder: where files are put; those of the right size stay.
    """

    def __init__(self, store: Store, folder: Path) -> None:
        self._store, self._folder = store, folder

    def __call__(self, repository: str, revision: str | None, patterns: Sequence[str]) -> Path:
        """The folder with the repository's files that match; it is named after the commit.

        Raises:
            ModelSetError: the mirror lacks the repository, or has another commit of it.
            StoreError: it cannot be read.
        """
        prefix = f"{repository}/"
        sizes = {e.key.removeprefix(prefix): e.size for e in self._store.entries(prefix)}
        if not sizes:
            raise ModelSetError(
                f"{self._store.uri} has no {repository}/: copy the repository's files there"
            )
        target = self._folder / repository / self._commit(repository, revision, sizes)
        wanted = [name for name in sizes if any(_matches(name, one) for one in patterns)]
        with bar(repository, len(wanted)) as show:
            for number, name in enumerate(wanted):
                show(number, name)
                self._take(prefix + name, target / name, sizes[name])
        target.mkdir(parents=True, exist_ok=True)
        return target

    def _commit(self, repository: str, revision: str | None, names: dict[str, int]) -> str:
        if _COMMIT not in names:
            return revision or "mirrored"
        commit = self._store.get(f"{repository}/{_COMMIT}").decode().strip()
        if not commit.isalnum():
            raise ModelSetError(f"{repository}/{_COMMIT} in {self._store.uri} names no commit")
        if revision not in (None, commit):
            raise ModelSetError(
                f"{self._store.uri} has commit {commit} of {repository}, not {revision}: "
                "copy that one there"
            )
        return commit

    def _take(self, key: str, path: Path, size: int) -> None:
        if path.is_file() and path.stat().st_size == size:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.part")
        self._store.get_file(key, part)
        part.replace(path)


def _matches(name: str, pattern: str) -> bool:
    """Whether a pattern names a file of its own folder, as `Path.match` does from the right."""
    path, wanted = PurePosixPath(name), PurePosixPath(pattern)
    return len(path.parts) == len(wanted.parts) and path.match(pattern)

"""The tree of errors: as its picture draws it, each one crossing a process as it is."""

import inspect
import pickle
import re

import pytest

from farm import errors
from farm.errors import (
    EditFailedError,
    FarmError,
    InvalidRequestError,
    ModelSetError,
    QueueFullError,
    UnavailableError,
)

ALL = [cls for _, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, FarmError)]
_DRAWN = re.compile(r"^([│ ]*)[├└]── (\w+)", re.MULTILINE)
_BRANCH = 4  # characters that each level is drawn further right


@pytest.mark.parametrize("cls", ALL)
def test_it_crosses_a_process_as_it_is(cls):
    error = cls("found 3, expected 4: add one")
    there = pickle.loads(pickle.dumps(error))
    assert type(there) is cls
    assert there.message == str(there) == error.message
    assert there.args == error.args


def test_the_picture_at_the_top_is_the_tree():
    drawn, path = {}, [FarmError.__name__]
    for indent, name in _DRAWN.findall(errors.__doc__ or ""):
        path = [*path[: len(indent) // _BRANCH + 1], name]
        drawn[name] = path[-2]
    assert drawn == {cls.__name__: cls.__base__.__name__ for cls in ALL if cls is not FarmError}


@pytest.mark.parametrize(
    ("branch", "status", "code", "retryable"),
    [
        (InvalidRequestError, 422, 2, False),
        (EditFailedError, 500, 1, False),
        (UnavailableError, 503, 3, True),
    ],
)
def test_a_branch_says_what_the_caller_should_do(branch, status, code, retryable):
    below = [cls for cls in ALL if issubclass(cls, branch)]
    assert len(below) > 3
    for cls in below:
        assert (cls.http_status, cls.exit_code, cls.retryable) == (status, code, retryable)


def test_every_error_belongs_to_one_branch():
    branches = (InvalidRequestError, EditFailedError, UnavailableError)
    for cls in set(ALL) - {FarmError}:
        assert sum(issubclass(cls, branch) for branch in branches) == 1
    assert issubclass(ModelSetError, InvalidRequestError)
    assert issubclass(QueueFullError, UnavailableError)

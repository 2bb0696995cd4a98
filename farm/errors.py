"""Every error a user of the farm can meet, in one tree.

FarmError
├── InvalidRequestError      the request is wrong: change it (HTTP 422, exit code 2)
│   ├── InvalidImageError        not an image, too large, a decompression bomb
│   ├── InvalidPromptError       empty, over-long, or nothing to edit
│   ├── UnknownWordError         a word that is not in the prompt
│   ├── InvalidManifestError     a line of a manifest
│   └── ModelSetError            a model set that is missing or broken
├── EditFailedError          this run failed: another seed or setting may do (HTTP 500, exit code 1)
│   ├── EditDivergedError        a loss that is not finite
│   ├── EditCancelledError       somebody asked for it
│   ├── EditHungError            no progress for too long
│   ├── BudgetExceededError      it, or its job, has cost what it may
│   ├── OutOfMemoryError         too large for the machine, even alone
│   └── CorruptArtifactError     a stored artifact that does not match its digest
└── UnavailableError         the machine is not there: try again (HTTP 503, exit code 3)
    ├── BackboneLostError        an actor died and did not come back
    ├── QueueFullError           the backbone's queue is full
    └── StoreError               the object store cannot be read or written

Each error takes one string that says what was found, what was expected and what to change, so every
one pickles and crosses a process as it is. To add one: derive from the branch that says what the
caller should do.
"""

from typing import ClassVar


class FarmError(Exception):
    """Base of all errors that the farm raises on purpose.

    Attributes:
        http_status: status an HTTP door answers with.
        exit_code: exit code of the command line.
        retryable: whether the same request may succeed when tried again unchanged.
    """

    http_status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 1
    retryable: ClassVar[bool] = False

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class InvalidRequestError(FarmError):
    http_status = 422
    exit_code = 2


class InvalidImageError(InvalidRequestError):
    pass


class InvalidPromptError(InvalidRequestError):
    pass


class UnknownWordError(InvalidRequestError):
    pass


class InvalidManifestError(InvalidRequestError):
    pass


class ModelSetError(InvalidRequestError):
    pass


class EditFailedError(FarmError):
    pass


def unforeseen(error: BaseException) -> EditFailedError:
    """The farm's error for one that nobody thought of."""
    return EditFailedError(
        f"unforeseen {type(error).__name__}: {error}; this is a fault of the farm, please report "
        "it with the traceback of the worker's log"
    )


class EditDivergedError(EditFailedError):
    pass


class EditCancelledError(EditFailedError):
    pass


class EditHungError(EditFailedError):
    pass


class BudgetExceededError(EditFailedError):
    pass


class OutOfMemoryError(EditFailedError):
    pass


class CorruptArtifactError(EditFailedError):
    pass


class UnavailableError(FarmError):
    http_status = 503
    exit_code = 3
    retryable = True


class BackboneLostError(UnavailableError):
    pass


class QueueFullError(UnavailableError):
    pass


class StoreError(UnavailableError):
    pass

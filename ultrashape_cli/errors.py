"""Errors a user can act on. Anything outside this tree is a bug in ushape (exit 3).

UShapeError                 1  ran, and something failed or was not found
├── AssetError              1  one asset is bad; a batch records it and goes on
│   ├── MeshError
│   └── ImageError
├── CheckpointError         1  weights that are missing, truncated or of another shape
├── DatasetError            1  a dataset that lacks what a command needs
├── DependencyError         1  an optional package or system library cannot load
├── DiskError               1  full, read-only or unreadable storage
├── TrainingError           1  a run that cannot go on
│   └── LoaderError
└── UsageError              2  bad option or config; nothing was touched
    └── ConfigError
"""


class UShapeError(Exception):
    """A failure with a message for the user and, where one exists, a command that helps.

    Args:
        message: What is wrong with which value or file, and why. One line.
        hint: What to type or change, without the word "hint".
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[object, ...]:
        # Errors cross process borders (workers, data loaders); the default loses `hint`.
        return (_rebuild, (type(self), self.message, self.hint))


def _rebuild(cls: type[UShapeError], message: str, hint: str | None) -> UShapeError:
    return cls(message, hint=hint)


class AssetError(UShapeError):
    """One asset cannot be used."""


class MeshError(AssetError):
    """A mesh file that cannot be read, or a mesh that cannot be processed."""


class ImageError(AssetError):
    """An image file that cannot be read or has no content."""


class CheckpointError(UShapeError):
    """Weights that are missing, truncated, unsafe or of another architecture."""


class DatasetError(UShapeError):
    """A prepared dataset that lacks what the command needs."""


class DependencyError(UShapeError):
    """An optional package, or a system library below it, that cannot load."""


class DiskError(UShapeError):
    """Storage that is full, read-only or unreadable."""


class TrainingError(UShapeError):
    """A training run that cannot start or go on."""


class LoaderError(TrainingError):
    """A loader process that ended, or has no memory to share its samples through."""


class UsageError(UShapeError):
    """A bad option, argument or combination; nothing was touched."""

    exit_code = 2


class ConfigError(UsageError):
    """A bad key or value in the configuration."""

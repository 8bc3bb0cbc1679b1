"""What to do about memory that runs out."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from ultrashape_cli.errors import UShapeError


class OutOfMemory(UShapeError):
    """A stage needed more memory than there is.

    Args:
        message: What ran out.
        option: What to add to the command.
    """

    def __init__(self, message: str, *, option: str = "", hint: str | None = None) -> None:
        super().__init__(message, hint=hint or f"add {option} to the command")
        self.option = option


@contextlib.contextmanager
def memory_errors(stage: str, option: str) -> Iterator[None]:
    """Turns exhausted memory inside a stage into an error that names the option to add.

    Raises:
        OutOfMemory: Memory of the host or the device ran out.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        first = (str(error).splitlines() or [""])[0][:200]
        raise OutOfMemory(f"out of memory in stage `{stage}`: {first}", option=option) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Says whether an exception means that memory of the host or the device ran out."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    # The CPU allocator has no exception of its own.
    return isinstance(error, RuntimeError) and "not enough memory" in str(error)

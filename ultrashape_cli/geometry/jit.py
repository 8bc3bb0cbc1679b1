"""Compilation of the numeric kernels."""

from collections.abc import Callable
from typing import Any, TypeVar

import numba

F = TypeVar("F", bound=Callable[..., object])


def kernel(function: F) -> F:
    """Compile a function with numba, cached on disk where a cache folder is writable.

    Other threads run meanwhile: kernels touch arrays only.

    numba looks for a folder beside the source, then for `NUMBA_CACHE_DIR` or the user's cache. A
    read-only install with a read-only home has neither; the kernel is then compiled anew by each
    process (seconds) instead of failing at import.
    """
    compiled: Any
    try:
        compiled = numba.njit(cache=True, nogil=True)(function)
    except RuntimeError:
        compiled = numba.njit(nogil=True)(function)
    return compiled

import numba
import pytest

from ultrashape_cli.geometry import jit


def test_kernels_compile_without_a_writable_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """This is what numba raises where neither the package nor the user's cache can be written."""
    compile_ = numba.njit

    def without_cache(function=None, *, cache=False, nogil=False):
        if cache:

            def refuse(function):
                raise RuntimeError("cannot cache function: no locator available")

            return refuse
        return compile_(function, nogil=nogil)

    monkeypatch.setattr(jit.numba, "njit", without_cache)
    assert jit.kernel(lambda x: x + 1)(2) == 3

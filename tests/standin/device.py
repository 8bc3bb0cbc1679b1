"""A CUDA device that computes nothing: fake tensors on it run under CUDA's own autocast.

It changes the whole process, so that whoever uses it starts one of its own.
"""

from __future__ import annotations

import ctypes
import importlib.util
import shutil
import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_name("device.cpp")
_TORCH = importlib.util.find_spec("torch")


def why_not() -> str | None:
    """Returns why the device cannot be built here, or None."""
    return None if shutil.which("g++") else "no g++ to build the stand-in of a card with"


def build(folder: Path) -> Path:
    """Compiles the device, and returns the library."""
    library = folder / "libstandin.so"
    torch = _torch_folder()
    command = ["g++", "-std=c++20", "-O1", "-fPIC", "-shared", str(SOURCE), "-o", str(library)]
    command += [f"-I{torch}/include", f"-I{torch}/include/torch/csrc/api/include"]
    subprocess.run([*command, f"-L{torch}/lib", "-lc10", "-ltorch_cpu"], check=True)
    return library


def load(library: str) -> None:
    """Puts the device into this process; called before torch is imported."""
    for name in ("libc10.so", "libtorch_cpu.so"):
        ctypes.CDLL(str(_torch_folder() / "lib" / name), mode=ctypes.RTLD_GLOBAL)
    ctypes.CDLL(library, mode=ctypes.RTLD_GLOBAL)
    import torch
    import torch.amp.autocast_mode as amp

    amp.torch.cuda.amp.common.amp_definitely_not_available = lambda: False
    torch.cuda.is_bf16_supported = lambda *given, **named: True


def _torch_folder() -> Path:
    assert _TORCH is not None
    assert _TORCH.submodule_search_locations is not None
    return Path(_TORCH.submodule_search_locations[0])

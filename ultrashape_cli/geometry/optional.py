"""pymeshlab and open3d: used where they load, never required.

Both wheels need system libraries that slim images lack, so they are imported on use, and a failure
says which package of the system to install.
"""

from __future__ import annotations

import importlib
import re
from functools import cache
from types import ModuleType

from ultrashape_cli.errors import DependencyError

_SYSTEM_PACKAGES = {
    "libGL": "libgl1",
    "libEGL": "libegl1",
    "libOpenGL": "libopengl0",
    "libusb": "libusb-1.0-0",
    "libudev": "libudev1",
    "libX11": "libx11-6",
    "libgomp": "libgomp1",
    "libglib": "libglib2.0-0",
}


@cache
def missing_reason(name: str) -> str | None:
    """Returns one line on why a module cannot load and what to install, or None if it loads."""
    try:
        importlib.import_module(name)
    except (ImportError, OSError) as error:
        library = re.search(r"(lib\w+)[-.\w]*\.so", str(error))
        package = _SYSTEM_PACKAGES.get(library.group(1)) if library else None
        fix = f"apt-get install {package}" if package else f"pip install {name}"
        return f"{name} cannot load ({error}): {fix}"
    return None


def load_optional(name: str) -> ModuleType:
    """Returns the imported module.

    Raises:
        DependencyError: It cannot load; the message says what is missing.
    """
    reason = missing_reason(name)
    if reason is not None:
        message, _, fix = reason.rpartition(": ")
        raise DependencyError(message, hint=fix)
    return importlib.import_module(name)

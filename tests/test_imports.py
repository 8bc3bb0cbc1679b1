import subprocess
import sys

import pytest


@pytest.mark.parametrize("room", ["geometry", "meshfiles", "watertight", "synthetic", "rendering"])
def test_rooms_of_meshes_load_no_heavy_or_optional_package(room: str) -> None:
    code = (
        f"import sys, pkgutil, importlib, ultrashape_cli.{room} as room\n"
        "for module in pkgutil.iter_modules(room.__path__):\n"
        "    if module.name != 'blender_script':\n"
        "        importlib.import_module(f'{room.__name__}.{module.name}')\n"
        "print([m for m in ('torch', 'pymeshlab', 'open3d') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


WITHOUT_UNIX = """
import builtins, importlib, pkgutil, signal
import accelerate, psutil, torch.distributed.checkpoint
import ultrashape_cli
plain = builtins.__import__

def limited(name, scope=None, *rest, **named):
    own = str((scope or {}).get("__name__")).startswith("ultrashape_cli")
    if own and name in ("fcntl", "grp", "pwd", "resource", "termios"):
        raise ImportError(f"no module named {name} on Windows")
    return plain(name, scope, *rest, **named)

builtins.__import__ = limited
for name in ("SIGCHLD", "SIGHUP", "SIGKILL", "SIGUSR1", "pthread_sigmask"):
    delattr(signal, name)
found = [m.name for m in pkgutil.walk_packages(ultrashape_cli.__path__, "ultrashape_cli.")]
for name in found:
    if not name.startswith(SKIPPED):
        importlib.import_module(name)
print(len(found))
"""
SKIPPED = ("ultrashape_cli.rendering.blender_script",)
"""What runs in Blender."""


def test_no_module_needs_unix_to_be_imported() -> None:
    code = WITHOUT_UNIX.replace("SKIPPED", repr(SKIPPED))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) > 200

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

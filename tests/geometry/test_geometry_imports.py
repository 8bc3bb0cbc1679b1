import subprocess
import sys


def test_geometry_and_rendering_load_no_heavy_or_optional_package() -> None:
    code = (
        "import sys, ultrashape_cli.watertight.ladder, ultrashape_cli.rendering.renderer;"
        "print([m for m in ('torch', 'pymeshlab', 'open3d') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

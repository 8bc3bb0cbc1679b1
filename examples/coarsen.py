"""Write a coarse version of a mesh: python examples/coarsen.py IN OUT --resolution 32"""

import argparse
from pathlib import Path

from ultrashape_cli.meshfiles.load import load_mesh
from ultrashape_cli.meshfiles.save import save_mesh
from ultrashape_cli.synthetic.coarsen import coarsen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--resolution", type=int, default=32)
    arguments = parser.parse_args()
    save_mesh(coarsen(load_mesh(arguments.source), arguments.resolution), arguments.out)


if __name__ == "__main__":
    main()

"""Write procedural figurines as PLY files: python examples/make_figurines.py OUT --count 12

Each has its own seed, counted from --start. The packaged tiny model has seen those below 2000.
"""

import argparse
from pathlib import Path

from ultrashape_cli.meshfiles.save import save_mesh
from ultrashape_cli.synthetic.figurines import make_figurine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--count", type=int, default=12)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--resolution", type=int, default=128)
    arguments = parser.parse_args()
    for seed in range(arguments.start, arguments.start + arguments.count):
        path = arguments.out / f"figurine_{seed:03d}.ply"
        if not path.exists():
            save_mesh(make_figurine(seed, arguments.resolution), path)
            print(path)


if __name__ == "__main__":
    main()

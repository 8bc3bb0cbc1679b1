"""Write procedural shapes as PLY files: python examples/make_shapes.py OUT --count 12 --family bird

Families: quadruped, bird, fish, ... (`--help` lists them), `all` for each in turn, or `studio`,
a style of its own. Each shape has its own seed, counted from --start; seeds below 2000 are for
training. --vary cuts, stretches, turns and shrinks them at random. What exists is left alone.
"""

import argparse
from pathlib import Path

from ultrashape_cli.meshfiles.save import save_mesh
from ultrashape_cli.synthetic.families import FAMILIES, STYLES, make_shape


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--family", choices=["all", *FAMILIES, *STYLES], default="all")
    parser.add_argument("--count", type=int, default=12)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--resolution", type=int, default=128)
    parser.add_argument("--vary", action="store_true")
    arguments = parser.parse_args()
    names = list(FAMILIES) if arguments.family == "all" else [arguments.family]
    for seed in range(arguments.start, arguments.start + arguments.count):
        family = names[seed % len(names)]
        end = "_varied" if arguments.vary else ""
        path = arguments.out / f"{family}_{seed:04d}{end}.ply"
        if not path.exists():
            save_mesh(make_shape(family, seed, arguments.resolution, vary=arguments.vary), path)
            print(path)


if __name__ == "__main__":
    main()

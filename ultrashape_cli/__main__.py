"""Entry point of the `ushape` script and of `python -m ultrashape_cli`."""

from __future__ import annotations

import sys


def main() -> None:
    """Runs the command line and exits with the code of its result."""
    from ultrashape_cli.cli import run

    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()

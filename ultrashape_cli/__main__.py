"""Entry point of the `ushape` script and of `python -m ultrashape_cli`."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Runs the command line and exits with the code of its result."""
    from ultrashape_cli.cli import run

    code = run(sys.argv[1:])
    # Asked here first, so that a plain command line need not import what tells them apart.
    if "LOCAL_RANK" in os.environ:
        from ultrashape_cli.processes import is_distributed_child, leave

        if is_distributed_child():
            leave(code)
    sys.exit(code)


if __name__ == "__main__":
    main()

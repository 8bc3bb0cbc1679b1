"""Entry point of the `ushape` script and of `python -m ultrashape_cli`."""

from __future__ import annotations

import os
import signal
import sys


def main() -> None:
    """Runs the command line and exits with the code of its result."""
    if sys.platform == "win32":
        sys.stderr.write("error: ushape does not run on Windows itself\nhint: use it in WSL2\n")
        sys.exit(2)
    from ultrashape_cli.cli import run
    from ultrashape_cli.streams import keep_talking

    keep_talking()
    # Asked here first, so that a plain command line need not import what tells them apart.
    if "LOCAL_RANK" in os.environ:
        from ultrashape_cli.processes import end_with_parent, is_distributed_child, leave

        if is_distributed_child():
            end_with_parent(signal.SIGTERM)
            leave(run(sys.argv[1:]))
    from ultrashape_cli.interrupts import exit_on_terminate

    with exit_on_terminate():
        code = run(sys.argv[1:])
    sys.exit(code)


if __name__ == "__main__":
    main()

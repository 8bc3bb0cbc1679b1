"""`python -m ultrashape_cli.launcher PARENT ...`: accelerate's launcher, ending with its parent.

Its workers are born with TERM blocked and hear it once they can save (`SignalFlag`).
"""

from __future__ import annotations

import signal
import sys


def main() -> None:
    """Runs `accelerate launch` with the arguments of this process."""
    from ultrashape_cli.processes import end_with_parent
    from ultrashape_cli.streams import keep_talking

    keep_talking()
    # TERM is for the workers, so their launcher ends at once; they end with it, in good order.
    end_with_parent(signal.SIGKILL, int(sys.argv.pop(1)))
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    from accelerate.commands import launch

    sys.exit(launch.main())


if __name__ == "__main__":
    main()

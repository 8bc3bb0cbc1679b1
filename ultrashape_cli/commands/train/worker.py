"""`python -m ultrashape_cli.commands.train.worker RUN`: one of several training processes.

accelerate starts them for `ushape train --num-processes N`; the main one prints plain lines.
"""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

from ultrashape_cli.processes import end_with_parent, leave
from ultrashape_cli.streams import keep_talking

INTERVAL_S = 10.0


def main() -> None:
    """Trains the run that the command line names."""
    end_with_parent(signal.SIGTERM)
    keep_talking()
    # What follows imports torch; a signal waits until the training loop can save.
    from ultrashape_cli.config.resolve import resolve
    from ultrashape_cli.errors import UShapeError
    from ultrashape_cli.runs import RunFolder
    from ultrashape_cli.training.progress import Progress, describe
    from ultrashape_cli.training.worker import train_run
    from ultrashape_cli.ui import UI

    ui = UI("train", progress=False)
    run = RunFolder(Path(sys.argv[1]))
    last = 0.0

    def on_step(progress: Progress) -> None:
        nonlocal last
        if time.monotonic() - last > INTERVAL_S or progress.step == progress.steps:
            last = time.monotonic()
            ui.info(describe(progress))

    try:
        config = resolve(file=run.config, environ={}).config
        code = train_run(run, config, on_step=on_step, tell=ui.info)
    except UShapeError as error:
        ui.error(error)
        code = error.exit_code
    # status.json says that it stopped; a code would make the launcher report a failure.
    leave(0 if code in (130, 143) else code)


if __name__ == "__main__":
    main()

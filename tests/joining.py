"""A machine that joins a service, with a worker without a model: `python -m joining FOLDER URL`."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

from serving import make_plan

from ultrashape_cli.interrupts import SignalFlag
from ultrashape_cli.service import join
from ultrashape_cli.service.remote import Service


def main() -> None:
    """Works until a signal comes."""
    folder, url = Path(sys.argv[1]), sys.argv[2]
    folder.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(filename=folder / "log.txt", level=logging.INFO)
    plan = make_plan()
    service = Service(url, os.environ.get("TOKEN", ""))
    models = join.check_models(plan, service)
    with SignalFlag(lambda: None) as flag:
        join.run(plan, service, models, folder, flag)
    sys.exit(flag.exit_code)


if __name__ == "__main__":
    main()

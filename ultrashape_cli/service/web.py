"""The web process: answers requests and holds no model.

Started as `python -m ultrashape_cli.service.web FOLDER SOCKET_FD`; the socket is bound already,
so that a fresh process can take over where this one ended.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import sys
import tempfile
from pathlib import Path

from ultrashape_cli.service.child import end_with_starter
from ultrashape_cli.service.plan import PLAN_FILE, Plan
from ultrashape_cli.service.store import Store

LEAVE_S = 5
"""Seconds that open answers, such as events, get when the service ends."""
_BACKLOG = 2048


def main() -> None:
    """Serves until TERM."""
    import uvicorn

    from ultrashape_cli.service.app import make_app

    end_with_starter()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s web %(levelname)s %(message)s")
    folder, file = Path(sys.argv[1]), int(sys.argv[2])
    store = Store(folder)
    # Parts of forms wait there: memory and /tmp are too small for meshes.
    tempfile.tempdir = str(store.spool)
    app = make_app(Plan.read(folder / PLAN_FILE), store)
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        backlog=_BACKLOG,
        timeout_graceful_shutdown=LEAVE_S,
        # Names of clients are used nowhere, so headers that claim some are not read.
        proxy_headers=False,
    )
    _allow_connections()
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=file)])


def _allow_connections() -> None:
    """Takes as many open files as this process may have: each client is one."""
    import resource  # Windows has none

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Of no limit a million is enough, and some systems refuse more.
    most = 1 << 20 if most == resource.RLIM_INFINITY else most
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


if __name__ == "__main__":
    main()

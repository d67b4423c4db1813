"""uvicorn around the application: what it may take of the machine, and how it ends at a signal."""

import logging
import os
import resource
import signal
import socket
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType
from typing import cast

import uvicorn
from fastapi import FastAPI
from uvicorn.config import STARTUP_FAILURE

import routes
from connections import ConnectionLimits, limited, room_for_connections

_GRACE_S = 5  # the processor ends meanwhile, 7 s at most; with 3 s for the database: 10 s


def serve_until_signal(app: FastAPI, *, host: str, port: int, calls: int) -> None:
    """Listen, and return when all has ended; `calls` to Grok keep their share of the file descriptors."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    config = uvicorn.Config(
        app,
        http=limited(ConnectionLimits(most_open=room_for_connections(descriptors, calls=calls))),
        ws="none",
        host=host,
        port=port,
        access_log=False,
        log_config=None,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=_GRACE_S,
    )
    _run(_Server(config))


class _Server(uvicorn.Server):
    """Tells those first that go on by themselves: uvicorn waits for every open answer, and only then for the rest."""

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """From here on to the end of the process: uvicorn would send itself the signal once more when all has ended."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.handle_exit)
        yield

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A second signal hurries nothing: uvicorn would leave out the handing back, which takes seconds at most."""
        if not self.should_exit:
            super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        state = cast("routes.State", self.lifespan.state)
        state["streams"].end()
        state["processor"].stop()  # nothing more is claimed while requests end
        await super().shutdown(sockets)


def _run(server: _Server) -> None:
    """Serve until a signal. One that comes before the server listens to it ends the process: nothing is in hand yet."""
    server.run()
    if not server.started:
        sys.exit(STARTUP_FAILURE)
    _end_whatever_hangs()


def _end_whatever_hangs() -> None:
    """Python waits at its end for threads; one that hangs in the database has nothing to tell any more."""
    if any(thread is not threading.main_thread() and not thread.daemon for thread in threading.enumerate()):
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)

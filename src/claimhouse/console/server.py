"""Runs the console: one process, on loopback, until it is told to stop."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass

import uvicorn

from claimhouse.console.app import Console, address, create_app
from claimhouse.console.guard import Access, new_token
from claimhouse.errors import UsageError

LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass
class Served:
    """A console that listens; `url` is the address to open. `run` blocks until `stop` or a signal."""

    console: Console
    url: str
    _server: uvicorn.Server
    _socket: socket.socket

    def run(self) -> None:
        self.console.start()
        try:
            self._server.run(sockets=[self._socket])
        finally:
            self.console.stop()

    def stop(self) -> None:
        """End `run`, from another thread."""
        self.console.pulse.stop()
        self._server.should_exit = True


def listen(
    console: Console,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    names: tuple[str, ...] = (),
    behind_proxy: bool = False,
    token: Callable[[], str] = new_token,
) -> Served:
    """Bind the address; port 0 takes a free one. `names` are further Host names to answer to (of a proxy).

    Raises UsageError for an address that is not loopback unless `behind_proxy`, and for one that is taken.
    """
    if host not in LOOPBACK and not behind_proxy:
        raise UsageError(
            f"{host} is not loopback, and this server speaks no TLS",
            hint="leave --host out; or put a TLS proxy in front and say --behind-proxy",
        )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
        bound.listen(100)  # who opens the address before the server runs waits for it, and is not turned away
    except OSError as error:
        bound.close()
        raise UsageError(
            f"port {port} of {host} cannot be had: {error.strerror}", hint="--port 0 takes a free one"
        ) from None
    port = bound.getsockname()[1]
    hosts = frozenset(n.lower() for n in (*LOOPBACK, host, *names))
    access = Access(token=token(), port=port, hosts=hosts)
    config = uvicorn.Config(
        create_app(console, access),
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=2,
        limit_concurrency=100,
    )
    return Served(console, address(host, port, access.token), uvicorn.Server(config), bound)

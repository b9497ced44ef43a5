"""What servers and clients have in common: whose an address is, and answering until told to end."""

import ipaddress
import socket
from collections.abc import Callable
from typing import Any

from tutelage.errors import ConfigError

__all__ = ["is_loopback", "serve_until_told"]


def is_loopback(host: str) -> bool:
    """Whether a host, by address or name, is this machine and cannot be reached from others."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def serve_until_told(
    app: Any, host: str, port: int, announce: Callable[[str], None], *, grace: int
) -> None:
    """Answers until SIGTERM or Ctrl-C; requests under way are finished first.

    Args:
        app: an ASGI application, with a lifespan.
        host, port: to listen at; port 0 takes a free one.
        announce: told the URL once connections are taken.
        grace: seconds that requests under way are given at the end.

    Raises:
        ConfigError: the address cannot be listened at.
    """
    import uvicorn

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family, backlog=256)
    except OSError as error:
        raise ConfigError(f"cannot listen at {host} port {port}: {error}") from error
    with listening:
        shown = f"[{host}]" if ":" in host else host
        announce(f"http://{shown}:{listening.getsockname()[1]}")
        settings = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            # What a client says of its own address decides nothing here.
            proxy_headers=False,
            lifespan="on",
            timeout_graceful_shutdown=grace,
        )
        uvicorn.Server(settings).run(sockets=[listening])

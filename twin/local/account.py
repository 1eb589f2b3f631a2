"""The account that Mosquitto runs under when root starts it, and what that account may not do.

Mosquitto gives root's rights up before it reads keys and passwords and before it writes its state, and
is no longer `root` then but `mosquitto`. Without a key it does not start. Without the right to write
its state it says "Permission denied" once, goes on, and forgets everything at its end.
"""

import os
import pwd
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from twin.local.broker_config import SERVER, USERS_FILE, BrokerSettings

MOSQUITTO: Final = "mosquitto"


def account(settings: BrokerSettings) -> str | None:
    """Who Mosquitto becomes when we start it here; None when it stays who it is."""
    name = settings.user or MOSQUITTO
    try:
        uid = pwd.getpwnam(name).pw_uid
    except KeyError:
        return None
    return name if os.geteuid() == 0 and uid != 0 else None


def give(folder: Path, name: str) -> None:
    """Make a folder the account's."""
    known = pwd.getpwnam(name)
    os.chown(folder, known.pw_uid, known.pw_gid)


def faults(settings: BrokerSettings, name: str) -> Iterator[str]:
    """What the account may not do and Mosquitto will, each as a sentence; of files that are there."""
    folder = settings.folder
    starts = f"Started by root, Mosquitto runs as {name}, who may not"
    if not _may(name, "-w", folder):
        yield (
            f"{starts} write to {folder}, where it keeps its state: it would run and forget everything"
            f" at its end. {_mended(name, folder)}"
        )
    wanted = [folder / USERS_FILE]
    if settings.tls is not None:
        wanted.append(settings.tls / f"{SERVER}.key")
    for file in wanted:
        if file.exists() and not _may(name, "-r", file):
            yield f"{starts} read {file}: it would not start. {_mended(name, file)}"


def _mended(name: str, path: Path) -> str:
    for parent in reversed(path.parents):
        if not _may(name, "-x", parent):
            return f"It may not even enter {parent}: choose another place."
    return f"Do: chown {name}: {path}"


def _may(name: str, what: str, path: Path) -> bool:
    """Asked as that account: who may do what is for the kernel to say."""
    group = pwd.getpwnam(name).pw_gid
    done = subprocess.run(  # noqa: S603 - our own command line
        ["/usr/bin/test", what, str(path)],
        user=name,
        group=group,
        extra_groups=os.getgrouplist(name, group),
        check=False,
    )
    return done.returncode == 0

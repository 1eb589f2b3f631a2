"""The champion, kept up to date beside the scoring loop.

A thread follows the registry; a new champion is verified, loaded, warmed up and proven by its golden
vectors here, and only then offered to the loop, which swaps a reference between two polls. A model
that is refused leaves the old one scoring, is announced with the reason, and is tried again (its
folder may still be on its way to this machine's mount).
"""

import threading
import time
from collections.abc import Callable
from pathlib import Path

from models import artefact, serving
from models.errors import ArtefactRefused
from models.registry import Registration, Watch
from models.serving import Loaded
from twin.kit import logs

log = logs.get(__name__)

_RETRY_S = 30.0

Refused = Callable[[Registration, str], None]


class ChampionKeeper:
    """Follow the registry from `start` to `stop`; `take` gives each new champion once."""

    def __init__(self, watch: Watch, store: Path, refused: Refused) -> None:
        self._watch = watch
        self._store = store
        self._refused = refused
        self._offered: Loaded | None = None
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self.settled = threading.Event()
        """Set when the champion of the start, if any, was loaded or refused."""
        self._thread = threading.Thread(target=self._run, name="champion", daemon=True)

    def start(self) -> None:
        """Begin to follow."""
        self._thread.start()

    def stop(self) -> None:
        """End following; a load under way is finished first."""
        self._stop.set()
        self._thread.join()
        self._watch.close()

    def take(self) -> Loaded | None:
        """A champion that is ready and was not taken yet."""
        with self._lock:
            offered, self._offered = self._offered, None
            return offered

    def _run(self) -> None:
        wanted: Registration | None = None
        why = ""
        due = 0.0
        caught_up = False
        while not self._stop.is_set():
            newer, ended = self._watch.poll(0.2)
            caught_up = caught_up or ended
            if newer is not None:
                wanted, why, due = newer, "", 0.0
            if wanted is None or not caught_up or time.monotonic() < due:
                if caught_up and wanted is None:
                    self.settled.set()
                continue
            refusal = self._load(wanted)
            if refusal and refusal != why:
                log.warning("champion refused", version=wanted["version"], why=refusal)
                self._refused(wanted, refusal)
            why, due = refusal, time.monotonic() + _RETRY_S
            if not refusal:
                wanted = None
            self.settled.set()

    def _load(self, wanted: Registration) -> str:
        """Offer it; else the reason why not."""
        try:
            began = time.monotonic()
            loaded = serving.load(artefact.verify(self._store, wanted["uri"], wanted["sha256"]))
        except ArtefactRefused as error:
            return str(error)
        except Exception as error:  # whatever breaks in a foreign artefact, the old model scores on
            log.exception("loading a champion")
            return f"{wanted['version']} cannot be loaded: {error!r:.200}"
        log.info(
            "champion ready",
            version=loaded.version,
            seconds=round(time.monotonic() - began, 2),
        )
        with self._lock:
            self._offered = loaded
        return ""

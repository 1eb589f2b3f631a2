"""Champion and challenger, kept up to date beside the scoring loop.

A thread follows the registry; a new model is verified, loaded, warmed up and proven by its golden
vectors here, and only then offered to the loop, which swaps a reference between two polls. A model
that is refused leaves the old one scoring, is announced with the reason, and is tried again (its
folder may still be on its way to this machine's mount). Nothing ends the thread but `stop`: what goes
wrong in it is said by `fault`, for readiness, and tried again.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from models import serving
from models.artefact import Artefact
from models.errors import ModelsError
from models.registry import ROLES, Registration, Watch
from models.scoring import Role
from models.serving import Loaded
from twin.kit import logs

log = logs.get(__name__)

_RETRY_S = 30.0
_PAUSE_S = 1.0

Fetch = Callable[[Registration], Artefact]
"""A registered model, every byte of it checked; raises a `ModelsError`."""
Refused = Callable[[Registration, Role, str], None]


@dataclass(slots=True)
class _Wanted:
    """What a role shall be: why it was refused, and when (monotonic s) it is tried again."""

    record: Registration | None
    why: str = ""
    due: float = 0.0


class ModelKeeper:
    """Follow the registry from `start` to `stop`; `take` gives each change once."""

    def __init__(self, watch: Watch, fetch: Fetch, refused: Refused) -> None:
        self._watch = watch
        self._fetch = fetch
        self._refused = refused
        self._wanted: dict[Role, _Wanted] = {}
        self._offered: dict[Role, Loaded | None] = {}
        self._caught_up = False
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self.fault = ""
        """Why the registry is not followed at the moment; empty = it is."""
        self.settled = threading.Event()
        """Set when the champion of the start, if any, was loaded or refused."""
        self._thread = threading.Thread(target=self._run, name="models", daemon=True)

    def start(self) -> None:
        """Begin to follow."""
        self._thread.start()

    def stop(self) -> None:
        """End following; a load under way is finished first."""
        self._stop.set()
        self._thread.join()
        self._watch.close()

    def take(self) -> dict[Role, Loaded | None]:
        """Models that are ready and were not taken yet, by role, champion first; None ends a role."""
        if not self._offered:
            return {}
        with self._lock:
            offered, self._offered = self._offered, {}
        return {role: offered[role] for role in ROLES if role in offered}

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._round()
                self.fault = ""
            except Exception as error:  # a thread that ends would leave an old model in silence
                self.fault = f"the registry is not followed: {error!r:.200}"
                log.exception("following the registry")
                self._stop.wait(_PAUSE_S)

    def _round(self) -> None:
        said, ended = self._watch.poll(0.2)
        self._caught_up = self._caught_up or ended
        self._wanted.update({role: _Wanted(record) for role, record in said.items()})
        if not self._caught_up:
            return
        # A challenger that was promoted is champion before it is challenger no more.
        for role in ROLES:
            wanted = self._wanted.get(role)
            if wanted is not None and time.monotonic() >= wanted.due:
                self._try(role, wanted)
            self.settled.set()

    def _try(self, role: Role, wanted: _Wanted) -> None:
        record = wanted.record
        if record is None:
            self._offer(role, None)
        refusal = "" if record is None else self._load(role, record)
        if record is None or not refusal:
            del self._wanted[role]
            return
        if refusal != wanted.why:
            log.warning("model refused", role=role, version=record["version"], why=refusal)
            self._refused(record, role, refusal)
        wanted.why, wanted.due = refusal, time.monotonic() + _RETRY_S

    def _load(self, role: Role, record: Registration) -> str:
        """Offer it; else the reason why not."""
        began = time.monotonic()
        try:
            loaded = serving.load(self._fetch(record))
        except ModelsError as error:
            return str(error)
        except Exception as error:  # whatever breaks in a foreign artefact, the old model scores on
            log.exception("loading a model")
            return f"{record['version']} cannot be loaded: {error!r:.200}"
        seconds = round(time.monotonic() - began, 2)
        log.info("model ready", role=role, version=loaded.version, seconds=seconds)
        self._offer(role, loaded)
        return ""

    def _offer(self, role: Role, loaded: Loaded | None) -> None:
        with self._lock:
            self._offered[role] = loaded

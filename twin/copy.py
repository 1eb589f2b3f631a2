"""A copy of the changelogs on the worker's own disk (RocksDB), so that a restart reads only what is new.

    batch -> documents, entries and the places to read on from, in one write batch -> restart -> tails

The place kept is the one at the last commit of the inputs, not the newest: records behind it may hold
outputs that nobody has told (law 3), so they are read from Kafka once more. A copy that is older than
half the time for which Kafka keeps tombstones, or whose place Kafka does not have, is not used; one
that RocksDB finds broken, or that is of other topics by their ids, is made anew. Written without fsync:
it survives the process; after a crash of the machine it is behind, not wrong.

rocksdict holds the interpreter's lock while it works, so what is written at once is little.
"""

import time
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Final

import orjson
from rocksdict import Options, Rdict, ReadOptions, WriteBatch

from twin.changelog import NO_HEADERS, Kept, Newest, Place, Tail
from twin.kit import logs
from twin.wire import topics
from twin.wire.errors import CartwinError

log = logs.get(__name__)

MAX_AGE_S: Final = 43_200
_MARK: Final = {topics.TWINS: b"t", topics.LEDGER: b"l"}
_PLACE: Final = b"p"
_IDENTITY: Final = b"i"
_END: Final = b"\xff"
_NOT_READ: Final = -1
"""In place of the offset of what Kafka was not asked for."""
_BROKEN: Final = ("Corruption", "IO error: No such file")
"""How errors begin that say that the database is not whole."""
_CHUNK: Final = 500
_READ_AHEAD: Final = 4 * 1024 * 1024


class CopyUnusable(CartwinError):
    """The folder of the local copy cannot be opened."""


class CopyBroken(CartwinError):
    """A part of the copy cannot be read, or it is of something else; nothing of it is to be trusted."""


class Copy:
    """One database per worker; only one process may have it open."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            try:
                self._db = Rdict(str(folder), _options())
            except Exception as error:  # rocksdict raises bare Exception
                if not str(error).startswith(_BROKEN):
                    raise
                log.warning("local copy is broken; made anew", error=str(error)[:200])
                Rdict.destroy(str(folder), _options())
                self._db = Rdict(str(folder), _options())
        except Exception as error:
            raise CopyUnusable(
                f"STORE_DIR {folder} cannot be opened: {error}; a folder is accepted that this worker"
                " may write and no other process has open"
            ) from error

    def check(self, topic_ids: Mapping[str, str]) -> None:
        """Whether it is a copy of these topics (name -> Kafka's id), or empty and so theirs from now on.

        Raises `CopyBroken`.
        """
        try:
            known = self._db.get(_IDENTITY)
            if known is None and self._empty():
                self._db[_IDENTITY] = known = orjson.dumps(topic_ids)
            same = known is not None and orjson.loads(known) == topic_ids
        except Exception as error:
            raise CopyBroken(str(error)[:200]) from error
        if not same:
            raise CopyBroken("it is of another Kafka, or of topics that were deleted since")

    def begin_anew(self) -> None:
        """Forget everything."""
        self._db.close()
        Rdict.destroy(str(self._folder), _options())
        self._db = Rdict(str(self._folder), _options())

    def close(self) -> None:
        """Let go of the folder."""
        self._db.close()

    def write(
        self,
        records: Iterable[tuple[Place, str, bytes | None]],
        places: Mapping[Place, Kept],
    ) -> None:
        """Keep records (place, key, value or None), and of places where to read on.

        The places are kept last. Without them the records may be there or not when the process ends.
        """
        left = iter(records)
        while chunk := list(islice(left, _CHUNK)):
            batch = WriteBatch(raw_mode=True)
            for place, key, value in chunk:
                name = _prefix(place) + key.encode()
                if value is None:
                    batch.delete(name)
                else:
                    batch[name] = value
            self._db.write(batch)
        batch = WriteBatch(raw_mode=True)
        now = int(time.time())
        for place, kept in places.items():
            batch[_PLACE + _prefix(place)] = orjson.dumps([now, *kept])
        self._db.write(batch)

    def tail(self, place: Place, low: int, high: int) -> Tail | None:
        """What the copy has of a place that Kafka holds from `low` to `high`; None when it is no use.

        Then it has nothing of the place any more. Raises `CopyBroken`.
        """
        try:
            known = self._db.get(_PLACE + _prefix(place))
            if known is not None:
                at, *place_kept = orjson.loads(known)
                kept = Kept(*place_kept)
                if low <= kept.offset <= high and time.time() - at <= MAX_AGE_S:
                    return self._read(place, kept)
                log.warning(
                    "local copy is not used", place=place, offset=kept.offset, kafka=[low, high]
                )
        except Exception as error:
            raise CopyBroken(str(error)[:200]) from error
        self.drop(place)
        return None

    def _read(self, place: Place, kept: Kept) -> Tail:
        tail = Tail(kept.offset, epoch=kept.epoch, floor=kept.floor)
        newest, prefix = tail.newest, _prefix(place)
        begin = len(prefix)
        # Once through, in order.
        options = ReadOptions()
        options.set_readahead_size(_READ_AHEAD)
        rows = self._db.iter(options)
        rows.seek(prefix)
        while rows.valid() and (name := rows.key()).startswith(prefix):
            newest[name[begin:].decode()] = Newest(rows.value(), NO_HEADERS, _NOT_READ)
            rows.next()
        # It ends without a word at a block that cannot be read.
        rows.status()
        return tail

    def _empty(self) -> bool:
        rows = self._db.iter()
        rows.seek_to_first()
        found = rows.valid()
        rows.status()
        return not found

    def drop(self, place: Place) -> None:
        """Forget a place."""
        prefix = _prefix(place)
        self._db.delete_range(prefix, prefix + _END)
        self._db.delete(_PLACE + prefix)


def _options() -> Options:
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_keep_log_file_num(2)
    options.set_max_total_wal_size(256 * 1024 * 1024)
    return options


def _prefix(place: Place) -> bytes:
    topic, partition = place
    return _MARK[topic] + partition.to_bytes(4, "big")

"""`python -m models scorer`: every car's rows in, scores out.

telemetry -> rows (`intake`) -> windows, both networks, debounce (`scoring`) -> what is news
(`emission`) -> scores. One thread polls, scores and produces; models are loaded beside it and swapped
between two polls. Offsets are committed only after Kafka has acknowledged every score that came of
them, so a killed scorer scores the last second again under the same ids and loses none. A record that
cannot be read is counted and passed over: setting it aside is the twin worker's. Before there is a
champion, windows are kept warm and nothing is said.

A challenger judges the same rows from the same windows, in its own state. What it says is counted
beside the champion's and never written: no twin may ever act on it (`compare` tells the rest).
"""

import math
import signal
import threading
import time
from dataclasses import dataclass
from types import FrameType
from typing import Literal

import numpy as np
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from models import artefact, baselines, intake, registry, serving
from models.assignment import Assignment
from models.champion import ModelKeeper
from models.drift import NAMES, Drift, Told, scored_values
from models.emission import WHYS, Emission, Policy, score_record
from models.errors import NotDelivered, ReadingEnded
from models.features import Index
from models.registry import Drifted, Registration, Status, Watch
from models.scoring import STATES, Judge, Mask, Role, Vehicles, Verdicts
from models.serving import Loaded
from models.settings import ScorerSettings
from twin.kit import kafka, logs, metrics
from twin.kit.clock import Clock, SystemClock
from twin.kit.health import HealthServer
from twin.kit.registry import use_ids
from twin.wire import codec, topics

log = logs.get(__name__)

_COMMIT_S = 1.0
_FLUSH_S = 30.0
_STUCK_S = 30.0
_SETTLE_S = 60.0
_KAFKA_S = 20.0
_FAR = 20
"""So many vehicles outside the fleet are named, at most."""


def run(settings: ScorerSettings) -> int:
    """Score until SIGTERM or SIGINT; the exit code."""
    serving.threads(settings.scorer_threads)
    stop = threading.Event()

    def ask(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, ask)
    signal.signal(signal.SIGINT, ask)
    scorer = Scorer(settings, SystemClock())
    server = HealthServer(settings.health_host, settings.health_port, scorer.not_ready)
    try:
        scorer.run(stop)
    finally:
        server.close()
    return 0


@dataclass(frozen=True, slots=True)
class _Read:
    """Readable rows of one poll with their places on the log, arrays (n,)."""

    rows: intake.Rows
    partitions: Index
    offsets: Index
    arrivals: Index
    """Kafka's time stamps, ms."""
    spoken: Index
    """Indices of the rows that are not only read again to restore windows."""


class Scorer:
    """One process's share of the partitions."""

    def __init__(self, settings: ScorerSettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        policy = Policy(
            settings.score_deadband, int(settings.score_heartbeat_s * 1000), settings.score_all
        )
        self._vehicles = Vehicles(settings.scorer_vehicles)
        self._emission = Emission(policy)
        self._assignment = Assignment(
            restore_minutes=settings.scorer_restore_minutes, forget=self._forget
        )
        self._count = 0
        self._running: dict[Role, Loaded] = {}
        self._drift: Drift | None = None
        self._drift_due = 0.0
        self._far: dict[str, str] = {}
        self._failed: list[str] = []
        self._keeper: ModelKeeper | None = None
        self._doing = "waiting for Kafka"
        self._alive_at = time.monotonic()

    def not_ready(self) -> dict[str, str]:
        """Why this scorer is not ready; a scorer without a champion is."""
        if self._doing:
            return {"scorer": self._doing}
        silent = time.monotonic() - self._alive_at
        faults = {"scorer": f"no poll for {silent:.0f} s"} if silent > _STUCK_S else {}
        if self._keeper is not None and self._keeper.fault:
            faults["models"] = self._keeper.fault
        return faults

    def run(self, stop: threading.Event) -> None:
        """Poll, score, produce, commit until `stop`; then say and commit what is under way.

        Raises `KafkaUnavailable`, `RegistryUnavailable` at the start, `NotDelivered` when Kafka took a
        score for lost, `ReadingEnded` when the consumer cannot go on.
        """
        settings = self._settings
        name = f"scorer-{settings.scorer_id}"
        self._producer = kafka.producer(settings.kafka_bootstrap, name)
        needed = [topics.TELEMETRY, topics.SCORES, topics.MODEL_STATUS, topics.BASELINES]
        kafka.wait_for_topics(self._producer, needed)
        use_ids(settings)
        store = settings.location()
        keeper = ModelKeeper(
            Watch(settings.kafka_bootstrap, name),
            lambda wanted: artefact.verify(store, wanted["uri"], wanted["sha256"]),
            self._refused,
        )
        self._keeper = keeper
        keeper.start()
        self._doing = "loading the champion"
        # With the model first, what is read back restores its verdicts, too.
        deadline = time.monotonic() + _SETTLE_S
        while not (stop.is_set() or keeper.settled.wait(0.1) or time.monotonic() > deadline):
            pass
        self._consumer = kafka.consumer(
            settings.kafka_bootstrap,
            registry.SCORERS,
            name,
            **{
                "partition.assignment.strategy": "cooperative-sticky",
                "session.timeout.ms": 6_000,
            },
        )
        self._consumer.subscribe(
            [topics.TELEMETRY],
            on_assign=self._assigned,
            on_revoke=self._revoked,
            on_lost=self._assignment.lost,
        )
        self._doing = ""
        try:
            self._loop(keeper, stop)
            self._commit()
        except BaseException:
            # The rows of a broken batch count as unread: closing must not commit them.
            self._assignment.partitions.clear()
            raise
        finally:
            self._doing = "stopping"
            self._consumer.close()
            keeper.stop()
            self._producer.flush(_FLUSH_S)
        log.info("stopped")

    def _loop(self, keeper: ModelKeeper, stop: threading.Event) -> None:
        wait_s = self._settings.scorer_wait_ms / 1000
        due = time.monotonic() + _COMMIT_S
        lag = kafka.Lag(self._consumer, registry.SCORERS)
        while not stop.is_set():
            for role, model in keeper.take().items():
                self._adopt(role, model)
            try:
                messages = self._consumer.consume(self._settings.scorer_batch, wait_s)
            except KafkaException as error:
                raise _ended(error.args[0]) from error
            self._alive_at = time.monotonic()
            lag.tell(self._alive_at)
            if messages:
                with metrics.SCORER_BATCH_SECONDS.time():
                    self._take(messages)
            self._producer.poll(0)
            if time.monotonic() >= due:
                self._commit()
                due = time.monotonic() + _COMMIT_S
            drift = self._drift
            if drift is not None and drift.full and time.monotonic() >= self._drift_due:
                self._tell_drift(drift.close())

    def _adopt(self, role: Role, model: Loaded | None) -> None:
        former = self._running.pop(role, None)
        if former is not None:
            metrics.SCORER_MODEL.remove(former.name, former.version, role)
        self._vehicles.adopt(role, model)
        if role == "champion":
            self._restore(set(self._assignment.partitions))
            known = None if model is None else model.drift
            self._drift = None if known is None else Drift(known)
            self._drift_due = time.monotonic() + self._settings.scorer_drift_s
        if model is not None:
            self._running[role] = model
            metrics.SCORER_MODEL.labels(model.name, model.version, role).set(1)
            log.info("model in use", role=role, version=model.version)
            self._tell(role, model.name, model.version, "running", "")
        elif former is not None:
            self._tell(role, former.name, former.version, "retired", "")

    def _take(self, messages: list[Message]) -> None:
        batch = self._read(messages)
        now = self._clock.now_ms()
        vehicles, judges = self._vehicles, self._vehicles.judges
        prepared = vehicles.prepare(batch.rows.batch(batch.partitions, batch.arrivals), now)
        self._emission.forget(vehicles.handed_over)
        if self._drift is not None:
            self._drift.forget(vehicles.handed_over)
        for result, count in vehicles.counts.items():
            known = "no_model" if not judges and result == "scored" else result
            metrics.SCORER_ROWS.labels(known).inc(count)
        vehicles.counts.clear()
        champion, challenger = judges.get("champion"), judges.get("challenger")
        if champion is None or not prepared.rows.size:
            return
        verdicts = champion.judge(prepared)
        heard = np.isin(verdicts.rows, batch.spoken)
        self._keep(champion, prepared.slots[prepared.good])
        self._say(champion, batch, verdicts, heard, prepared.times, now)
        if self._drift is not None:
            self._drift.push(*scored_values(prepared, verdicts))
        if challenger is not None:
            try:
                _count_shadow(verdicts, challenger.judge(prepared), heard)
            except Exception as error:  # what breaks in a challenger must not stop the champion
                log.exception("the challenger is left")
                self._leave(f"it failed on a batch: {error!r:.200}")

    def _read(self, messages: list[Message]) -> _Read:
        """The rows of records that lie where they belong; positions move on."""
        owned = self._assignment.partitions
        taken: list[Message] = []
        for message in messages:
            error = message.error()
            if error is not None:
                if error.fatal():
                    raise _ended(error)
                kafka.log_error(error)
            elif message.partition() in owned:  # else revoked while it was in this batch
                taken.append(message)
        numbers = [message.partition() or 0 for message in taken]
        offsets = [message.offset() or 0 for message in taken]
        # Of each partition the last one counts: the log's order holds within a batch.
        for number, place in dict(zip(numbers, range(len(taken)), strict=True)).items():
            owned[number].position = offsets[place] + 1
            owned[number].timestamp = taken[place].timestamp()[1]
        keys = [_bytes(message.key()) for message in taken]
        rows = intake.read(keys, [message.value() for message in taken])
        speak_from = {number: part.speak_from for number, part in owned.items()}
        partitions, places = np.array(numbers, np.int64), np.array(offsets, np.int64)
        spoken = places >= np.array([speak_from[number] for number in numbers], np.int64)
        at = rows.places
        ids = rows.ids()
        home = intake.at_home(ids, partitions[at], self._vehicles.homes(ids), self._count)
        if not home.all():
            rows = rows.only(home)
            at = rows.places
        metrics.SCORER_ROWS.labels("unreadable").inc(int(spoken.sum()) - int(spoken[at].sum()))
        came = np.array([message.timestamp()[1] for message in taken], np.int64)
        return _Read(rows, partitions[at], places[at], came[at], np.flatnonzero(spoken[at]))

    def _keep(self, judge: Judge, slots: Index) -> None:
        """Write the baselines that these cars have learnt, each once."""
        cars, there, base = judge.trends.fresh(slots)
        for i, vehicle_id in enumerate(self._vehicles.store.ids(cars)):
            said = baselines.record(judge.model.version, vehicle_id, there[i], base[i])
            self._produce(topics.BASELINES, vehicle_id.encode(), said, _JSON)

    def _restore(self, partitions: set[int]) -> None:
        """Baselines of partitions that were taken over, or of a champion that was taken up."""
        champion = self._vehicles.judges.get("champion")
        if champion is None or not partitions:
            return
        began, cars = time.monotonic(), 0
        name = f"scorer-{self._settings.scorer_id}"
        try:
            for number, known in baselines.read(
                self._settings.kafka_bootstrap, name, partitions, champion.model.version
            ).items():
                cars += self._vehicles.restore(
                    known.ids, number, known.there, known.base, self._clock.now_ms()
                )
        except (kafka.KafkaUnavailable, KafkaException) as error:
            log.warning("baselines are learnt anew", why=str(error), partitions=len(partitions))
        took = round(time.monotonic() - began, 2)
        log.info("baselines restored", cars=cars, partitions=len(partitions), seconds=took)

    def _say(
        self,
        judge: Judge,
        batch: _Read,
        verdicts: Verdicts,
        heard: Mask,
        times: Index,
        now: int,
    ) -> None:
        """Write what is news among the rows that are not only read again."""
        model = judge.model
        why = self._emission.news(model, verdicts, times)
        scored = heard & ~np.isnan(verdicts.score)
        ages = np.maximum(now - times[scored], 0) / 1000
        metrics.SCORER_EVENT_AGE.observe_all(ages.tolist())
        metrics.SCORER_ALARMS.labels("champion").inc(int((verdicts.opened & heard).sum()))
        for i in np.flatnonzero(heard & (why >= 0)).tolist():
            verdict, reason = verdicts.one(i), WHYS[why[i]]
            sample = batch.rows.samples[verdict.row]
            record = score_record(
                model,
                sample,
                verdict,
                reason,
                partition=int(batch.partitions[verdict.row]),
                offset=int(batch.offsets[verdict.row]),
                now_ms=now,
            )
            metrics.SCORER_SCORES.labels(verdict.state, reason).inc()
            self._produce(topics.SCORES, sample.vehicle_id.encode(), codec.dump(record), _JSON)

    def _commit(self) -> None:
        """Commit what is read, once everything said of it is in Kafka."""
        commits = self._assignment.commits(topics.TELEMETRY)
        if not commits:
            return
        self._delivered()
        try:
            self._consumer.commit(offsets=commits, asynchronous=False)
        except KafkaException as error:
            # Not ours any more, or Kafka is away: the next owner scores it again, ids are the same.
            log.warning("offsets are not committed", error=error.args[0].str())

    def _assigned(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        found = consumer.list_topics(topics.TELEMETRY, timeout=_KAFKA_S).topics[topics.TELEMETRY]
        self._count = len(found.partitions)
        self._assignment.assigned(consumer, partitions)
        self._restore({each.partition for each in partitions})

    def _revoked(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._commit()
        self._assignment.lost(consumer, partitions)
        consumer.incremental_unassign(partitions)

    def _forget(self, partition: int) -> None:
        slots = self._vehicles.release(partition)
        self._emission.forget(slots)
        if self._drift is not None:
            self._drift.forget(slots)

    def _delivered(self) -> None:
        left = self._producer.flush(_FLUSH_S)
        while left and not self._failed:
            log.warning("waiting for Kafka to take scores", left=left)
            self._alive_at = time.monotonic()
            left = self._producer.flush(_FLUSH_S)
        if self._failed:
            raise NotDelivered(f"Kafka did not take a score: {self._failed[0]}")

    def _produce(self, topic: str, key: bytes | None, value: bytes, headers: kafka.Headers) -> None:
        while True:
            try:
                self._producer.produce(
                    topic, value, key, headers=list(headers), on_delivery=self._told
                )
                return
            except BufferError:
                self._producer.poll(0.1)

    def _told(self, error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            self._failed.append(error.str())

    def _refused(self, wanted: Registration, role: Role, why: str) -> None:
        self._tell(role, wanted["name"], wanted["version"], "refused", why)

    def _tell_drift(self, told: Told) -> None:
        """A window's figures as metrics; what changed with it as records."""
        self._drift_due = time.monotonic() + self._settings.scorer_drift_s
        for name, psi in zip(NAMES, told.psi.tolist(), strict=True):
            metrics.SCORER_DRIFT.labels(name).set(psi)
        metrics.SCORER_DRIFTED_CARS.set(told.cars.size)
        for change in told.changes:
            log.info("drift", feature=change.name, state=change.state, psi=change.psi)
            record = self._drifted()
            record["feature"], record["state"] = change.name, change.state
            record["psi"] = None if math.isnan(change.psi) else round(change.psi, 4)
            self._say_drift(change.name, record)
        ids = self._vehicles.store.ids(told.cars[:_FAR])
        far = {
            vehicle_id: NAMES[which]
            for vehicle_id, which in zip(ids, told.which[:_FAR].tolist(), strict=True)
        }
        if far != self._far:
            self._far = far
            log.info("vehicles outside the fleet", count=told.cars.size, vehicles=far)
            record = self._drifted()
            record["vehicles"], record["count"] = far, told.cars.size
            self._say_drift("vehicles", record)

    def _drifted(self) -> Drifted:
        model, scorer = self._running["champion"], self._settings.scorer_id
        now = self._clock.now_ms()
        return Drifted(scorer=scorer, name=model.name, version=model.version, at=now)

    def _say_drift(self, what: str, record: Drifted) -> None:
        key = f"{self._settings.scorer_id}/drift/{what}"
        self._produce(topics.MODEL_STATUS, key.encode(), codec.dump(record), _JSON)

    def _leave(self, why: str) -> None:
        """Go on without the challenger."""
        model = self._running["challenger"]
        self._adopt("challenger", None)
        self._tell("challenger", model.name, model.version, "refused", why)

    def _tell(
        self,
        role: Role,
        name: str,
        version: str,
        state: Literal["running", "refused", "retired"],
        why: str,
    ) -> None:
        scorer = self._settings.scorer_id
        status = Status(
            scorer=scorer,
            name=name,
            role=role,
            version=version,
            state=state,
            why=why,
            at=self._clock.now_ms(),
        )
        key = scorer if role == "champion" else f"{scorer}/{role}"
        self._produce(topics.MODEL_STATUS, key.encode(), codec.dump(status), _JSON)


_JSON: kafka.Headers = [("content-type", codec.JSON.encode())]


def _count_shadow(champion: Verdicts, challenger: Verdicts, heard: Mask) -> None:
    """Count what both made of the rows; both have a verdict for the same rows."""
    pairs = champion.states[heard].astype(np.int64) * len(STATES) + challenger.states[heard]
    counts = np.bincount(pairs, minlength=len(STATES) ** 2).reshape(len(STATES), -1)
    for said, row in zip(STATES, counts.tolist(), strict=True):
        for other, count in zip(STATES, row, strict=True):
            if count:
                metrics.SCORER_SHADOW.labels(said, other).inc(count)
    metrics.SCORER_ALARMS.labels("challenger").inc(int((challenger.opened & heard).sum()))


def _ended(error: KafkaError) -> ReadingEnded:
    return ReadingEnded(
        f"reading topic {topics.TELEMETRY} cannot go on: {error.str()} ({error.name()})"
    )


def _bytes(key: bytes | str | None) -> bytes | None:
    return key.encode() if isinstance(key, str) else key

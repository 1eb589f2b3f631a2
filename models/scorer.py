"""`python -m models scorer`: every car's rows in, scores out.

telemetry -> rows (`intake`) -> windows, both models, debounce (`scoring`) -> what is news
(`emission`) -> scores. One thread polls, scores and produces; the champion is loaded beside it and
swapped between two polls. Offsets are committed only after Kafka has acknowledged every score that
came of them, so a killed scorer scores the last second again under the same ids and loses none. A
record that cannot be read is counted and passed over: setting it aside is the twin worker's. Before
there is a champion, windows are kept warm and nothing is said.
"""

import signal
import threading
import time
from types import FrameType

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from models import intake, registry, serving
from models.assignment import Assignment
from models.champion import ChampionKeeper
from models.emission import Policy, score_record
from models.errors import NotDelivered
from models.registry import Registration, Status, Watch
from models.scoring import Model, Verdict, assess
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


class Scorer:
    """One process's share of the partitions."""

    def __init__(self, settings: ScorerSettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._assignment = Assignment(
            policy=Policy(settings.score_deadband, int(settings.score_heartbeat_s * 1000)),
            limit=settings.scorer_vehicles,
            restore_minutes=settings.scorer_restore_minutes,
        )
        self._model: Loaded | None = None
        self._failed: list[str] = []
        self._doing = "waiting for Kafka"
        self._alive_at = time.monotonic()

    def not_ready(self) -> dict[str, str]:
        """Why this scorer is not ready; a scorer without a champion is."""
        if self._doing:
            return {"scorer": self._doing}
        silent = time.monotonic() - self._alive_at
        return {"scorer": f"no poll for {silent:.0f} s"} if silent > _STUCK_S else {}

    def run(self, stop: threading.Event) -> None:
        """Poll, score, produce, commit until `stop`; then say and commit what is under way.

        Raises `KafkaUnavailable`, `RegistryUnavailable` at the start, `NotDelivered` when Kafka took a
        score for lost.
        """
        settings = self._settings
        name = f"scorer-{settings.scorer_id}"
        self._producer = kafka.producer(settings.kafka_bootstrap, name)
        needed = [topics.TELEMETRY, topics.SCORES, topics.MODEL_STATUS]
        kafka.wait_for_topics(self._producer, needed)
        use_ids(settings)
        keeper = ChampionKeeper(
            Watch(settings.kafka_bootstrap, name), settings.model_store, self._refused
        )
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
            on_assign=self._assignment.assigned,
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

    def _loop(self, keeper: ChampionKeeper, stop: threading.Event) -> None:
        wait_s = self._settings.scorer_wait_ms / 1000
        due = time.monotonic() + _COMMIT_S
        while not stop.is_set():
            newer = keeper.take()
            if newer is not None:
                self._adopt(newer)
            messages = self._consumer.consume(self._settings.scorer_batch, wait_s)
            self._alive_at = time.monotonic()
            if messages:
                with metrics.SCORER_BATCH_SECONDS.time():
                    self._take(messages)
            self._producer.poll(0)
            if time.monotonic() >= due:
                self._commit()
                due = time.monotonic() + _COMMIT_S

    def _adopt(self, model: Loaded) -> None:
        if self._model is not None:
            metrics.SCORER_MODEL.remove(self._model.name, self._model.version)
        for owned in self._assignment.partitions.values():
            owned.vehicles.adopt(model)
        self._model = model
        metrics.SCORER_MODEL.labels(model.name, model.version).set(1)
        log.info("champion in use", version=model.version)
        self._tell(model.name, model.version, "running", "")

    def _take(self, messages: list[Message]) -> None:
        records = []
        for message in messages:
            error = message.error()
            if error is not None:
                log.warning("reading telemetry", error=error.str())
                continue
            record = _record(message)
            owned = self._assignment.partitions.get(record.partition)
            if owned is None:  # revoked while it was in this batch
                continue
            owned.position = record.offset + 1
            owned.timestamp = message.timestamp()[1]
            records.append(record)
        now = self._clock.now_ms()
        rows, unreadable = intake.read(records)
        for record in unreadable:
            if record.offset >= self._assignment.partitions[record.partition].speak_from:
                metrics.SCORER_ROWS.labels("unreadable").inc()
        self._score(rows, now)

    def _score(self, rows: dict[int, intake.Rows], now: int) -> None:
        owners = [self._assignment.partitions[number] for number in rows]
        work = [
            (owned.vehicles, part.batch())
            for owned, part in zip(owners, rows.values(), strict=True)
        ]
        model = self._model
        if model is None:
            for vehicles, batch in work:
                vehicles.prepare(batch, now)
        elif work:
            for (number, part), verdicts in zip(
                rows.items(), assess(model, work, now), strict=True
            ):
                for verdict in verdicts:
                    self._say(model, number, part, verdict, now)
        for owned in owners:
            for result, count in owned.vehicles.counts.items():
                known = "no_model" if model is None and result == "scored" else result
                metrics.SCORER_ROWS.labels(known).inc(count)
            owned.vehicles.counts.clear()

    def _say(
        self, model: Model, number: int, part: intake.Rows, verdict: Verdict, now: int
    ) -> None:
        row, offset = part.rows[verdict.row], part.offsets[verdict.row]
        owned = self._assignment.partitions[number]
        why = owned.emission.why(model, row.vehicle_id, row.event_time, verdict)
        if offset < owned.speak_from:
            return
        if verdict.score is not None:
            metrics.SCORER_EVENT_AGE.observe(max(now - row.event_time, 0) / 1000)
        if why is None:
            return
        record = score_record(model, row, verdict, why, partition=number, offset=offset, now_ms=now)
        metrics.SCORER_SCORES.labels(verdict.state, why).inc()
        self._produce(topics.SCORES, row.vehicle_id.encode(), codec.dump(record), _JSON)

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

    def _revoked(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._commit()
        self._assignment.lost(consumer, partitions)
        consumer.incremental_unassign(partitions)

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

    def _refused(self, wanted: Registration, why: str) -> None:
        self._tell(wanted["name"], wanted["version"], "refused", why)

    def _tell(self, name: str, version: str, state: str, why: str) -> None:
        status = Status(
            scorer=self._settings.scorer_id,
            name=name,
            version=version,
            state="running" if state == "running" else "refused",
            why=why,
            at=self._clock.now_ms(),
        )
        key = self._settings.scorer_id.encode()
        self._produce(topics.MODEL_STATUS, key, codec.dump(status), _JSON)


_JSON: kafka.Headers = [("content-type", codec.JSON.encode())]


def _record(message: Message) -> intake.Record:
    partition, offset = message.partition(), message.offset()
    assert partition is not None
    assert offset is not None
    return intake.Record(partition, offset, message.key(), message.value())

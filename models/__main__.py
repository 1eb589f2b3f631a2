"""`python -m models`: simulate, train, evaluate, list, compare, promote, rollback, retire, scorer.

Each command imports what it needs inside its branch: simulating and listing start without
TensorFlow. Exit codes: 0 done, 1 it could not be done or was not good enough, 2 usage.
"""

import argparse
import logging
import os
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeVar

import orjson

from models.errors import ArtefactRefused
from models.progress import FORMS
from models.settings import ScorerSettings, SimulateSettings, StoreSettings, TrainerSettings
from models.simulator import DROPOUT
from models.store import location
from twin.kit import logs
from twin.kit.registry import use_ids
from twin.kit.settings import Settings
from twin.wire import topics
from twin.wire.errors import CartwinError

_S = TypeVar("_S", bound=Settings)

_DESCRIPTION: Final = """\
Models of engine failure: a masked autoencoder (what is abnormal now) and an LSTM (what fails within
the horizon), trained from the Kafka log, scored on the stream.

  python -m models simulate --vehicles 160 --days 10 --seed 1 --topic history
  python -m models train --topic history
  python -m models list
  python -m models scorer

  python -m models promote VERSION --as challenger
  python -m models compare --topic history
  python -m models promote VERSION
  python -m models rollback

Settings come from the environment: KAFKA_BOOTSTRAP (127.0.0.1:9092), MODEL_STORE (.cartwin/models,
or s3://bucket/path, gs://bucket/path)."""

_IDS_S: Final = 20.0
"""A command waits so long for a schema registry; a process of the service waits longer."""

_SIMULATE: Final = """\
Write a seeded history of simulated cars into Kafka: telemetry as the uplink writes it, the truth
(mode, onset, failure time, health) to topic truth. Components wear --acceleration times faster than
the clock runs, so 10 component days at 1440 are 600 s of driving, 600 rows a car at --interval-s 1.

  python -m models simulate --vehicles 160 --days 10 --seed 1 --topic history
  python -m models simulate --vehicles 5 --days 1 --seed 1 --start 2026-01-01T00:00:00Z --json
  python -m models simulate --vehicles 600 --days 6 --seed 1 --parquet past --acceleration 360

Topic history is for training only; what is written to telemetry becomes twins."""

_TRAIN: Final = """\
Read telemetry and truth through tensorflow-io, train both models, calibrate their thresholds on
healthy cars that they were not trained on, measure them on a third set of cars, store the artefact,
and make it champion when it is good enough (or with --promote-anyway). Running scorers load it.

  python -m models train --topic history
  python -m models train --topic history --seed 3 --epochs 20 --json
  python -m models train --parquet past --acceleration 360 --tensorboard runs"""

_EVALUATE: Final = """\
Measure a stored model on a topic whose truth is known: failures found and how long before, healthy
cars that alarmed, AUC; beside it principal components (T2, Q) as the plain baseline.

  python -m models evaluate --topic history
  python -m models evaluate --topic telemetry --version engine-20260101T000000Z-0123abcd"""

_LIST: Final = """\
Stored models, oldest first; * marks the champion and + the challenger, if Kafka answers.

  python -m models list
  python -m models list --json"""

_COMPARE: Final = """\
Score a topic whose truth is known with champion and challenger, the way a scorer does, and tell
whether one is better: recall while equally many healthy cars alarm, false alarms, lead, CPU a row;
each difference with the 95 % interval of a bootstrap over cars. Exit code 1: the challenger is worse.

  python -m models compare --topic history
  python -m models compare --topic history --challenger engine-20260101T000000Z-0123abcd --json"""

_PROMOTE: Final = """\
Make a stored model the champion, or the challenger: that one scores beside the champion, and what it
says is counted and written nowhere. Running scorers load it. A challenger learns each car's baseline
meanwhile and keeps it as champion; a champion from nowhere learns them first, and until then a car
keeps the state that it had.

  python -m models promote engine-20260101T000000Z-0123abcd
  python -m models promote engine-20260101T000000Z-0123abcd --as challenger"""

_ROLLBACK: Final = """\
Make the champion before the present one champion again. It is loaded here first; one that no scorer
would take is named and passed over. Running scorers load it.

  python -m models rollback
  python -m models rollback --json"""

_RETIRE: Final = """\
End the challenger's role: scorers go on with the champion alone.

  python -m models retire"""

_SCORER: Final = """\
Score every car on the stream: topic telemetry to topic scores, with the champion of topic models.
Runs until SIGTERM. Start one per share of the partitions.

  python -m models scorer
  SCORER_THREADS=2 HEALTH_PORT=8083 python -m models scorer"""


def main(arguments: list[str] | None = None) -> int:
    """Run one command; its exit code."""
    options = _parser().parse_args(arguments)
    # TensorFlow talks on stderr before anyone can stop it.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    run: Callable[[argparse.Namespace], int] = options.run
    try:
        return run(options)
    except CartwinError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except KeyboardInterrupt:
        return 130


def _simulate(options: argparse.Namespace) -> int:
    from models.simulate import Plan, simulate  # noqa: PLC0415

    settings = _settings(SimulateSettings, "simulate")
    span_ms = round(options.days * 86_400_000 / options.acceleration)
    start_ms = int(time.time() * 1000) - span_ms if options.start is None else options.start
    plan = Plan(
        vehicles=options.vehicles,
        days=options.days,
        seed=options.seed,
        start_ms=start_ms,
        interval_s=options.interval_s,
        acceleration=options.acceleration,
        topic=options.topic,
        parking=options.parking,
        dropout=options.dropout,
        late=options.late,
        repeated=options.repeated,
    )
    if options.parquet is not None:
        if options.late or options.repeated:
            options.usage("--late and --repeated are of a log; with --parquet neither is accepted")
        from models import parquet  # noqa: PLC0415

        result = parquet.write(options.parquet, plan, options.progress)
        where = result["folder"]
    else:
        use_ids(settings, _IDS_S)
        result = simulate(settings.kafka_bootstrap, plan, options.progress)
        where = result["topic"]
    _result(
        options,
        result,
        f"{result['rows']} rows of {result['vehicles']} vehicles are in {where};"
        f" {result['failures']} of them failed",
    )
    return 0


def _train(options: argparse.Namespace) -> int:
    settings = _settings(TrainerSettings, "train")
    from models.report import text  # noqa: PLC0415
    from models.serving import threads  # noqa: PLC0415
    from models.train import Options, train  # noqa: PLC0415

    use_ids(settings, _IDS_S)
    threads(settings.trainer_threads)
    result = train(
        settings.kafka_bootstrap,
        Options(
            topic=options.topic,
            truth_topic=options.truth_topic,
            parquet=options.parquet,
            caches=settings.trainer_cache,
            store=settings.location(options.store),
            seed=options.seed,
            epochs=options.epochs,
            max_rows=options.max_rows,
            horizon_s=options.horizon_s,
            acceleration=options.acceleration,
            promote_anyway=options.promote_anyway,
            board=options.tensorboard,
        ),
        options.progress,
        now_ms=int(time.time() * 1000),
    )
    verdict = "champion" if result["promoted"] else "stored, and not promoted"
    lines = [f"{result['version']}: {verdict}", *(f"  {why}" for why in result["why_not"])]
    _result(options, result, "\n".join([*lines, text(result["metrics"])]))
    return 0 if result["promoted"] else 1


def _evaluate(options: argparse.Namespace) -> int:
    settings = _settings(TrainerSettings, "evaluate")
    from models.evaluation import evaluate  # noqa: PLC0415
    from models.report import text  # noqa: PLC0415
    from models.serving import threads  # noqa: PLC0415

    use_ids(settings, _IDS_S)
    threads(settings.trainer_threads)
    result = evaluate(
        settings.kafka_bootstrap,
        settings.location(options.store),
        options.version,
        topic=options.topic,
        truth_topic=options.truth_topic,
        max_rows=options.max_rows,
        caches=settings.trainer_cache,
        form=options.progress,
    )
    _result(options, result, f"{result['version']} on {options.topic}\n{text(result['metrics'])}")
    return 0


def _list(options: argparse.Namespace) -> int:
    from models import artefact, registry  # noqa: PLC0415

    settings = _settings(StoreSettings, "list")
    store = settings.location(options.store)
    role_of: dict[str, str] = {}
    try:
        found = registry.roles(settings.kafka_bootstrap)
        role_of = {record["version"]: role for role, record in found.items()}
    except CartwinError as error:
        sys.stderr.write(f"the champion is not known: {error}\n")
    told = [
        {
            "version": made.version,
            "champion": role_of.get(made.version) == "champion",
            "role": role_of.get(made.version),
            "created_at": made.manifest["created_at"],
            "feature_hash": made.manifest["features"]["hash"],
            **made.manifest["metrics"]["summary"],
        }
        for made in artefact.listing(store)
    ]
    marks = {"champion": "*", "challenger": "+", None: " "}
    lines = [
        f"{marks[one['role']]} {one['version']}  AUC {one['auc']},"
        f" {one['detected']} of {one['failures']} failures,"
        f" {one['false_alarms']} of {one['healthy']} healthy cars alarmed"
        for one in told
    ]
    _result(
        options, {"store": str(store), "models": told}, "\n".join(lines) or f"no model in {store}"
    )
    return 0


def _compare(options: argparse.Namespace) -> int:
    settings = _settings(TrainerSettings, "compare")
    from models.comparison import compare  # noqa: PLC0415
    from models.paired import text  # noqa: PLC0415
    from models.serving import threads  # noqa: PLC0415

    use_ids(settings, _IDS_S)
    threads(settings.trainer_threads)
    result = compare(
        settings.kafka_bootstrap,
        settings.location(options.store),
        {"champion": options.champion, "challenger": options.challenger},
        topic=options.topic,
        truth_topic=options.truth_topic,
        max_rows=options.max_rows,
        caches=settings.trainer_cache,
        budget=options.budget,
        seed=options.seed,
        form=options.progress,
    )
    _result(options, result, text(result))
    return 1 if result["verdict"] == "worse" else 0


def _promote(options: argparse.Namespace) -> int:
    settings = _settings(StoreSettings, "promote")
    from models import artefact, edge, registry, serving  # noqa: PLC0415

    made = artefact.verify(settings.location(options.store), options.version)
    # What a scorer would refuse is refused here already.
    serving.load(made)
    record = registry.registration(made, options.role)
    if options.role == "champion":
        registry.promote(settings.kafka_bootstrap, record, edge.package(made))
    else:
        registry.challenge(settings.kafka_bootstrap, record)
    _result(options, dict(record), f"{options.version} is {options.role}")
    return 0


def _rollback(options: argparse.Namespace) -> int:
    settings = _settings(StoreSettings, "rollback")
    from models import artefact, edge, registry, serving  # noqa: PLC0415

    store = settings.location(options.store)
    present = registry.current(settings.kafka_bootstrap)
    record = registry.preceding(present)
    while True:
        try:
            made = artefact.verify(store, record["uri"], record["sha256"])
            serving.load(made)
            package = edge.package(made)
            break
        except ArtefactRefused as error:
            sys.stderr.write(f"passed over: {error}\n")
            record = registry.preceding(record)
    registry.restore(settings.kafka_bootstrap, record, package)
    gone = present["version"] if present else None
    _result(
        options,
        {**record, "instead_of": gone},
        f"{record['version']} is champion again, instead of {gone}",
    )
    return 0


def _retire(options: argparse.Namespace) -> int:
    from models import registry  # noqa: PLC0415

    settings = _settings(StoreSettings, "retire")
    record = registry.retire(settings.kafka_bootstrap)
    _result(options, dict(record), f"{record['version']} is challenger no more")
    return 0


def _scorer(_options: argparse.Namespace) -> int:
    settings = _settings(ScorerSettings, "scorer")
    from models.scorer import run  # noqa: PLC0415

    return run(settings)


def _settings(kind: type[_S], process: str) -> _S:
    settings = kind.load()
    logs.configure(process, settings.log_level, settings.log_format)
    # Deprecations inside tensorflow and its converter are nothing that a user could act on.
    for name in ("tensorflow", "absl"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return settings


def _result(options: argparse.Namespace, value: dict[str, Any], text: str) -> None:
    sys.stdout.write((orjson.dumps(value).decode() if options.json else text) + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m models", description=_DESCRIPTION, formatter_class=_Help
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def command(
        name: str, run: Callable[[argparse.Namespace], int], text: str
    ) -> argparse.ArgumentParser:
        made = commands.add_parser(
            name,
            description=text,
            help=text.replace("\n", " ").split(". ")[0].split(": ")[0],
            formatter_class=_Help,
        )
        made.set_defaults(run=run, usage=made.error)
        return made

    simulate = command("simulate", _simulate, _SIMULATE)
    simulate.add_argument("--vehicles", type=_whole, required=True, help="number of cars")
    simulate.add_argument("--days", type=_positive, required=True, help="component days")
    simulate.add_argument("--seed", type=int, required=True, help="same seed, same cars and faults")
    simulate.add_argument("--interval-s", type=_positive, default=1.0, help="time between rows")
    simulate.add_argument("--acceleration", type=_positive, default=1440.0, help=_ACCELERATION)
    simulate.add_argument("--topic", default=topics.TELEMETRY, choices=_LOGS, help="where to")
    simulate.add_argument(
        "--start", type=_moment, help="ISO 8601 time before the first row (default: it ends now)"
    )

    simulate.add_argument(
        "--parking", action="store_true", help="cars switch off between trips, and are silent then"
    )
    shares = {
        "dropout": (DROPOUT, "of single signals that are absent"),
        "late": (0.0, "of rows that come after newer ones"),
        "repeated": (0.0, "of rows that come twice"),
    }
    for name, (share, help_) in shares.items():
        simulate.add_argument(f"--{name}", type=_share, default=share, help=f"share {help_}")
    simulate.add_argument(
        "--parquet", type=Path, help="an empty folder for telemetry and truth, instead of Kafka"
    )

    train = command("train", _train, _TRAIN)
    train.add_argument(
        "--parquet", type=Path, help="a folder to read, as simulate --parquet writes it"
    )
    train.add_argument("--tensorboard", type=Path, help="folder for the losses of each epoch")
    train.add_argument("--seed", type=int, default=1, help="of split, weights and sampling")
    train.add_argument(
        "--epochs", type=_whole, default=16, help="at most, for the autoencoder; the LSTM takes all"
    )
    train.add_argument(
        "--horizon-s", type=_whole, default=86_400, help="failure within this component time"
    )
    train.add_argument("--acceleration", type=_positive, default=1440.0, help=_ACCELERATION)
    train.add_argument(
        "--promote-anyway", action="store_true", help="champion whatever its figures are"
    )

    evaluate = command("evaluate", _evaluate, _EVALUATE)
    evaluate.add_argument("--version", help="a stored model (default: the champion)")
    compare = command("compare", _compare, _COMPARE)
    for role in _ROLES:
        compare.add_argument(f"--{role}", help=f"a stored model (default: the {role})")
    compare.add_argument(
        "--budget", type=_share, default=0.02, help="share of healthy cars that may alarm (0.02)"
    )
    compare.add_argument("--seed", type=int, default=1, help="of the bootstrap")
    for made in (train, evaluate, compare):
        made.add_argument("--topic", default=topics.TELEMETRY, choices=_LOGS, help="what to read")
        made.add_argument("--truth-topic", default=topics.TRUTH, help="what is known of the cars")
        made.add_argument(
            "--max-rows", type=_whole, default=2_000_000, help="only about the newest so many"
        )

    listing = command("list", _list, _LIST)
    promote = command("promote", _promote, _PROMOTE)
    promote.add_argument("version", help="as `list` shows it")
    promote.add_argument(
        "--as", dest="role", choices=_ROLES, default="champion", help="which role it gets"
    )
    rollback = command("rollback", _rollback, _ROLLBACK)
    retire = command("retire", _retire, _RETIRE)
    command("scorer", _scorer, _SCORER)

    for made in (train, evaluate, listing, compare, promote, rollback):
        made.add_argument("--store", type=_store, help="where models lie (default: MODEL_STORE)")
    for made in (simulate, train, evaluate, compare):
        made.add_argument(
            "--progress", choices=FORMS, default="auto", help="bar on a terminal, lines elsewhere"
        )
    for made in (simulate, train, evaluate, listing, compare, promote, rollback, retire):
        made.add_argument("--json", action="store_true", help="one JSON line on stdout")
    return parser


_ROLES: Final = ("champion", "challenger")
_LOGS: Final = (topics.TELEMETRY, topics.HISTORY)
_ACCELERATION: Final = "component seconds in a second of the clock"


class _Help(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    """Descriptions keep their lines; defaults are shown."""


def _whole(text: str) -> int:
    value = int(text) if text.isdecimal() else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r}; a whole number from 1 is accepted")
    return value


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r}; a number above 0 is accepted")
    return value


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text!r}; a share from 0 to below 1 is accepted")
    return value


def _store(text: str) -> str:
    try:
        location(text, Path())
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}; {error}") from error
    return text


def _moment(text: str) -> int:
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"{text!r}; an ISO 8601 time as 2026-01-01T00:00:00Z is accepted"
        ) from error
    return round((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)


if __name__ == "__main__":
    sys.exit(main())

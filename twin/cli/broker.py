"""`cartwin broker ...`: configuration of MQTT brokers, and certificates for them."""

import signal
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, nullcontext
from enum import StrEnum
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from twin.cli import output
from twin.kit import metrics
from twin.kit.health import HealthAddressUnusable, HealthServer
from twin.local import LocalError, account, ca, refusals
from twin.local.broker_config import BrokerSettings, Kind, Need, files

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Configure an MQTT broker, and make certificates for brokers, services and cars.",
)
authority = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="""A small certificate authority, for tests and fleets of up to some thousand cars.

    `init` once, then `issue` for each car. The folder `private` never leaves this machine, `broker`
    goes to the broker, `services` to uplink and downlink, a file pair of `cars` into each car.""",
)
app.add_typer(authority, name="ca")


class Broker(StrEnum):
    """What is configured."""

    MOSQUITTO = "mosquitto"
    AMQTT = "amqtt"
    HIVEMQ = "hivemq"


class Access(StrEnum):
    """Who may come in."""

    LOOPBACK = "loopback"
    TLS = "tls"
    PASSWORD = "password"  # noqa: S105 - the name of a mode


@app.command()
def config(
    kind: Annotated[Broker, typer.Option(help="Which broker.")],
    rate: Annotated[
        float, typer.Option(min=0.1, help="Messages/s that one uplink reads from this broker.")
    ],
    outage: Annotated[
        float,
        typer.Option(
            min=1, help="Seconds that the uplink or Kafka may be away and nothing is lost."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder to write to.")],
    message_bytes: Annotated[
        int, typer.Option(min=1, help="Mean size of a message's payload; rather too large.")
    ] = 512,
    mode: Annotated[
        Access,
        typer.Option(
            help="loopback = this machine only, everybody may do everything; tls = certificates;"
            " password = user names, for development (Mosquitto)."
        ),
    ] = Access.LOOPBACK,
    tls: Annotated[
        Path | None,
        typer.Option(
            help="Mode tls: folder `broker` of `cartwin broker ca`, as the broker sees it."
        ),
    ] = None,
    host: Annotated[
        str | None,
        typer.Option(help="Address to listen on; default: 127.0.0.1, or 0.0.0.0 under TLS."),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help="Default: 1883, or 8883 for the cars under TLS."),
    ] = None,
    services_port: Annotated[
        int,
        typer.Option(
            min=1,
            max=65535,
            help="Uplink and downlink, modes tls and password (there on 127.0.0.1 only).",
        ),
    ] = 8884,
    folder: Annotated[
        Path | None,
        typer.Option(help="Where the broker finds these files and keeps its data; default: --out."),
    ] = None,
    deny: Annotated[
        list[str] | None,
        typer.Option(
            help="Vehicle that may do nothing any more; may be repeated. Mosquitto reads it at SIGHUP,"
            " HiveMQ when it starts."
        ),
    ] = None,
    trace: Annotated[
        bool, typer.Option("--trace", help="Mosquitto: log each packet, and so what it refused.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print what was made as JSON.")] = False,
) -> None:
    """Write the configuration of a broker that keeps what an absent uplink misses.

    A broker drops what goes beyond its queue and tells nobody; Mosquitto and HiveMQ keep 1,000
    messages by default, which is half a second of 2,000 cars. What has to be kept is **rate x
    outage**:

    `cartwin broker config --kind mosquitto --rate 5000 --outage 600 --out broker`

    keeps 3 million messages, 1.5 GB of the broker's memory. With mode tls every client has a
    certificate, and a car may write and read topics of its own id only:

    `cartwin broker ca init --dir ca --host mqtt.example.com`, then
    `cartwin broker config --kind mosquitto --rate 5000 --outage 600 --out broker --mode tls --tls
    ca/broker`
    """
    secure = mode is Access.TLS
    chosen: Kind = kind.value
    try:
        settings = BrokerSettings(
            Need(rate, outage, message_bytes),
            (folder or out).absolute(),
            mode=mode.value,
            host=host or ("0.0.0.0" if secure else "127.0.0.1"),  # noqa: S104 - cars come from afar
            port=port or (8883 if secure else 1883),
            services_port=services_port,
            tls=tls.absolute() if tls else None,
            trace=trace,
            denied=tuple(deny or ()),
        )
        made = files(chosen, settings)
    except LocalError as error:
        output.fail(str(error), output.USAGE)
    is_new = not out.exists()
    out.mkdir(parents=True, exist_ok=True)
    for name, text in made.items():
        (out / name).write_text(text)
    if kind is Broker.MOSQUITTO and settings.folder == out.absolute():
        _for_its_account(settings, is_new=is_new)
    need = settings.need
    if json:
        output.result(
            {
                "files": [str(out / name) for name in made],
                "messages": need.messages,
                "bytes": need.payload_bytes,
            }
        )
        return
    output.say(
        f"{', '.join(str(out / name) for name in made)}: keeps {need.messages:,} messages"
        f" ({need.payload_bytes / 1e6:,.0f} MB) for an absent session."
    )


def _for_its_account(settings: BrokerSettings, *, is_new: bool) -> None:
    name = account.account(settings)
    if name is None:
        return
    if is_new:
        account.give(settings.folder, name)
    for fault in account.faults(settings, name):
        output.say(fault)


@app.command()
def refused(
    log: Annotated[
        Path, typer.Argument(help="The broker's log; - = standard input.", allow_dash=True)
    ],
    follow: Annotated[
        bool,
        typer.Option("--follow", help="Go on with what is added, over rotations, until Ctrl-C."),
    ] = False,
    metrics_port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help="Follow, and serve /metrics and /readyz there."),
    ] = None,
    metrics_host: Annotated[
        str, typer.Option(help="Address that the port listens on.")
    ] = "127.0.0.1",
) -> None:
    """Count by client what a broker refused to take: cars on topics of others.

    Mosquitto tells it only in a log made with `--trace`, HiveMQ (`cartwin up --mqtt hivemq`) always.
    A car with MQTT 5 reads the refusal in its PUBACK, reason code 0x87.

    `cartwin broker refused /var/log/mosquitto/mosquitto.log --metrics-port 9109`

    counts from now on: `cartwin_broker_refused_total` has no ids, each is printed as a line of JSON.
    """
    if not follow and metrics_port is None:
        try:
            with nullcontext(sys.stdin) if _is_stdin(log) else log.open(errors="replace") as lines:
                output.result(dict(refusals.count(lines).most_common()))
        except OSError as error:
            output.fail(f"{log}: {error.strerror}", output.USAGE)
        return
    try:
        _follow(log, metrics_host, metrics_port or 0)
    except HealthAddressUnusable as error:
        output.fail(f"--metrics-port {metrics_port} on {metrics_host}: {error.__cause__}")
    except OSError as error:
        output.fail(f"{log}: {error.strerror}", output.USAGE)


def _follow(log: Path, host: str, port: int) -> None:
    def end(*_: object) -> NoReturn:
        raise typer.Exit

    with ExitStack() as held:
        held.callback(signal.signal, signal.SIGTERM, signal.signal(signal.SIGTERM, end))
        tail = None if _is_stdin(log) else held.enter_context(refusals.Tail(log))

        def not_ready() -> dict[str, str]:
            return {} if tail is None or tail.there else {"log": f"{log} is not there"}

        held.callback(HealthServer(host, port, not_ready).close)
        batches: Iterator[Iterable[str]] = ([line] for line in sys.stdin)
        if tail is not None:
            batches = _every_second(tail)
        total = 0
        for lines in batches:
            for client, number in refusals.count(lines).items():
                total += number
                metrics.BROKER_REFUSED.inc(number)
                output.result({"client": client, "refused": number, "total": total})


def _is_stdin(log: Path) -> bool:
    return str(log) == "-"


def _every_second(tail: refusals.Tail) -> Iterator[Iterable[str]]:
    while True:
        yield tail.lines()
        time.sleep(1)


@authority.command()
def init(
    host: Annotated[
        list[str],
        typer.Option(help="Name or address that clients use for the broker; may be repeated."),
    ],
    folder: Annotated[Path, typer.Option("--dir", help="Folder of the authority.")] = Path("ca"),
    days: Annotated[
        int,
        typer.Option(min=1, max=ca.MOST_DAYS, help="How long the certificates are valid."),
    ] = ca.DAYS,
) -> None:
    """Make the authorities of cars and services, and the certificates of broker and services.

    `cartwin broker ca init --dir ca --host mqtt.example.com --host 10.0.0.7`

    The authorities themselves are valid for ten years.

    Uplink and downlink then get, with mqtts://mqtt.example.com:8884 in MQTT_URLS: MQTT_CA_FILE =
    `ca/services/ca.pem`, MQTT_CERT_FILE and MQTT_KEY_FILE = `ca/services/uplink.pem` and `.key`.
    """
    try:
        ca.init(folder, host, days)
    except LocalError as error:
        output.fail(str(error))
    output.say(f"{folder}: broker/ goes to the broker, services/ to uplink and downlink.")
    output.say(f"Certificates of cars: cartwin broker ca issue car-000001 --dir {folder}")


@authority.command()
def issue(
    vehicle_ids: Annotated[
        list[str] | None, typer.Argument(help="Vehicle ids, one certificate each.")
    ] = None,
    folder: Annotated[Path, typer.Option("--dir", help="Folder of the authority.")] = Path("ca"),
    days: Annotated[
        int, typer.Option(min=1, max=ca.MOST_DAYS, help="How long it is valid.")
    ] = ca.DAYS,
    vehicles: Annotated[
        int | None,
        typer.Option(min=1, max=999_999, help="Of so many simulated cars: car-000001 and on."),
    ] = None,
    ids: Annotated[
        typer.FileText | None, typer.Option(help="Of a file's vehicle ids, one a line; - = stdin.")
    ] = None,
) -> None:
    """Make the certificate and the key of a car; its name (CN) is the vehicle id.

    `cartwin broker ca issue car-000001 --dir ca`

    `cartwin broker ca issue --vehicles 2000 --dir ca`

    Some 100 a second and core. With `--vehicles` or `--ids`, cars that have a certificate are passed
    over. The car needs its `.pem` and `.key`, and `ca.pem` of the authority's folder to know the
    broker by. Its MQTT client id is the vehicle id, too.
    """
    if sum(given is not None for given in (vehicle_ids, vehicles, ids)) != 1:
        output.fail(
            "vehicle ids, --vehicles N or --ids FILE: one of them is accepted", output.USAGE
        )
    try:
        if vehicle_ids is None:
            named = ca.numbered(vehicles) if vehicles else [line.strip() for line in ids or ()]
            wanted = [vehicle_id for vehicle_id in named if vehicle_id]
            with output.bar("certificates") as progress:
                new = ca.issue_all(folder, wanted, days, progress)
            output.say(f"{folder / 'cars'}: {new:,} made, {len(wanted) - new:,} were there.")
            return
        for vehicle_id in vehicle_ids:
            made = ca.issue(folder, vehicle_id, days)
            output.say(f"{made}, {made.with_name(made.name.removesuffix('.pem') + '.key')}")
    except LocalError as error:
        output.fail(str(error))

"""Ids from a schema registry: asked once at the start, unknown ones looked up in bounds.

With SCHEMA_REGISTRY_TEST_URL the tests that need no control over the registry run against that one, too.
"""

import asyncio
import json
import os
import shutil
import ssl
import sys
import uuid

import pytest

from ingest import process
from ingest.process import Readiness, await_ids
from ingest.settings import UplinkSettings
from models.settings import ScorerSettings, SimulateSettings, TrainerSettings
from tests.fake_registry import FIRST_ID, fake_registry
from twin.kit import registry
from twin.kit.registry_settings import SUBJECT, SchemaRegistry
from twin.kit.settings import read
from twin.local import ca
from twin.settings import WorkerSettings
from twin.wire import avro_writer, codec, schema
from twin.wire.errors import UnknownSchema
from twin.wire.telemetry import Telemetry

SAID = Telemetry("car-1", 1_790_000_000_500, 1, 2, {"coolant_temp": 91.5})
OURS = codec.encode_telemetry(SAID)
CURRENT = schema.texts()[schema.CURRENT_ID]
REAL = os.environ.get("SCHEMA_REGISTRY_TEST_URL")


@pytest.fixture(autouse=True)
def _the_package_s_ids_afterwards():
    yield
    codec.use_ids({})


@pytest.fixture
def server():
    """A registry that does as it is told."""
    pytest.importorskip("confluent_kafka.schema_registry", exc_type=ImportError)
    with fake_registry() as server:
        yield server


@pytest.fixture(params=["fake", *(["real"] if REAL else [])])
def url(request):
    """Of a registry that has never heard of us, or has."""
    return REAL if request.param == "real" else request.getfixturevalue("server").url


def at(url, **values):
    return SchemaRegistry(schema_registry_url=url, **values)


def id_of(record):
    return int.from_bytes(record[1:5], "big")


def under(number, record=OURS):
    return b"\0" + number.to_bytes(4, "big") + record[5:]


def made_there(url, text):
    """The id of a schema that others have registered."""
    from confluent_kafka.schema_registry import Schema, SchemaRegistryClient

    with SchemaRegistryClient({"url": url}) as client:
        return client.register_schema(f"test-{uuid.uuid4().hex}-value", Schema(text, "AVRO"))


def test_what_is_written_with_a_registry_is_read_without_and_the_other_way_round(url):
    """The package's id is always read; the registry's where it is told."""
    registry.use_ids(at(url))
    written = codec.encode_telemetry(SAID)
    assert codec.decode_telemetry(written) == codec.decode_telemetry(OURS) == SAID
    registry.use_ids(SchemaRegistry(schema_ids=f"{id_of(written)}=telemetry-v1"))
    assert codec.encode_telemetry(SAID) == OURS
    assert codec.decode_telemetry(written) == SAID


def test_every_process_gets_the_same_id(url):
    """Whether it registers the schema, finds it, or may not register."""
    written = set()
    for may in (True, True, False):
        registry.use_ids(at(url, schema_registry_register=may))
        written.add(codec.encode_telemetry(SAID))
    assert len(written) == 1


def test_an_id_of_telemetry_that_nobody_here_has_seen_is_looked_up(url):
    """Another subject's schema with fewer signals."""
    short = json.loads(CURRENT)
    short["fields"] = short["fields"][:7]
    number = made_there(url, json.dumps(short))
    record = under(number)[:5] + avro_writer.writer(short)(SAID)
    with pytest.raises(UnknownSchema):
        codec.decode_telemetry(record)
    registry.use_ids(at(url))
    assert codec.decode_telemetry(record) == SAID


@pytest.mark.parametrize("known", [True, False])
def test_an_id_of_something_else_or_of_nothing_is_an_unknown_schema(url, known):
    """With the reason: the registry has it but it is no telemetry, or does not have it."""
    order = {"type": "record", "name": f"Order{uuid.uuid4().hex}", "fields": []}
    number = made_there(url, json.dumps(order)) if known else 2_000_000_000
    registry.use_ids(at(url))
    why = "none of telemetry" if known else "nor to the schema registry"
    with pytest.raises(UnknownSchema, match=f"schema id {number} is not known: .*{why}"):
        codec.decode_telemetry(under(number))


def test_the_schema_is_registered_once_and_only_when_it_is_missing(server):
    """A process that may only read the registry starts where the schema is."""
    ask, add = f"POST subjects/{SUBJECT}", f"POST subjects/{SUBJECT}/versions"
    registry.use_ids(at(server.url))
    assert server.asked == [ask, add]
    assert id_of(codec.encode_telemetry(SAID)) == FIRST_ID
    registry.use_ids(at(server.url))
    assert server.asked == [ask, add, ask]
    assert server.subjects == {SUBJECT: [FIRST_ID]}


def test_nothing_is_asked_while_messages_of_known_ids_flow(server):
    """Neither for the registry's ids nor for the package's."""
    registry.use_ids(at(server.url))
    asked = len(server.asked)
    for record in (OURS, codec.encode_telemetry(SAID)):
        assert codec.decode_sample(record, "car-1").session == 1
    assert len(server.asked) == asked


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ((503, "leader is away"), "refused, HTTP 503: leader is away"),
        ((401, "Unauthorized"), "HTTP 401: Unauthorized; SCHEMA_REGISTRY_USERNAME names the user"),
        ((409, "incompatible with version 3"), "HTTP 409: incompatible with version 3"),
    ],
)
def test_a_registry_that_refuses_is_named_with_its_reason(server, fault, said):
    """And nothing has changed."""
    server.fault = fault
    with pytest.raises(registry.RegistryUnavailable, match=said) as caught:
        registry.use_ids(at(server.url), 0)
    assert server.url in str(caught.value)
    assert codec.encode_telemetry(SAID) == OURS


def test_who_may_not_register_is_told_what_is_missing(server):
    """Subject, schema and setting."""
    with pytest.raises(registry.RegistryUnavailable, match=f"no schema telemetry-v1.*{SUBJECT}"):
        registry.use_ids(at(server.url, schema_registry_register=False), 0)
    assert server.schemas == {}


def test_an_id_that_is_the_package_s_of_another_schema_ends_the_process(server, monkeypatch):
    """Waiting does not help, and records of the two could not be told apart."""
    monkeypatch.setattr(codec, "_PACKAGE", frozenset({1, FIRST_ID}))
    with pytest.raises(registry.RegistryUnusable, match=f"schema id {FIRST_ID} is the package's"):
        registry.use_ids(at(server.url), 0)


@pytest.mark.parametrize("number", [0, -1, 2**31, "17", None, True])
def test_an_id_that_fits_no_record_is_not_taken(server, number):
    """A gateway may answer anything."""
    server.subjects[SUBJECT] = [number]
    server.schemas[number] = CURRENT
    with pytest.raises(registry.RegistryUnavailable):
        registry.use_ids(at(server.url), 0)
    assert codec.encode_telemetry(SAID) == OURS


def test_name_and_password_are_told_and_never_shown(server, tmp_path, caplog):
    """The password's first line; a wrong one is refused by the registry."""
    file = tmp_path / "password"
    file.write_text("s3:cret\n")
    server.user = "ann:s3:cret"
    access = {"schema_registry_username": "ann", "schema_registry_password_file": str(file)}
    registry.use_ids(at(server.url, **access), 0)
    assert id_of(codec.encode_telemetry(SAID)) == FIRST_ID
    server.user = "ann:another"
    with pytest.raises(registry.RegistryUnavailable, match="HTTP 401") as caught:
        registry.use_ids(at(server.url, **access), 0)
    assert "cret" not in str(caught.value) + caplog.text


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_over_tls_the_certificate_is_checked(server, tmp_path):
    """The registry's authority must be named when the system does not know it."""
    ca.init(tmp_path / "ca", ["127.0.0.1"])
    files = tmp_path / "ca" / "broker"
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(files / "server.pem", files / "server.key")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    url = server.url.replace("http:", "https:")
    with pytest.raises(registry.RegistryUnavailable, match="certificate verify failed"):
        registry.use_ids(at(url), 0)
    registry.use_ids(at(url, schema_registry_ca_file=str(tmp_path / "ca" / "ca.pem")), 0)
    assert id_of(codec.encode_telemetry(SAID)) == FIRST_ID


def test_the_uplink_waits_for_the_registry_and_says_so(server, monkeypatch):
    """Not ready with the reason; it goes on by itself when the registry is back."""
    monkeypatch.setattr(process, "_AGAIN_S", 0.01)
    server.fault = (503, "leader is away")
    readiness, stop = Readiness(), asyncio.Event()
    readiness.kafka = ""

    async def wait():
        waiting = asyncio.create_task(await_ids(at(server.url), readiness, stop))
        await asyncio.sleep(0)
        assert list(readiness.faults()) == ["schemas"]
        async with asyncio.timeout(60):
            while "leader is away" not in readiness.faults()["schemas"]:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        server.fault = None
        return await waiting

    assert asyncio.run(wait())
    assert readiness.faults() == {}
    assert id_of(codec.encode_telemetry(SAID)) == FIRST_ID


def test_the_uplink_stops_while_it_waits(server):
    """SIGTERM needs no registry."""
    server.fault = (503, "leader is away")

    async def wait():
        stop = asyncio.Event()
        waiting = asyncio.create_task(await_ids(at(server.url), Readiness(), stop))
        await asyncio.sleep(0)
        stop.set()
        return await waiting

    assert not asyncio.run(wait())


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def lookup(server):
    """Asks the server; its clock stands still."""
    clock = Clock()
    found = registry.Lookup(lambda: registry._client(at(server.url)), server.url, clock)
    found.clock = clock
    return found


def refused(lookup, number):
    with pytest.raises(UnknownSchema) as caught:
        lookup(number)
    return str(caught.value)


def test_each_id_is_asked_for_once(lookup, server):
    """A known one for ever, an unknown one for a minute: it may be registered meanwhile."""
    number = server.add("others", CURRENT)
    assert lookup(number) is lookup(number)
    refused(lookup, 5)
    refused(lookup, 5)
    assert server.asked == [f"GET schemas/ids/{number}", "GET schemas/ids/5"]
    server.schemas[5] = CURRENT
    lookup.clock.now += 61
    assert lookup(5) is not None
    assert len(server.asked) == 3


def test_a_flood_of_unknown_ids_asks_for_few(lookup, server, monkeypatch):
    """So many a minute; what is known is read all the same."""
    monkeypatch.setattr(registry, "REMEMBERED", 4)
    number = server.add("others", CURRENT)
    assert lookup(number)
    for strange in range(1, 1000):
        refused(lookup, strange)
    assert len(server.asked) == 1 + 4
    assert "more than" in refused(lookup, 999)
    assert lookup(number)
    lookup.clock.now += 61
    assert "nor to" in refused(lookup, 999)
    assert len(server.asked) == 2 + 4


def test_the_known_ones_are_bounded_too(lookup, server, monkeypatch):
    """Somebody may register without end."""
    monkeypatch.setattr(registry, "REMEMBERED", 2)
    for number in (11, 12, 13):
        server.schemas[number] = CURRENT
    assert lookup(11)
    assert lookup(12)
    assert "more than 2" in refused(lookup, 13)


def test_a_registry_that_fails_is_left_in_peace_for_a_while(lookup, server):
    """A reader goes on; the id is looked up when the registry is back."""
    number = server.add("others", CURRENT)
    server.fault = (503, "leader is away")
    assert "leader is away" in refused(lookup, number)
    assert "just now" in refused(lookup, number)
    assert len(server.asked) == 1
    server.fault = None
    lookup.clock.now += 11
    assert lookup(number)


def test_where_nobody_listens_the_address_is_named(server):
    """In a sentence."""
    server.shutdown()
    server.server_close()
    with pytest.raises(registry.RegistryUnavailable, match=f"no schema registry.*{server.url}"):
        registry.use_ids(at(server.url), 0)


def test_without_a_registry_its_client_is_not_loaded(monkeypatch):
    """It needs packages that need not be there."""
    monkeypatch.setitem(sys.modules, "confluent_kafka.schema_registry", None)
    registry.use_ids(SchemaRegistry())
    with pytest.raises(registry.RegistryUnusable, match=r"pip install 'cartwin\[registry\]'"):
        registry.use_ids(at("http://127.0.0.1:1"))


@pytest.mark.parametrize(
    "group", [UplinkSettings, WorkerSettings, ScorerSettings, TrainerSettings, SimulateSettings]
)
def test_whoever_writes_or_reads_telemetry_has_the_settings(group):
    """Uplink, worker, scorer, trainer, simulator."""
    assert SchemaRegistry.model_fields.keys() <= group.model_fields.keys()


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"URL": "registry:8081"}, "http://host:port is accepted"),
        ({"URL": "ftp://registry"}, "http://host:port is accepted"),
        ({"URL": "http://ann:s3cret@registry"}, "settings of their own"),
        ({"URL": "http://registry:s3cret"}, "http://host:port is accepted"),
        ({"URL": "http://a,b"}, "http://host:port is accepted"),
        ({"URL": "http://a", "CA_FILE": "/x"}, "not spoken to in TLS"),
        ({"URL": "https://a", "CA_FILE": "/none"}, "no such file"),
        ({"USERNAME": "a:b"}, "without a colon"),
        ({"USERNAME": "ann"}, "the file of the password is needed"),
        ({"USERNAME": "ann", "PASSWORD_FILE": "/none"}, "no such file"),
        ({"PASSWORD_FILE": "/none"}, "SCHEMA_REGISTRY_USERNAME"),
        ({"REGISTER": "maybe"}, "SCHEMA_REGISTRY_REGISTER='maybe'"),
    ],
)
def test_wrong_settings_are_named(monkeypatch, capsys, values, said):
    """Exit code 2 and one sentence, without a password."""
    for name, value in values.items():
        monkeypatch.setenv(f"SCHEMA_REGISTRY_{name}", value)
    with pytest.raises(SystemExit) as caught:
        read(SchemaRegistry)
    told = capsys.readouterr().err
    assert caught.value.code == 2
    assert said in told
    assert "s3cret@" not in told


@pytest.mark.parametrize(
    "told", ["17", "=telemetry-v1", "17=telemetry-v9", "0=telemetry-v1", f"{2**31}=telemetry-v1"]
)
def test_wrong_ids_are_named(monkeypatch, capsys, told):
    """With what is accepted."""
    monkeypatch.setenv("SCHEMA_IDS", told)
    with pytest.raises(SystemExit):
        read(SchemaRegistry)
    assert f"SCHEMA_IDS={told!r} is not accepted" in capsys.readouterr().err

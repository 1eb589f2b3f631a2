"""The embedded stack as a whole: start, ready, refuse, report, stop, and never leave anybody behind."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from twin.local import options as local_options
from twin.local import probe
from twin.local.data import running
from twin.local.errors import AlreadyRunning, Died, LocalError, NotReady, PortTaken
from twin.local.foreground import run
from twin.local.options import FREE_PORTS, Deadlines, External, Options, Ports
from twin.local.stack import Stack
from twin.wire.topics import TELEMETRY

pytestmark = pytest.mark.integration

DEADLINE_S = 60

# A process of ours in a few lines: /readyz after a while, then whatever `on_term` does.
PROCESS = """
import http.server, os, signal, socket, sys, threading, time
class Ready(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def log_message(self, *args):
        pass
port = int(os.environ.get("API_PORT") or os.environ["HEALTH_PORT"])
server = http.server.HTTPServer(("127.0.0.1", port), Ready)
def on_term(*_):
    {on_term}
    os._exit(0)
signal.signal(signal.SIGTERM, on_term)
told = [os.environ[name] for name in ("KAFKA_BOOTSTRAP", "REDIS_URL", "MQTT_URLS")]
print(os.getpid(), *told, flush=True)
server.serve_forever()
"""
# The foreground of `cartwin up` as a process of its own, without our processes.
UP = """
import sys
from pathlib import Path
from twin.local.foreground import run
from twin.local.options import FREE_PORTS, Options
options = Options(data_dir=Path(sys.argv[1]), ports=FREE_PORTS, processes=(), mqtt="amqtt")
sys.exit(run(options, json_output=True))
"""


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that ended and waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


def children_of(pid: int) -> list[int]:
    """Pids of the children of a process, over all its threads."""
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def eventually(condition) -> None:
    """Fails unless `condition()` becomes true before the deadline."""
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end, "the condition did not become true"
        time.sleep(0.05)


@pytest.fixture
def others(kafka, redis_url, amqtt) -> External:
    """The shared servers as outside addresses: a stack of them starts in no time."""
    return External(kafka=kafka, redis=redis_url, mqtt=(amqtt,))


@pytest.fixture
def fake(monkeypatch):
    """Replace the command of one of our processes."""

    def replace(name, code):
        monkeypatch.setitem(local_options.APPLICATION, name, ("-c", code))

    return replace


@pytest.fixture
def up(tmp_path):
    """Start `cartwin up --json` on a data directory; ended at the end of the test."""
    started = []

    def start(data_dir):
        process = subprocess.Popen(
            [sys.executable, "-c", UP, str(data_dir)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_everything_ends_with_a_killed_parent_and_the_data_stay(up, tmp_path, make_stack):
    """SIGKILL of the supervisor ends all its children; a new start finds Kafka's records."""
    data_dir = tmp_path / "data"
    supervisor = up(data_dir)
    endpoints = json.loads(supervisor.stdout.readline())
    assert set(endpoints) == {"api", "mqtt", "kafka", "redis"}
    kept = running(data_dir)
    assert kept.public() == endpoints
    assert kept.pid == supervisor.pid
    assert json.loads((data_dir / "endpoints.json").read_text())["pid"] == supervisor.pid

    second = up(data_dir)
    out, err = second.communicate(timeout=DEADLINE_S)
    assert (second.returncode, out) == (1, "")
    assert f"pid {supervisor.pid}" in err
    assert endpoints["kafka"] in err

    producer = Producer({"bootstrap.servers": endpoints["kafka"]})
    producer.produce(TELEMETRY, b"kept", partition=3)
    assert producer.flush(20) == 0
    children = children_of(supervisor.pid)
    assert len(children) == 3
    supervisor.send_signal(signal.SIGKILL)
    supervisor.wait()
    eventually(lambda: not any(map(is_alive, children)))
    assert running(data_dir) is None

    _, again = make_stack(data_dir=data_dir, mqtt="amqtt")
    consumer = Consumer({"bootstrap.servers": again.kafka, "group.id": "g"})
    consumer.assign([TopicPartition(TELEMETRY, 3, 0)])
    try:
        assert consumer.poll(DEADLINE_S).value() == b"kept"
    finally:
        consumer.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_while_starting_ends_everything(up, tmp_path, number):
    """A signal while Kafka starts ends the start with exit code 0 and nobody left."""
    supervisor = up(tmp_path / "data")
    eventually(lambda: children_of(supervisor.pid))
    children = children_of(supervisor.pid)
    supervisor.send_signal(number)
    supervisor.communicate(timeout=DEADLINE_S)
    assert supervisor.returncode == 0
    assert not any(map(is_alive, children))


def test_processes_are_told_the_addresses_and_stopped_before_the_servers(
    others, fake, make_stack, tmp_path
):
    """Our processes get every address, are waited for, and can still use the servers at the end."""
    proof = tmp_path / "proof"
    fake(
        "uplink",
        PROCESS.format(
            on_term=f"""
    host, port = os.environ["REDIS_URL"][8:-2].split(":")
    redis = socket.create_connection((host, int(port)))
    redis.sendall(b"PING\\r\\n")
    open({str(proof)!r}, "wb").write(redis.recv(7))"""
        ),
    )
    fake("api", PROCESS.format(on_term="pass"))
    own_redis = External(kafka=others.kafka, mqtt=others.mqtt)
    stack, endpoints = make_stack(external=own_redis, processes=("uplink", "api"))
    pids = {child.name: child.pid for child in stack.children()}
    assert list(pids) == ["redis", "uplink", "api"]
    assert set(endpoints.health) == {"uplink", "api"}
    assert endpoints.health["api"] == endpoints.api
    assert all(probe.http_ready(url)() is None for url in endpoints.health.values())
    told = (stack.data_dir / "logs" / "uplink.log").read_text()
    assert (
        told == f"{pids['uplink']} {endpoints.kafka} {endpoints.redis} {','.join(endpoints.mqtt)}\n"
    )
    stack.stop()
    assert proof.read_bytes() == b"+PONG\r\n"
    assert not any(map(is_alive, pids.values()))
    assert running(stack.data_dir) is None


def test_a_process_that_ignores_sigterm_is_killed(others, fake, make_stack):
    """Stopping takes no longer than its deadline."""
    fake("uplink", PROCESS.format(on_term="return"))
    stack, _ = make_stack(external=others, processes=("uplink",), deadlines=Deadlines(stop=0.5))
    (child,) = stack.children()
    stack.stop()
    assert child.exit_code() == -signal.SIGKILL


def test_a_process_that_dies_while_starting_is_reported_with_its_log(others, fake, make_stack):
    """The error names the process, its exit code and the end of its log, long before a deadline."""
    fake("worker", "import sys; print('cannot find my keys'); sys.exit(7)")
    with pytest.raises(Died, match="worker ended with exit code 7") as caught:
        make_stack(external=others, processes=("worker",))
    assert "cannot find my keys" in str(caught.value)
    assert "worker.log" in str(caught.value)


def test_a_process_that_is_never_ready_is_reported(others, fake, make_stack):
    """After the deadline the error says what was asked and what came back."""
    code = PROCESS.format(on_term="pass").replace("send_response(200)", "send_response(503)")
    fake("scorer", code)
    with pytest.raises(NotReady, match=r"scorer was not ready within 2 s: http.*/readyz: 503"):
        make_stack(external=others, processes=("scorer",), deadlines=Deadlines(application=2))


def test_a_death_while_running_stops_everything(others, fake, tmp_path, capsys):
    """`run` names the dead process, stops the others and returns 1."""
    fake("uplink", PROCESS.format(on_term="pass"))
    fake("api", PROCESS.format(on_term="pass"))
    data_dir = tmp_path / "data"
    codes = []
    options = Options(
        data_dir=data_dir, ports=FREE_PORTS, external=others, processes=("uplink", "api")
    )
    foreground = threading.Thread(target=lambda: codes.append(run(options, json_output=True)))
    foreground.start()
    eventually(lambda: running(data_dir) is not None)
    logs = data_dir / "logs"
    uplink, api = (int((logs / f"{name}.log").read_text().split()[0]) for name in ("uplink", "api"))
    os.kill(uplink, signal.SIGKILL)
    foreground.join(DEADLINE_S)
    assert codes == [1]
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 1
    assert json.loads(out)["api"].startswith("http://127.0.0.1:")
    assert "uplink was ended by SIGKILL" in err
    assert not is_alive(api)


def test_children_outlive_the_thread_that_started_them(others, fake, make_stack):
    """The kernel's parent-death signal follows a thread; ours lives as long as the interpreter."""
    fake("uplink", PROCESS.format(on_term="pass"))
    made = []
    starter = threading.Thread(
        target=lambda: made.append(make_stack(external=others, processes=("uplink",)))
    )
    starter.start()
    starter.join(DEADLINE_S)
    ((stack, endpoints),) = made
    assert [child.exit_code() for child in stack.children()] == [None]
    assert probe.http_ready(endpoints.health["uplink"])() is None


def test_a_second_stack_on_the_same_data_is_refused(others, make_stack, tmp_path):
    """The error names the pid and the endpoints of the first; the first goes on."""
    _, first = make_stack(data_dir=tmp_path / "d", external=others)
    with pytest.raises(AlreadyRunning, match=rf"pid {os.getpid()}; .*kafka {first.kafka}"):
        make_stack(data_dir=tmp_path / "d", external=others)
    assert running(tmp_path / "d") == first


@pytest.mark.parametrize(
    ("part", "remedy"),
    [
        ("kafka", "--kafka-port N"),
        ("redis", "--redis-port N"),
        ("mqtt", "--mqtt-port N"),
        ("api", "--api-port N"),
    ],
)
def test_a_taken_port_is_named_with_its_remedy(make_stack, part, remedy):
    """Nothing is started; the sentence says which port, which part and what to do."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ports = Ports(**{"api": 0, "mqtt": 0, "kafka": 0, "redis": 0, part: port})
        with pytest.raises(PortTaken, match=f"Port {port} on 127.0.0.1 is taken") as caught:
            make_stack(ports=ports, processes=("api",))
    assert remedy in str(caught.value)


def test_outside_addresses_are_used_and_not_started(others, make_stack):
    """With every address given there is nothing to start; the endpoints are those given."""
    stack, endpoints = make_stack(external=others)
    assert stack.children() == []
    assert (endpoints.kafka, endpoints.redis, endpoints.mqtt) == (
        others.kafka,
        others.redis,
        others.mqtt,
    )


@pytest.mark.parametrize(
    "gone",
    [
        {"kafka": "127.0.0.1:1"},
        {"redis": "redis://127.0.0.1:1/0"},
        {"mqtt": ("mqtt://127.0.0.1:1",)},
    ],
    ids=["kafka", "redis", "mqtt"],
)
def test_an_outside_address_that_does_not_answer_is_named(others, make_stack, gone):
    """The error names the part, says that it is not ours, and its address."""
    addresses = {"kafka": others.kafka, "redis": others.redis, "mqtt": others.mqtt, **gone}
    (part,) = gone
    with pytest.raises(NotReady, match=rf"{part} \(not started by us\).*127\.0\.0\.1:1\b"):
        make_stack(external=External(**addresses), deadlines=Deadlines(infrastructure=0.3))


def test_jars_that_cannot_be_downloaded_are_explained(tmp_path):
    """Without network and cache: one sentence with the two ways out, no stack trace."""
    nowhere = dict.fromkeys(("https_proxy", "http_proxy", "HTTPS_PROXY"), "http://127.0.0.1:1")
    result = subprocess.run(
        [sys.executable, "-c", UP, str(tmp_path / "data")],
        env={**os.environ, "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path), **nowhere},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert (result.returncode, result.stdout) == (1, "")
    assert "KAFKA_BOOTSTRAP=host:port" in result.stderr
    assert "check the network" in result.stderr
    assert "Traceback" not in result.stderr
    assert (tmp_path / "data" / "logs" / "kafka-jars.log").exists()


def test_an_unknown_process_is_refused():
    """The error lists what is accepted."""
    with pytest.raises(LocalError, match="'wroker' is unknown: uplink, downlink, worker"):
        Stack(Options(processes=("wroker",)))

"""One simulated car that judges itself: the fleet's model by MQTT, scores without a server.

    models/engine (retained) -> checked, opened -> own rows -> the code of the scorer -> a verdict a row

It sends its telemetry as every car does, so the twin holds what the scorer says of the same rows: at the
end both are shown for the last row that the scorer has told of. TensorFlow is not imported.
"""

import argparse
import json
import os
import statistics
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import numpy as np
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from models.edge import Edge, opened
from models.features import INPUTS
from models.scoring import Batch, Vehicles, Verdict, assess
from models.simulator import Cars, Fault
from twin.cli import endpoints
from twin.wire import topics
from twin.wire.errors import CartwinError

_MODEL_S: Final = 15.0
_ACK_S: Final = 15.0
_TWIN_S: Final = 15.0

_DESCRIPTION: Final = """\
Drive one simulated car against a running stack, let it judge itself by the model that it gets over
MQTT, and compare with what the scorer says of the same rows.

  cartwin up &                              a stack with a champion (cartwin train)
  python load-test/car_edge.py              two minutes of a healthy car
  python load-test/car_edge.py --fault cooling --seconds 300

Exit code 1: there is no model, it was refused, or both do not agree within 1e-3."""


class Car:
    """The car's connection: what it got, and what it has sent."""

    def __init__(self, url: str, vehicle_id: str) -> None:
        broker = urlsplit(url)
        self.vehicle_id = vehicle_id
        self.session = int(time.time() * 1000)
        self.got = threading.Event()
        self.model: Edge | None = None
        self.refused = ""
        self._client = paho.Client(CallbackAPIVersion.VERSION2, vehicle_id)
        self._client.on_connect = lambda client, *_: client.subscribe(topics.EDGE_TOPIC, 1)
        self._client.on_message = self._take
        self._client.connect(str(broker.hostname), broker.port or 1883)
        self._client.loop_start()

    def _take(self, _client: Any, _userdata: Any, message: paho.MQTTMessage) -> None:
        """A package is taken whole, or the car keeps the model it has."""
        try:
            self.model = opened(bytes(message.payload))
        except CartwinError as error:
            self.refused = str(error)
        self.got.set()

    def say(self, leaf: str, record: dict[str, Any]) -> None:
        """Publish at QoS 1 and wait for the broker's word."""
        told = self._client.publish(
            topics.mqtt_topic(self.vehicle_id, leaf), json.dumps(record), qos=1
        )
        told.wait_for_publish(_ACK_S)

    def close(self) -> None:
        """Say goodbye."""
        self.say("status", {"state": "offline", "session": self.session})
        self._client.disconnect()
        self._client.loop_stop()


def main(arguments: list[str] | None = None) -> int:
    """Drive; the exit code."""
    options = _parser().parse_args(arguments)
    stack = endpoints.find([options.data_dir])
    if stack is None or stack.api is None:
        sys.stderr.write(f"no stack runs from {options.data_dir}; start one with: cartwin up\n")
        return 1
    car = Car(stack.mqtt[0], options.vehicle_id)
    try:
        if not car.got.wait(_MODEL_S) or car.model is None:
            why = car.refused or f"nothing is retained at {topics.EDGE_TOPIC}; train a champion"
            sys.stderr.write(f"no model: {why}\n")
            return 1
        told = _drive(car, options)
    finally:
        car.close()
    theirs = _twin(stack.api, car)
    told |= {"scorer": theirs, "ok": _agree(told["verdicts"], theirs)}
    del told["verdicts"]
    sys.stdout.write((json.dumps(told) if options.json else _text(told)) + "\n")
    return 0 if told["ok"] else 1


def _drive(car: Car, options: argparse.Namespace) -> dict[str, Any]:
    faults = [] if options.fault is None else [Fault(0, options.fault, 30.0, 1.0)]
    cars = Cars(1, seed=options.seed, acceleration=options.acceleration, faults=faults)
    vehicles = Vehicles(1)
    verdicts: dict[int, Verdict] = {}
    spent = []
    car.say("status", {"state": "online", "session": car.session, "at": car.session})
    began = time.monotonic()
    for sequence in range(options.seconds):
        row = {name: float(values[0]) for name, values in cars.step().items()}
        at = car.session + 1000 * sequence
        present = {name: value for name, value in row.items() if not np.isnan(value)}
        mark = {"event_time": at, "session": car.session, "sequence": sequence}
        car.say("telemetry", {**mark, **present})
        # As on the wire: what the server reads is float32.
        signals = np.array([[np.float32(row[name]) for name in INPUTS]], np.float64)
        model = car.model  # a newer one may have come
        assert model is not None
        before = time.perf_counter()
        batch = Batch([car.vehicle_id], np.array([at]), signals, np.array([True]))
        (found,) = assess(model, [(vehicles, batch)], at)
        spent.append(time.perf_counter() - before)
        if found:
            verdicts[sequence] = found[0]
        time.sleep(max(0.0, began + (sequence + 1) * options.interval_s - time.monotonic()))
    return {
        "vehicle_id": car.vehicle_id,
        "version": car.model.version if car.model else None,
        "rows": options.seconds,
        "us_a_row": round(1e6 * statistics.median(spent)),
        "verdicts": verdicts,
        "state": verdicts[max(verdicts)].state if verdicts else None,
    }


def _twin(api: str, car: Car) -> dict[str, Any] | None:
    """The newest score of this session in the twin; None when the scorer told of none."""
    deadline = time.monotonic() + _TWIN_S
    url = f"{api}/v1/twins/{car.vehicle_id}?fields=health"
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - our own stack
                health = json.load(answer)["health"]
        except (urllib.error.URLError, KeyError):
            health = {}
        score = health.get("models", {}).get("autoencoder", {}).get("score")
        if health.get("session") == car.session and score is not None:
            return {"sequence": health["sequence"], "score": score, "state": health["state"]}
        time.sleep(0.5)
    return None


def _agree(verdicts: dict[int, Verdict], theirs: dict[str, Any] | None) -> bool:
    ours = None if theirs is None else verdicts.get(theirs["sequence"])
    if ours is None or theirs is None or ours.score is None:
        return False
    return abs(ours.score - float(theirs["score"])) <= 1e-3 * max(1.0, ours.score)


def _text(told: dict[str, Any]) -> str:
    scorer = told["scorer"]
    says = "nothing yet" if scorer is None else f"{scorer['score']} at row {scorer['sequence']}"
    return (
        f"{told['vehicle_id']}: {told['rows']} rows judged by {told['version']},"
        f" {told['us_a_row']} us each; {told['state']} at the end\n"
        f"the scorer says {says}; {'the same' if told['ok'] else 'not the same'}"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--vehicle-id", default="edge-000001")
    parser.add_argument("--seconds", type=int, default=120, help="rows to drive (120)")
    parser.add_argument("--interval-s", type=float, default=1.0, help="between rows (1)")
    parser.add_argument("--fault", help="a mode that begins after 30 s, as cooling")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--acceleration", type=float, default=1440.0)
    parser.add_argument(
        "--data-dir", type=Path, default=Path(os.environ.get("CARTWIN_DATA_DIR", ".cartwin"))
    )
    parser.add_argument("--json", action="store_true", help="one JSON line on stdout")
    return parser


if __name__ == "__main__":
    sys.exit(main())

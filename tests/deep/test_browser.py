"""The live page in a real browser, on the real API with cars behind it.

Nobody scores here: score records are written to topic `scores` as the scorer would, the rest of the
way (health, decision, command, car, outcome, page) is real.
"""

import os
import shutil
import signal
import threading
import time
from types import SimpleNamespace
from urllib.parse import urlsplit

import paho.mqtt.client as paho
import pytest
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.select import Select

from tests.processes import until
from twin.client.car import Car
from twin.kit import kafka as kit_kafka
from twin.wire import codec, topics

pytestmark = [pytest.mark.deep, pytest.mark.timeout(300)]

PERIOD_S = 0.5
SIGNALS = {"speed": 20.0, "coolant_temp": 112.0, "battery_percentage": 0.8}
IMG = "<img src=x onerror=\"window.ran='img'\">"
SCRIPT = "</td><script>window.ran='script'</script>"
SVG = "\"'><svg onload=window.ran='svg'>"


def now_ms():
    return time.time_ns() // 1_000_000


class LiveCar:
    """A car on its own MQTT connection: sends telemetry, answers commands, says goodbye.

    `heard` holds what it was told. With `answers` false it does nothing about it.
    """

    def __init__(self, url, vehicle_id, attributes, *, answers=True):
        self._answers = answers
        self.car = Car(vehicle_id, attributes, durations_ms={"limit_power": 100})
        self.heard = []
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._client = paho.Client(paho.CallbackAPIVersion.VERSION2, vehicle_id)
        will = self.car.connect(now_ms())
        self._client.will_set(will.topic, will.payload, will.qos, will.retain)
        subscribed = threading.Event()
        self._client.on_subscribe = lambda *_: subscribed.set()
        self._client.on_message = lambda _c, _u, message: self._hear(message)
        parts = urlsplit(url)
        self._client.connect(parts.hostname, parts.port)
        self._client.loop_start()
        self._client.subscribe([(topic, 1) for topic in self.car.subscriptions])
        assert subscribed.wait(30)
        self._say(self.car.connected(now_ms()))
        self._thread = threading.Thread(target=self._drive, name=vehicle_id)
        self._thread.start()

    @property
    def vehicle_id(self):
        return self.car.vehicle_id

    def publish(self, leaf, record):
        """Say something that the car's own protocol would not."""
        topic = f"vehicles/{self.vehicle_id}/{leaf}"
        self._client.publish(topic, codec.dump(record), 1).wait_for_publish(30)

    def end(self):
        """Goodbye, once."""
        if self._over.is_set():
            return
        self._over.set()
        self._thread.join()
        self._say([self.car.goodbye(now_ms())])
        self._client.disconnect()
        self._client.loop_stop()

    def _say(self, messages):
        for message in messages:
            sent = self._client.publish(message.topic, message.payload, 1, message.retain)
        if messages and threading.current_thread() is threading.main_thread():
            sent.wait_for_publish(30)

    def _hear(self, message):
        with self._lock:
            if self._answers:
                self._say(self.car.receive(message.topic, message.payload, now_ms()))
        self.heard.append(codec.parse_object(message.payload))

    def _drive(self):
        while not self._over.wait(PERIOD_S):
            with self._lock:
                now = now_ms()
                self._say([self.car.telemetry(now, SIGNALS), *self.car.due(now)])


class Page:
    """The page, read by script in one step (it redraws itself meanwhile), clicked like a person."""

    def __init__(self, driver, url):
        self.driver = driver
        driver.get(url)
        driver.execute_script("window.loaded = 'once'")

    def read(self, script, *arguments):
        return self.driver.execute_script(f"return {script}", *arguments)

    def texts(self, css):
        """The text of every element, white space as one blank."""
        script = "[...document.querySelectorAll(arguments[0])].map(e => e.textContent)"
        return [" ".join(text.split()) for text in self.read(script, css)]

    def text(self, css):
        """The text of all of them in one."""
        return " ".join(self.texts(css))

    def tiles(self):
        """Word -> count of the fleet's tiles."""
        words = self.texts("#tiles span")
        return dict(zip(words, map(int, self.texts("#tiles b")), strict=True))

    def click(self, css, text=None):
        """Click the first element (that has this text) as soon as it is there."""

        def clicked():
            try:
                for element in self.driver.find_elements(By.CSS_SELECTOR, css):
                    if text is None or element.text == text:
                        element.click()
                        return True
            except StaleElementReferenceException:
                pass  # redrawn in between
            return False

        until(clicked, f"no {css} {text!r} to click; there are {self.texts(css)}")

    def type(self, css, text):
        element = self.driver.find_element(By.CSS_SELECTOR, css)
        element.clear()
        element.send_keys(text)

    def open_car(self, vehicle_id):
        """By its id, as one types it."""
        self.type("#find-id", vehicle_id + Keys.ENTER)
        until(lambda: self.text("#car-title") == vehicle_id, "the car does not open")
        until(lambda: "revision" in self.text("#car-sub"), lambda: self.text("#drawer"))

    def until_text(self, css, *parts):
        """Wait until the text there has all parts."""
        until(
            lambda: all(part in self.text(css) for part in parts),
            lambda: f"{css} lacks one of {parts}: {self.text(css)!r}",
        )


@pytest.fixture(scope="module")
def chromium():
    """A headless browser."""
    paths = shutil.which("chromium"), shutil.which("chromedriver")
    if None in paths:
        pytest.skip("Chromium is not installed (apt-get install chromium chromium-driver).")
    options = webdriver.ChromeOptions()
    options.binary_location = paths[0]
    for argument in ("headless=new", "disable-dev-shm-usage", "disable-background-networking"):
        options.add_argument(f"--{argument}")
    if os.geteuid() == 0:
        options.add_argument("--no-sandbox")  # which root cannot have
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(paths[1]))
    driver.set_window_size(1500, 1000)
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def world(make_module_stack):
    """The loop without scorer, and two cars that drive."""
    stack, endpoints = make_module_stack(processes=("uplink", "downlink", "worker", "api"))
    cars = []

    def drive(vehicle_id, *, answers=True, **attributes):
        cars.append(LiveCar(endpoints.mqtt[0], vehicle_id, attributes, answers=answers))
        return cars[-1]

    world = SimpleNamespace(
        api=endpoints.api,
        drive=drive,
        producer=kit_kafka.producer(endpoints.kafka, "test"),
        pids={child.name: child.pid for child in stack.children()},
    )
    world.first = drive("first", fleet="berlin", model="m1", firmware="2000")
    world.second = drive("second", fleet="munich", model="m2", firmware="2000")
    yield world
    for car in cars:
        car.end()


@pytest.fixture
def page(chromium, world):
    """The page, freshly loaded; at the end nothing on it was an error, and it was never reloaded."""
    page = Page(chromium, world.api)
    until(lambda: page.text("#live-text") == "live", lambda: page.text("#live-text"))
    chromium.get_log("browser")
    yield page
    assert page.read("window.loaded") == "once"
    # What the network says while the API is away is none of the page's.
    errors = [e for e in chromium.get_log("browser") if e["source"] != "network"]
    assert errors == []


def score(world, live, state, value):
    """A score of the car as it is now, on topic `scores`."""
    car, now = live.car, now_ms()
    record = {
        "id": f"{car.vehicle_id}:0-{now}:v7", "vehicle_id": car.vehicle_id, "event_time": now,
        "session": car.session, "sequence": car.sequence, "partition": 0, "offset": now,
        "scored_at": now, "state": state, "why": "state",
        "models": {
            "autoencoder": {
                "version": "v7", "score": value, "threshold": 3.1,
                "signals": [
                    {"signal": "coolant_temp", "share": 0.61}, {"signal": "speed", "share": 0.2},
                ],
            },
            "lstm": {"version": "v7", "failure_probability": 0.83, "horizon_s": 86_400,
                     "remaining_s": 33_000, "remaining_low_s": 7_100, "remaining_high_s": 111_000},
        },
    }  # fmt: skip
    world.producer.produce(topics.SCORES, codec.dump(record), car.vehicle_id)
    assert world.producer.flush(30) == 0


def test_the_fleet_is_counted_while_one_looks(page, world):
    """A car that connects, and leaves, changes the numbers without a reload."""
    until(lambda: page.tiles().get("online") == 2, page.tiles)
    assert page.tiles()["cars"] == 2
    third = world.drive("third", fleet="berlin", model="m1", firmware="2000")
    until(lambda: page.tiles()["online"] == page.tiles()["cars"] == 3, page.tiles)
    page.until_text("#cars-body", "third", "112.0")
    third.end()
    until(lambda: page.tiles()["offline"] == 1, page.tiles)
    assert page.tiles()["online"] == 2
    page.click("#tiles button", "1\noffline")
    until(lambda: page.texts("#cars-body .link") == ["third"], lambda: page.text("#cars-body"))


def test_an_alarm_shows_its_evidence_and_what_was_done(page, world):
    """Score, threshold, shares and values; the command that it caused, down to the car's outcome."""
    page.until_text("#cars-body", "first")
    assert page.tiles()["alarm"] == 0
    score(world, world.first, "alarm", 5.2)
    until(lambda: page.tiles()["alarm"] == 1, page.tiles)
    page.until_text(
        "#alarms li", "first", "autoencoder", "5.20 > 3.10", "coolant temp", "61 %", "at 112.0 °C",
        "lstm, failure in 1 d", "83 %", "life left", "9 h (2 h to 31 h)", "autoencoder v7",
        "last command limit_power: succeeded",
    )  # fmt: skip
    assert world.first.car.power_limit == 0.5
    page.until_text(
        "#commands li", "limit_power", "succeeded", "because autoencoder 5.20 > 3.10",
        "coolant temp 61 %", "score record scores/", "version v7",
    )  # fmt: skip
    score(world, world.first, "normal", 0.4)
    until(lambda: page.tiles()["alarm"] == 0, page.tiles)
    page.until_text("#alarms-empty", "No car is in alarm.")
    assert page.texts("#alarms li") == []


def test_a_command_from_the_form_reaches_the_car_and_its_outcome_shows(page, world):
    """Sent, received, done; a refusal by the car or by the form says why."""
    page.open_car("second")
    page.click("#command-form button")
    page.until_text("#command-answer", "ping is")
    until(lambda: any(m.get("name") == "ping" for m in world.second.heard), "the car heard nothing")
    page.until_text(
        "#car-commands li:first-child", "ping", "delivered", "succeeded", "asked by api"
    )
    page.type("#command-args", '{"loud": true}')
    page.click("#command-form button")
    page.until_text("#car-commands li:first-child", "rejected", "reason:", "no arguments")
    page.type("#command-args", "{")
    page.click("#command-form button")
    page.until_text("#command-answer", "That is not JSON")
    page.type("#desired-patch", '{"telemetry_interval_s": 7}')
    page.click("#desired-form button")
    page.until_text("#desired-answer", "desired is at version 1")
    page.until_text("#car-desired", "telemetry_interval_s", "7", "acked")
    assert world.second.car.interval_s == 7
    page.click("#close")


def test_what_a_car_writes_is_text_and_never_runs(page, world):
    """Markup in attributes, their names and reasons is shown as it is; it makes no element."""
    marked = {"fleet": IMG, "model": SCRIPT, "firmware": SVG, IMG: SVG}
    live = world.drive("hostile", answers=False, **marked)
    kind = " · ".join((IMG, SCRIPT, SVG))
    until(lambda: kind in page.texts("#cars-body td.text"), lambda: page.text("#cars-body"))
    until(lambda: IMG in page.texts("#filter-fleet option"), "the fleet is not offered")
    Select(page.driver.find_element(By.ID, "filter-fleet")).select_by_visible_text(IMG)
    until(lambda: page.texts("#cars-body .link") == ["hostile"], lambda: page.text("#cars-body"))
    page.open_car("hostile")
    page.until_text("#car-facts", f"fleet {IMG}", f"model {SCRIPT}", f"firmware {SVG}")
    page.type("#command-args", '{"a": "<b>"}')
    page.click("#command-form button")
    (command,) = until(lambda: live.heard, "the car heard nothing")
    live.publish(
        "outcomes",
        {"command_id": command["id"], "state": "failed", "at": now_ms(), "reason": SVG},
    )
    page.until_text("#car-commands li", "failed", f"reason: {SVG}", '{"a":"<b>"}')
    live.end()
    assert page.read("window.ran") is None
    made = "img:not([src^='/static/']), [onload], [onerror], p b, td b"
    assert page.read("document.querySelectorAll(arguments[0]).length", made) == 0
    scripts = page.read("[...document.scripts].map(script => script.getAttribute('src'))")
    assert scripts == ["/static/page.js"]


@pytest.mark.parametrize(
    ("part", "says"),
    [("api", "The API does not answer."), ("redis", "The API cannot answer: the read model")],
)
def test_the_page_says_when_it_is_not_live_and_recovers(page, world, part, says):
    """A banner while the API or its Redis is stopped; live again by itself afterwards."""
    page.until_text("#cars-body", "first")
    assert page.read("document.getElementById('away').hidden") is True
    os.kill(world.pids[part], signal.SIGSTOP)
    try:
        until(lambda: not page.read("document.getElementById('away').hidden"), "no banner")
        page.until_text("#away", says, "What you see is from", "Trying again")
        assert page.text("#live-text") == "not live"
        page.until_text("#cars-body", "first")
    finally:
        os.kill(world.pids[part], signal.SIGCONT)
    until(lambda: page.read("document.getElementById('away').hidden"), "the banner stays")
    page.until_text("#live-text", "live")
    shown = page.texts("#cars-body td:last-child")
    until(lambda: page.texts("#cars-body td:last-child") != shown, "the cars stand still")


def test_the_reference_of_the_api_draws_every_call(page, world, chromium):
    """/docs shows each path of /openapi.json, with nothing from elsewhere."""
    chromium.get(f"{world.api}/docs")
    script = (
        "fetch('/openapi.json').then(r => r.json()).then(a => arguments[0](Object.keys(a.paths)))"
    )
    paths = chromium.execute_async_script(script)
    assert paths
    until(
        lambda: set(paths) <= set(page.texts("details.call > summary code")),
        lambda: set(paths) - set(page.texts("details.call > summary code")),
    )
    chromium.execute_script("window.loaded = 'once'")

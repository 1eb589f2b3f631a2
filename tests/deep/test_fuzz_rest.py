"""Whatever clients ask: the answer is documented, and nothing that they can send stops a process.

Requests are drawn from what /openapi.json says (methods, paths, parameters, bodies), valid in part and
then changed, and go to the real API with the real worker behind it. They come in rounds until a time
budget is used up, which decides nothing else.
"""

import itertools
import json
import string
import time
from collections import Counter
from types import SimpleNamespace
from urllib.parse import quote

import httpx
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.processes import until

pytestmark = [pytest.mark.deep, pytest.mark.timeout(300)]

BUDGET_S = 25.0
ROUND = settings(
    max_examples=300,
    phases=[Phase.generate],
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    print_blob=False,
)
TWINS = ("Rest_0.x-", *(f"rest-{number}" for number in range(1, 12)))
PROBLEM = "application/problem+json"
UNAVAILABLE = (501, 503, 504)
HEADERS = ("If-None-Match", "If-Match", "Accept", "Range", "Content-Type", "Cookie", "Expect-CT")


# --- What is drawn -------------------------------------------------------------------------------

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=40)
    | st.sampled_from(["", "\x00", "\ud800", "a" * 300, 2**63, 2**64, -1, 1e308])
)
values = st.recursive(
    scalars,
    lambda below: (
        st.lists(below, max_size=4) | st.dictionaries(st.text(max_size=20), below, max_size=4)
    ),
    max_leaves=10,
)
visible = st.text(string.ascii_letters + string.digits + string.punctuation, max_size=60)
# What HTTP allows in a field value: no control characters, no blank at either end.
header_values = st.text(
    st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f"), max_size=300
).map(lambda text: "".join(c for c in text if not 0x80 <= ord(c) < 0xA1).strip())
filters = st.lists(
    st.sampled_from(
        ["health", "presence", "fleet", "firmware", "speed", "coolant_temp", "eq", "ne", "gt", "le",
         "and", "and", "alarm", "online", '"', '""', '"a b"', '"\\ud800"', '"\\', "1", "-1e309", "nan",
         "1_0", "٣", "vehicle_id", "%00"]
    )
    | st.text(max_size=8),
    max_size=12,
).map(" ".join)  # fmt: skip


def of_schema(schema, document):
    """Values that a JSON schema of the document allows, as far as its keywords are used there."""
    if "$ref" in schema:
        found = document
        for part in schema["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        return of_schema(found, document)
    if "anyOf" in schema:
        return st.one_of([of_schema(option, document) for option in schema["anyOf"]])
    kind = schema.get("type")
    if kind == "object":
        more = schema.get("additionalProperties", True)
        known = {
            name: of_schema(below, document) for name, below in schema.get("properties", {}).items()
        }
        required = {name: known.pop(name) for name in schema.get("required", ())}
        fixed = st.fixed_dictionaries(required, optional=known)
        if known or required or more is False:
            return fixed
        below = of_schema(more, document) if isinstance(more, dict) else values
        return st.dictionaries(st.text(max_size=20), below, max_size=6)
    if kind == "array":
        return st.lists(of_schema(schema.get("items", {}), document), max_size=4)
    if kind == "integer":
        return st.integers(schema.get("minimum"), schema.get("maximum"))
    if kind == "string":
        return (
            st.from_regex(schema["pattern"], fullmatch=True) if "pattern" in schema else st.text()
        )
    return {"boolean": st.booleans(), "null": st.none(), "number": st.floats()}.get(kind, values)


def bodies(schema, document):
    """Bodies for a JSON schema: valid, changed, any JSON, any bytes, too large, too deep."""
    good = of_schema(schema, document)

    def change(drawn):
        value, name, other = drawn
        return {**value, name: other} if isinstance(value, dict) else other

    names = st.sampled_from(sorted(schema.get("properties", {"": 0}))) | st.text(max_size=150)
    changed = st.tuples(good, names, values).map(change)
    return (
        good.map(as_json)
        | good.map(as_json)
        | good.map(as_json)
        | changed.map(as_json)
        | values.map(as_json)
        | st.binary(max_size=100)
        | st.sampled_from(
            [
                b"[" * 100_000,
                b'{"args":' + b'{"a":' * 500 + b"1" + b"}" * 501,
                b'{"name":"ping","args":{"a":"%s"}}' % (b"a" * 40_000),
                b'{"a":"%s"}' % (b"a" * 70_000),
                b'{"a":"%s"}' % (b"a" * 140_000),
                b"{%s}" % b",".join(b'"%d":"%d"' % (n, n) for n in range(3_000)),
            ]
        )
    )


def as_json(value):
    return json.dumps(value).encode()


def parameter(wanted, document, known):
    """Values of one parameter, as text."""
    name = wanted["name"]
    pool = [st.sampled_from(known)]
    if wanted["in"] == "header":
        pool += [header_values, visible]
    else:
        good = of_schema(wanted.get("schema", {}), document)
        pool += [good.map(lambda v: v if isinstance(v, str) else as_json(v).decode()), st.text()]
    if name == "filter":
        pool += [filters] * 3
    if name == "If-Match":
        pool += [
            st.sampled_from([0, 1, 2, 3, 2**53, 2**63, 2**64, 10**40]).map('"d{}"'.format),
            st.sampled_from(["*", 'W/"d1"', '"d1", "d2"']),
        ]
    if name == "fields":
        pool.append(
            st.lists(st.sampled_from([*known, "health", "reported.speed", "a.b", ".", ""])).map(
                ",".join
            )
        )
    return st.one_of(pool)


def calls(document, known):
    """Any call: often one with a body, seldom one that is not available yet."""
    found = []
    for path, methods in document["paths"].items():
        for method, described in methods.items():
            later = "501" in described["responses"] and "200" not in described["responses"]
            weight = 1 if later else 20 if "requestBody" in described else 5
            found += [call_of(path, method, described, document, known)] * weight
    return st.integers(0, len(found) - 1).flatmap(found.__getitem__)


def call_of(path, method, described, document, known):
    """Method, raw path with query, headers and body of one call of the document."""
    parameters = [
        (wanted["in"], wanted["name"], parameter(wanted, document, known))
        for wanted in described.get("parameters", ())
    ]
    content = described.get("requestBody", {}).get("content", {})
    contents = {media: bodies(body["schema"], document) for media, body in content.items()}
    sometimes = st.integers(0, 9).map(lambda n: n == 0)

    @st.composite
    def call(draw):
        said, url, query, headers, body = method, path, [], {}, b""
        for place, name, strategy in parameters:
            if place == "path":
                real = name == "vehicle_id" and draw(st.integers(0, 4)) > 0
                value = draw(st.sampled_from(TWINS) if real else strategy)
                url = url.replace(f"{{{name}}}", escape(value))
            elif place == "query" and draw(st.integers(0, 2)) == 0:
                query.append((name, draw(strategy)))
            elif place == "header" and draw(st.booleans()):
                headers[name] = draw(strategy)
        # Calls that come later name no parameters.
        url = url.replace("{", "").replace("}", "")
        if draw(sometimes):
            said = draw(st.sampled_from(["get", "put", "delete", "head", "options", "purge"]))
        if draw(sometimes):
            url += quote(draw(st.text(max_size=30)).encode(), safe="/")
        if draw(sometimes):
            query.append((draw(st.text(max_size=10)), draw(st.text(max_size=20))))
        if contents:
            media = draw(st.sampled_from(sorted(contents)))
            headers["Content-Type"] = media
            body = draw(contents[media])
        elif draw(sometimes):
            body = draw(st.binary(max_size=50))
        if draw(sometimes):
            headers[draw(st.sampled_from(HEADERS))] = draw(header_values)
        text = "&".join(f"{escape(name)}={escape(value)}" for name, value in query)
        return said.upper(), f"{url}?{text}" if query else url, headers, body

    return call()


def escape(text):
    return quote(text.encode("utf-8", "surrogatepass"), safe="")


# --- What is asked -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def world(make_module_stack, start_module_process):
    """Kafka, Redis, worker, API; twins with commands, and what a client may know of them."""
    _, endpoints = make_module_stack(mqtt="amqtt", partitions=4)
    worker = start_module_process("worker", endpoints)
    api = start_module_process("api", endpoints, API_WAIT_S="2")
    with httpx.Client(base_url=api.url, timeout=30) as client:
        document = client.get("/openapi.json").json()
        codes = {
            item["code"]: item["status"] for item in client.get("/v1/problems").json()["items"]
        }
        known = ["sensor", "f" * 32, "car-1.01J00000000000000000000000", "x"]
        for vehicle_id in TWINS:
            made = client.put(f"/v1/twins/{vehicle_id}/attributes", json={"fleet": "berlin"})
            assert made.status_code == 201, made.text
            command = client.post(f"/v1/twins/{vehicle_id}/commands", json={"name": "ping"})
            known += [made.headers["Cartwin-Token"], command.json()["id"]]
        known.append(client.get("/v1/twins?limit=1").json()["next_cursor"])
        yield SimpleNamespace(
            api=api, worker=worker, client=client, document=document, codes=codes, known=known
        )


def check(world, response):
    """Whether a client can rely on the answer; its status and code."""
    status = response.status_code
    text = response.content.decode()
    assert "Traceback" not in text
    assert status < 500 or status in UNAVAILABLE
    if status < 400:
        return str(status)
    assert response.headers["content-type"] == PROBLEM
    if response.request.method == "HEAD":
        return str(status)
    problem = json.loads(text)
    assert problem["status"] == status
    assert problem["code"] in world.codes
    assert problem["title"]
    assert problem["detail"]
    return f"{status} {problem['code']}"


def test_every_answer_is_one_of_the_contract(world, record_property):
    """No 5xx but 501, 503, 504; every error is a problem with a known code; nobody dies of it."""
    end = time.monotonic() + BUDGET_S
    seen = Counter()

    @ROUND
    @given(calls(world.document, world.known), st.booleans())
    def fuzz(call, chunked):
        method, target, headers, body = call
        url = httpx.URL(world.api.url).copy_with(raw_path=target.encode("ascii"))
        content = (iter([body[:7], body[7:]]) if chunked else body) if body else None
        request = world.client.build_request(
            method,
            url,
            headers={n: v.encode("latin-1") for n, v in headers.items()},
            content=content,
        )
        try:
            response = world.client.send(request)
            seen[check(world, response)] += 1
        except (AssertionError, KeyError, ValueError, httpx.HTTPError) as error:
            answer = response.text if "response" in locals() else "no answer"
            raise AssertionError(
                f"{method} {target:.600} {headers} {body[:600]!r} ({len(body)} bytes)\n{answer:.1500}"
            ) from error

    fuzz()
    while time.monotonic() < end:
        fuzz()
    still_serves(world)
    record_property("figures", f"REST fuzz: {seen.total()} calls: {dict(sorted(seen.items()))}")
    assert seen["200"] > 0


def still_serves(world):
    """Both processes are ready, no error was logged, a write is decided, the counts are right."""
    for process in (world.api, world.worker):
        process.ready()
        assert "Traceback" not in process.child.log.read_text(), process.child.obituary()
    made = world.client.put("/v1/twins/rest-good/attributes", json={"fleet": "good"})
    assert made.status_code == 201, made.text
    until(lambda: world.client.get("/v1/twins/rest-good").status_code == 200, "it is not visible")
    listed, cursor = [], None
    for _ in itertools.count():
        page = world.client.get(
            "/v1/twins", params={"limit": 200, **({"cursor": cursor} if cursor else {})}
        )
        listed += page.json()["items"]
        cursor = page.json()["next_cursor"]
        if cursor is None:
            break
    fleet = world.client.get("/v1/fleet").json()
    assert fleet["total"] == len(listed) > 0
    for field in ("fleet", "model", "firmware"):
        counted = Counter(twin["attributes"].get(field, "") for twin in listed)
        assert fleet[field] == most_frequent(counted), field
    assert fleet["presence"] == Counter(twin["presence"]["state"] for twin in listed)


def most_frequent(counted):
    """What /v1/fleet tells of the values of a field: the 100 most frequent, the greater one of equals."""
    ranked = sorted(((n, value.encode()) for value, n in counted.items()), reverse=True)
    return {value.decode(): n for n, value in ranked[:100]}

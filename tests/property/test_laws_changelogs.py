"""Whatever the changelogs hold, a worker restores what is whole, and serves. Kafka in memory."""

import json

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from tests.worker_fakes import CAR, OTHER, T0, Kafka, Redis, Worker, request, run, telemetry
from twin import document
from twin.changelog import EPOCH, FENCE, GRAVE, OUTBOX
from twin.state import create
from twin.wire import ids, topics

KEY = f"{CAR}/{ids.command_id(CAR, T0, 'a')}"
ENTRY = {
    "id": ids.command_id(CAR, T0, "a"), "vehicle_id": CAR, "name": "ping", "args": {},
    "lane": "default", "state": "queued", "issued_at": T0, "expires_at": T0 + 60_000,
    "updated_at": T0, "by": "ann", "history": [], "attempts": [], "epoch": 1, "revision": 5,
}  # fmt: skip
NOW_S = T0 // 1000
DAY_S = 86_400
EPOCHS = st.sampled_from(
    [0, 1, 1, 2, 3, NOW_S, NOW_S + DAY_S - 9, NOW_S + DAY_S + 1, NOW_S + 10 * DAY_S, 10**10, T0,
     10**15 - 1, 2**47, 2**48 - 1, 2**48, 2**53, 2**63, 10**25]
)  # fmt: skip
PARTS = st.sampled_from(
    ["vehicle_id", "id", "state", "updated_at", "issued_at", "by", "reported", "presence", "fleet",
     "applied", "revision", "created_at", "attributes", "desired", "health", "commands", "history",
     "idempotency_key"]
)  # fmt: skip
ANY = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 3) | st.text("ab", max_size=2) | st.just(CAR),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(PARTS | st.text(max_size=2), inner, max_size=3)
    ),
    max_leaves=6,
)


@st.composite
def changed(draw):
    """What an owner wrote, with something else in it; or anything."""
    epoch = draw(EPOCHS)
    made = {**create(CAR, T0), "reported": {}, "revision": 5}
    if draw(st.booleans()):
        made = dict(ENTRY)
    if draw(st.booleans()):
        made = draw(st.dictionaries(PARTS, ANY, max_size=4))
    made |= draw(st.dictionaries(PARTS, ANY, max_size=2))
    made = {"epoch": epoch, **{name: part for name, part in made.items() if name != "epoch"}}
    return draw(st.binary(max_size=5)) if not draw(st.integers(0, 9)) else json.dumps(made).encode()


OUTPUTS = st.lists(
    st.fixed_dictionaries(
        {
            "at": st.tuples(st.sampled_from(["telemetry", "x"]), st.integers(0, 3)) | ANY,
            "out": st.lists(
                st.tuples(
                    st.sampled_from(["ledger", "changes", "downlink", "replies", "x"]) | ANY,
                    st.sampled_from([KEY, CAR]) | ANY,
                    st.integers(0, 3) | ANY,
                    ANY | st.just(dict(ENTRY)),
                ),
                max_size=2,
            ),
        }
    ),
    max_size=2,
).map(lambda outbox: json.dumps(outbox).encode())
STRANGE = st.tuples(
    st.sampled_from([topics.TWINS, topics.LEDGER]),
    st.sampled_from([CAR, CAR, KEY, KEY, None, FENCE, b"\xff", OTHER]),
    st.none() | changed(),
    st.lists(
        st.sampled_from([(EPOCH, b"\xff"), (GRAVE, b'{"telemetry":[0,"x"]}')])
        | EPOCHS.map(lambda epoch: (EPOCH, b"%d" % epoch))
        | st.tuples(st.just(GRAVE), st.binary(max_size=5))
        | st.tuples(st.just(OUTBOX), OUTPUTS | st.binary(max_size=5)),
        max_size=3,
    ),
)


@settings(max_examples=200)
@given(st.lists(STRANGE, max_size=6), st.booleans())
def test_whatever_the_changelogs_hold_a_worker_restores_and_serves(records, before):
    """Even under an epoch that an owner could have: what is not whole is left out, the rest goes on; also
    for the owner after it, who finds what was decided, and after one that has told nothing."""

    async def test():
        kafka, store = Kafka(), Redis()
        kafka.now_ms = lambda: T0
        if before:
            kafka.append((topics.TWINS, 0), CAR, document.dump({**create(CAR, T0), "epoch": 1}))
            kafka.append((topics.LEDGER, 0), KEY, orjson.dumps(ENTRY))
        for topic, key, value, headers in records:
            kafka.append((topic, 0), key, value, headers)
        with capture_logs():
            revisions = {}
            for restart in range(3):
                worker = Worker(kafka, store)
                await worker.restore(second=NOW_S)
                owned = worker.owner.parts[0]
                assert NOW_S <= owned.epoch < NOW_S + DAY_S
                if revisions:
                    assert {c: twin.version[2] for c, twin in owned.twins.items()} == revisions
                for offset, car in enumerate((CAR, OTHER), 100 * restart + 100):
                    assert await worker.take(telemetry(offset, car))
                    assert owned.twins[car].version[0] == owned.epoch
                asked = request(100 * restart + 100, "attributes", {"value": {}})
                assert await worker.take(asked)
                await worker.takeover.watch(lambda: True)
                assert not worker.faults
                revisions = {car: twin.version[2] for car, twin in owned.twins.items()}

    run(test)

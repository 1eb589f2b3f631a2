"""The process itself: /livez, /readyz, /metrics."""

from typing import Final

import orjson
from fastapi import APIRouter
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from twin.api.answers import JSON
from twin.api.reader import StoreUnavailable
from twin.api.services import Needs
from twin.kit.metrics import FLEET

router = APIRouter(tags=["process"])

_FLEET: Final = ("presence", "health")
"""What the fleet is counted by for Prometheus: few values, and none that a car can choose."""
_VALUES: Final = 100


@router.get("/livez", summary="Is the process of use?")
async def livez(needs: Needs) -> Response:
    """503 when a part that must never end has ended: then a restart helps."""
    ended = needs.ended()
    body = {"status": "ended" if ended else "alive", "why": ended}
    return Response(orjson.dumps(body), 503 if ended else 200, media_type=JSON)


@router.get("/readyz", summary="Can it serve?")
async def readyz(needs: Needs) -> Response:
    """503 naming what is missing: Redis, or Kafka's topic of requests."""
    faults = needs.readiness.faults()
    body = {"status": "not ready" if faults else "ready", "why": faults}
    return Response(orjson.dumps(body), 503 if faults else 200, media_type=JSON)


@router.get("/metrics", summary="Prometheus metrics")
async def metrics(needs: Needs) -> Response:
    """All metrics of this process, and the fleet's numbers while Redis answers."""
    FLEET.clear()
    try:
        _, counts = await needs.reader.counts(_VALUES)
    except StoreUnavailable:
        counts = {}
    for field in _FLEET:
        for value, count in counts.get(field, {}).items():
            FLEET.labels(field, value).set(count)
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

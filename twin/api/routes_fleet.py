"""The fleet in numbers, the catalogue of signals, and the public list of problems."""

from typing import Final

import orjson
from fastapi import APIRouter, Request
from fastapi.responses import Response

from twin.api import answers, shapes
from twin.api.documented import problems
from twin.api.parameters import NoParameters
from twin.api.problems import CODES
from twin.api.services import Needs
from twin.wire.catalogue import INDEXED, SIGNALS

router = APIRouter(tags=["fleet"])

_ALARMS: Final = 50
_VALUES: Final = 100
_PERCENTS: Final = (5, 50, 95, 99)
_NAMES: Final = tuple(f"p{percent}" for percent in _PERCENTS)
_CATALOGUE: Final = orjson.dumps(
    {
        "items": [
            {
                "name": s.name,
                "unit": s.unit,
                "type": s.type,
                "min": s.low,
                "max": s.high,
                "vss": None if s.vss == "-" else s.vss,
                "indexed": s.indexed,
                "personal": s.personal,
            }
            for s in SIGNALS
        ]
    }
)
_PROBLEMS: Final = orjson.dumps(
    {
        "items": [
            {"code": code, "status": status, "title": title}
            for code, (status, title) in CODES.items()
        ]
    }
)


@router.get(
    "/v1/fleet",
    summary="The fleet in numbers",
    responses={200: {"model": shapes.shape(shapes.Fleet)}, **problems(503)},
)
async def get_fleet(request: Request, needs: Needs, _query: NoParameters) -> Response:
    """Twins in total and by presence, health, fleet, model and firmware (the 100 most frequent values
    of each); percentiles of the indexed signals; the newest 50 alarms.

    Kept by the twins' owners as they write, so the cost hardly depends on the fleet's size.
    """
    total, counts = await needs.reader.counts(_VALUES)
    percentiles = await needs.reader.percentiles(INDEXED, _PERCENTS)
    alarms = await needs.reader.alarms(_ALARMS)
    fleet = {
        "total": total,
        **counts,
        "signals": {
            name: {"twins": count, **dict(zip(_NAMES, scores, strict=False))}
            for name, (count, scores) in percentiles.items()
        },
        "alarms": [{"vehicle_id": vehicle_id, "since": since} for vehicle_id, since in alarms],
    }
    return answers.document(request, orjson.dumps(fleet))


@router.get("/v1/catalogue", summary="Signals with unit and range")
async def get_catalogue(request: Request, _query: NoParameters) -> Response:
    """The one catalogue that validation, schema and page share."""
    return answers.document(request, _CATALOGUE)


@router.get("/v1/problems", summary="Everything this API can refuse")
async def get_problems(request: Request, _query: NoParameters) -> Response:
    """Stable codes with status and title."""
    return answers.document(request, _PROBLEMS)

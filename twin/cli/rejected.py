"""`cartwin rejected ...`: look at what could not be accepted, mend it, send it again; over REST."""

import sys
from base64 import b64decode, b64encode
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import quote

import orjson
import typer

from twin.cli import output
from twin.cli.query import Api, call

app = typer.Typer(
    no_args_is_help=True,
    help="""Look at rejected records, mend them, and send them again.

    `cartwin rejected list --reason bad_type`, `cartwin rejected show 3-17`,
    `cartwin rejected redrive 3-17 --patch '{"coolant_temp":91}'`,
    `cartwin rejected redrive --reason unknown_signal --dry-run`.""",
)

_CALL_RECORDS: Final = 500
_SHOWN: Final = 2000
"""Characters of an original that are shown to people."""

Reason = Annotated[str | None, typer.Option(help="Reason code, e.g. bad_type.")]
Vehicle = Annotated[str | None, typer.Option(help="Of this vehicle.")]
Source = Annotated[
    str | None, typer.Option(help="Beginning of the source, e.g. mqtt:vehicles/car-1/ or kafka:.")
]
From = Annotated[
    str | None, typer.Option("--from", help="Rejected then or later: 2026-01-31T12:00Z, or ms.")
]
To = Annotated[str | None, typer.Option("--to", help="Rejected before: as --from.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON line a record or result.")]


@app.command("list")
def list_(
    reason: Reason = None,
    vehicle: Vehicle = None,
    source: Source = None,
    from_: From = None,
    to: To = None,
    limit: Annotated[int, typer.Option(min=1, max=200)] = 25,
    cursor: Annotated[str | None, typer.Option(help="Go on where the page before ended.")] = None,
    json: Json = False,
    api: Api = None,
) -> None:
    """Print one line per record, the newest first; says when there are more."""
    wanted = _filter(reason, vehicle, source, from_, to)
    params = {**wanted, "limit": limit, **({"cursor": cursor} if cursor else {})}
    page = call(api, "GET", "/v1/rejected", params=params)
    try:
        lines = [(item, _line(item)) for item in page["items"]]
    except (KeyError, TypeError, ValueError):
        output.fail(f"GET /v1/rejected: no page of records was answered: {str(page)[:200]}")
    if lines and not json and sys.stdout.isatty():
        print(_HEADS)
    for item, line in lines:
        if json:
            output.result(item)
        else:
            print(line)
    if page.get("next_cursor"):
        output.say(f"There may be more: --cursor {page['next_cursor']}")
    elif not lines:
        output.say("Nothing was rejected that matches.")


@app.command()
def show(
    id: Annotated[str, typer.Argument(help="<partition>-<offset>, as `list` names it.")],  # noqa: A002
    json: Json = False,
    raw: Annotated[bool, typer.Option("--raw", help="Only the original's bytes.")] = False,
    api: Api = None,
) -> None:
    """Print one record: why, where from, and what it was."""
    found = call(api, "GET", f"/v1/rejected/{quote(id, safe='')}")
    if json:
        output.result(found)
        return
    try:
        if raw:
            typer.echo(_bytes(found), nl=False)
            return
        for name, value in found.items():
            if name not in ("value", "encoding", "headers") and value is not None:
                print(f"{name:13} {_time(value) if name in _TIMES else _plain(value)}")
        for header in found["headers"]:
            print(f"header        {_plain(header['name'])}: {_plain(header['value'])}")
        value = str(found["value"])
        cut = f" .. ({len(value)} characters; --raw shows all)" if len(value) > _SHOWN else ""
        print(f"{found['encoding']:13} {_plain(value[:_SHOWN])}{cut}")
    except (KeyError, TypeError, ValueError, OverflowError):
        output.fail(f"GET /v1/rejected/{id}: no rejected record was answered: {str(found)[:200]}")


@app.command()
def redrive(
    id: Annotated[  # noqa: A002
        str | None, typer.Argument(help="One record; or none, and filters.")
    ] = None,
    patch: Annotated[
        str | None, typer.Option(help="JSON merge patch of a JSON original, for one record.")
    ] = None,
    value: Annotated[
        Path | None, typer.Option(help="File whose bytes take the place of the original's.")
    ] = None,
    reason: Reason = None,
    vehicle: Vehicle = None,
    source: Source = None,
    from_: From = None,
    to: To = None,
    all_: Annotated[bool, typer.Option("--all", help="Without any filter.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="Most records; the newest first.")] = 10_000,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count and list.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before sending many.")] = False,
    json: Json = False,
    api: Api = None,
) -> None:
    """Send again: one record, as it is or mended; or all that match, as they are.

    What fails again is rejected as a new record, with one attempt more. Exit code 1 when some could not
    be sent.
    """
    wanted = _filter(reason, vehicle, source, from_, to)
    if id is not None:
        if wanted or all_:
            output.fail("an id and a filter are given; one of both is accepted", output.USAGE)
        _one(id, _change(patch, value), api, json=json, dry_run=dry_run)
        return
    if patch is not None or value is not None:
        output.fail("--patch and --value are for one record: give its id", output.USAGE)
    if not wanted and not all_:
        output.fail("give an id, a filter, or --all", output.USAGE)
    found = list(_calls(wanted, limit, None, api, dry_run=True))
    count = sum(len(answer["ids"]) for answer in found)
    if dry_run:
        for answer in found:
            for one in answer["ids"]:
                output.result({"id": one}) if json else print(one)
        output.say(f"{count} records would be sent again.")
        return
    if not count:
        output.say("Nothing was rejected that matches.")
        return
    if not yes and not typer.confirm(f"Send {count} rejected records again?", err=True):
        output.fail("nothing was sent")
    # From where the count began: what is rejected since then was not agreed to.
    _many(wanted, count, found[0]["cursor"], api, json=json)


def _one(id_: str, body: dict[str, Any], api: str | None, *, json: bool, dry_run: bool) -> None:
    path = f"/v1/rejected/{quote(id_, safe='')}"
    if dry_run:
        found = call(api, "GET", path)
        output.say(f"{found.get('id')} would be sent again: {found.get('source')}")
        return
    done = call(api, "POST", f"{path}/redrive", json=body)
    if json:
        output.result(done)
    else:
        output.say(f"{done.get('id')} was sent to topic {done.get('topic')}.")


def _many(
    wanted: dict[str, Any], count: int, cursor: str | None, api: str | None, *, json: bool
) -> None:
    redriven, failed = 0, 0
    for answer in _calls(wanted, count, cursor, api, dry_run=False):
        redriven += answer["redriven"]
        failed += len(answer["failed"])
        if json:
            output.result(answer)
        else:
            for fault in answer["failed"]:
                output.say(f"{fault['id']}: {fault['detail']}")
    output.say(f"{redriven} records were sent again, {failed} could not be.")
    if failed:
        raise typer.Exit(output.MISSED)


def _calls(
    wanted: dict[str, Any], limit: int, cursor: str | None, api: str | None, *, dry_run: bool
) -> Iterator[dict[str, Any]]:
    """Answers, call by call, until `limit` records or the end."""
    while limit > 0:
        most = min(limit, _CALL_RECORDS)
        body = {"filter": wanted, "dry_run": dry_run, "limit": most, "cursor": cursor}
        answer = call(api, "POST", "/v1/rejected/redrive", json=body)
        try:
            limit -= answer["matched"]
            cursor = answer["next_cursor"]
            whole = {"ids", "redriven", "failed", "cursor"} <= answer.keys()
        except (KeyError, TypeError):
            whole = False
        if not whole:
            output.fail(f"POST /v1/rejected/redrive: no count was answered: {str(answer)[:200]}")
        yield answer
        if cursor is None:
            return


def _change(patch: str | None, value: Path | None) -> dict[str, Any]:
    if patch is not None and value is not None:
        output.fail("--patch and --value are given; one of both is accepted", output.USAGE)
    if patch is not None:
        try:
            parsed = orjson.loads(patch)
        except orjson.JSONDecodeError as error:
            output.fail(f"--patch {patch[:80]!r} is not JSON: {error}", output.USAGE)
        if not isinstance(parsed, dict):
            output.fail(f"--patch {patch[:80]!r} is no JSON object", output.USAGE)
        return {"patch": parsed}
    if value is not None:
        try:
            return {"value": b64encode(value.read_bytes()).decode()}
        except OSError as error:
            output.fail(f"--value {value}: {error.strerror}", output.USAGE)
    return {}


def _filter(
    reason: str | None, vehicle: str | None, source: str | None, from_: str | None, to: str | None
) -> dict[str, Any]:
    given = {
        "reason": reason,
        "vehicle_id": vehicle,
        "source": source,
        "from": _ms("--from", from_),
        "to": _ms("--to", to),
    }
    return {name: value for name, value in given.items() if value is not None}


def _ms(option: str, text: str | None) -> int | None:
    if text is None:
        return None
    if text.isascii() and text.isdecimal():
        return int(text)
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        output.fail(
            f"{option} {text!r} is no time: 2026-01-31T12:00Z is, or ms since 1970", output.USAGE
        )
    if at.tzinfo is None:
        at = at.astimezone()
    return int(at.timestamp() * 1000)


_TIMES: Final = ("at", "ingested_at")
_HEADS: Final = f"{'id':>10}  {'rejected at':24}  {'reason':18}  tries  source  detail"


def _line(item: dict[str, Any]) -> str:
    parts = (
        f"{item['id']:>10}",
        _time(item["at"]),
        f"{item['reason']:18}",
        f"{item['attempts']:>5}",
        item["source"],
        item["detail"],
    )
    return "  ".join(_plain(part) for part in parts)


def _time(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def _plain(value: Any) -> str:
    """Text that does nothing to a terminal: cars write it."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(value))


def _bytes(found: dict[str, Any]) -> bytes:
    value = found["value"] or ""
    return b64decode(value) if found["encoding"] == "base64" else str(value).encode()

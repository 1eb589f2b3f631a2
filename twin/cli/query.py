"""`cartwin twin ...`: look at twins and talk to cars over REST."""

from typing import Annotated, Any
from urllib.parse import quote

import httpx
import orjson
import typer

from twin.cli import endpoints, output

app = typer.Typer(no_args_is_help=True, help="Look at twins and send commands over the API.")

Api = Annotated[str | None, typer.Option(help="API address; default: the running stack's.")]


def call(api: str | None, method: str, path: str, **request: Any) -> dict[str, Any]:
    """One API call; a problem, a silent API or another service ends it with a sentence."""
    url = endpoints.api_url(api)
    try:
        answer = httpx.request(method, url + path, timeout=10, **request)
    # A host name that is none is a bare UnicodeError.
    except (httpx.InvalidURL, httpx.UnsupportedProtocol, UnicodeError) as error:
        output.fail(f"--api {url!r} is not accepted: http://host:port is ({error})", output.USAGE)
    except httpx.HTTPError as error:
        output.fail(f"no API answers at {url}: {error}")
    try:
        document = answer.json()
    except ValueError:
        document = None
    if not isinstance(document, dict):
        output.fail(
            f"{method} {path}: what answers at {url} is no cartwin API: {answer.status_code}"
            f" {answer.text[:200]!r}, a JSON object was expected"
        )
    if not answer.is_success:
        detail = document.get("detail") or document.get("title") or answer.reason_phrase
        output.fail(f"{method} {path}: {answer.status_code} {detail}")
    return document


@app.command()
def get(
    vehicle_id: str,
    fields: Annotated[
        str | None, typer.Option(help="Only these, e.g. health,reported.speed.")
    ] = None,
    api: Api = None,
) -> None:
    """Print the twin of one car."""
    params = {"fields": fields} if fields else {}
    twin = call(api, "GET", f"/v1/twins/{quote(vehicle_id, safe='')}", params=params)
    print(orjson.dumps(twin, option=orjson.OPT_INDENT_2).decode())


@app.command("list")
def list_(
    filter: Annotated[  # noqa: A002 - the API's name
        str | None, typer.Option(help="E.g. 'health eq alarm and fleet eq berlin'.")
    ] = None,
    sort: Annotated[
        str | None,
        typer.Option(help="Indexed field, e.g. coolant_temp; -coolant_temp = from the top."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=200)] = 25,
    cursor: Annotated[str | None, typer.Option(help="Go on where the page before ended.")] = None,
    api: Api = None,
) -> None:
    """Print one line per twin; says when there are more."""
    given = {"filter": filter, "sort": sort, "cursor": cursor}
    params = {"limit": limit} | {name: value for name, value in given.items() if value}
    page = call(api, "GET", "/v1/twins", params=params)
    try:
        lines = [
            {
                "vehicle_id": twin["vehicle_id"],
                "revision": twin["revision"],
                "presence": twin["presence"]["state"],
                "health": twin["health"]["state"],
            }
            for twin in page["items"]
        ]
    except (KeyError, TypeError):
        output.fail(f"GET /v1/twins: no page of twins was answered: {str(page)[:200]}")
    for line in lines:
        output.result(line)
    if page.get("next_cursor"):
        output.say(f"There is more: --cursor {page['next_cursor']}")


@app.command()
def command(
    vehicle_id: str,
    name: str,
    args: Annotated[str, typer.Option(help="Arguments as a JSON object.")] = "{}",
    ttl_s: Annotated[int, typer.Option(help="The car refuses it after so many seconds.")] = 3600,
    api: Api = None,
) -> None:
    """Send a command, e.g. `cartwin twin command car-000001 limit_power --args '{"factor":0.5}'`."""
    try:
        parsed = orjson.loads(args)
    except orjson.JSONDecodeError as error:
        output.fail(f"--args {args!r} is not JSON: {error}", output.USAGE)
    body = {"name": name, "args": parsed, "ttl_s": ttl_s}
    path = f"/v1/twins/{quote(vehicle_id, safe='')}/commands"
    output.result(call(api, "POST", path, json=body))

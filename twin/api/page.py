"""The live page and the API reference: static files under a policy that allows nothing from elsewhere.

Everything it shows comes from the API and is put in as text, since ids and attributes are written
by cars: the policy forbids inline scripts, so even a mistake there could not run any.
"""

from importlib.resources import files
from typing import Final

from fastapi import APIRouter, Request
from fastapi.responses import Response

from twin.api import answers, etags

router = APIRouter(include_in_schema=False)

_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_FILES: Final = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/docs": ("docs.html", "text/html; charset=utf-8"),
    "/static/docs.js": ("docs.js", "text/javascript; charset=utf-8"),
    "/static/page.css": ("page.css", "text/css; charset=utf-8"),
    "/static/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/static/icon.svg": ("icon.svg", "image/svg+xml"),
}


def _add(path: str, name: str, media_type: str) -> None:
    body = (files("twin.api") / "static" / name).read_bytes()
    etag = etags.of_content(body)

    async def file(request: Request) -> Response:
        if etags.none_match_hits(request.headers.get("if-none-match"), etag):
            return answers.not_modified(etag)
        headers = {
            "ETag": etag,
            "Cache-Control": "no-cache",
            "Content-Security-Policy": _POLICY,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
        }
        return Response(body, media_type=media_type, headers=headers)

    router.add_api_route(path, file, methods=["GET"], name=name)


for _path, (_name, _type) in _FILES.items():
    _add(_path, _name, _type)

"""Everything the API can refuse, in one public list: RFC 9457 problems with a stable `code`.

Codes are added, never renamed. The twin's owner refuses with codes of the same list (its `Reply`
carries the code). A `Problem` may be raised anywhere, by pure code too; `answers` makes it HTTP.
"""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from twin.wire.errors import CartwinError

CODES: Final[dict[str, tuple[int, str]]] = {
    "invalid_parameter": (400, "A query or path parameter is not accepted"),
    "invalid_header": (400, "A request header is not accepted"),
    "invalid_filter": (400, "The filter is not accepted"),
    "invalid_sort": (400, "The sort order is not accepted"),
    "invalid_fields": (400, "The list of fields is not accepted"),
    "invalid_token": (400, "The token is not one of ours"),
    "invalid_cursor": (400, "The cursor is not one of ours"),
    "bad_vehicle_id": (400, "The vehicle or command id is not accepted"),
    "malformed_json": (400, "The body is not JSON"),
    "bad_request": (400, "The twin's owner does not accept the request"),
    "bad_command": (400, "The twin's owner does not accept the command"),
    "bad_ttl": (400, "The life of the command is not accepted"),
    "too_deep": (400, "The document is nested too deeply"),
    "key_too_long": (400, "A member's name is too long"),
    "not_found": (404, "There is nothing at this address"),
    "twin_not_found": (404, "There is no twin of this vehicle"),
    "command_not_found": (404, "There is no such command"),
    "decision_not_found": (404, "The rule has decided nothing for this car"),
    "path_not_found": (404, "The twin has nothing at this path"),
    "rejected_not_found": (404, "There is no such rejected record"),
    "request_not_found": (404, "No decision is stored for this request"),
    "method_not_allowed": (405, "The method is not accepted here"),
    "idempotency_conflict": (409, "The Idempotency-Key was used for another request"),
    "not_redrivable": (409, "The record cannot be driven again as it is"),
    "not_patchable": (409, "The original is no JSON object, so it cannot be patched"),
    "illegal_transition": (409, "The command cannot be cancelled any more"),
    "not_awaiting_approval": (409, "The decision awaits no approval"),
    "interlock_refused": (409, "An interlock refuses the command"),
    "already_final": (410, "The command has reached its final state"),
    "version_mismatch": (412, "The document has another version"),
    "too_large": (413, "The body is too large"),
    "document_too_large": (413, "The twin document would be too large"),
    "unsupported_media_type": (415, "The media type of the body is not accepted"),
    "invalid_body": (422, "The body is not accepted"),
    "too_many_open_commands": (429, "Too many commands of this car are open"),
    "too_many_commands": (429, "This car has had too many commands within 24 h"),
    "too_many_writes": (429, "Too many writes to this twin are undecided"),
    "internal_error": (500, "The API failed"),
    "not_available_yet": (501, "Not available yet"),
    "store_unavailable": (503, "The read model does not answer"),
    "log_unavailable": (503, "Kafka does not take the request"),
    "too_busy": (503, "Too many requests are undecided"),
    "no_decision_yet": (504, "The twin's owner has not decided in time"),
    "not_visible_yet": (504, "The write is not visible in time"),
}


class Problem(CartwinError):
    """A refusal: `code` of the public list and one sentence naming the input and what is accepted.

    `status` overrides the list's (the owner's word counts). `members` are extension members of the
    problem document, `headers` HTTP headers besides.
    """

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        status: int | None = None,
        members: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        known_status, title = CODES.get(code, (status or 500, HTTPStatus(status or 500).phrase))
        self.code = code
        self.title = title
        self.status = status or known_status
        self.detail = detail
        self.members = dict(members or {})
        self.headers = dict(headers or {})

    def document(self, instance: str) -> dict[str, Any]:
        """The problem+json document; `instance` is the path that was asked for."""
        return {
            **self.members,
            "type": f"/v1/problems#{self.code}",
            "title": self.title,
            "status": self.status,
            "code": self.code,
            "detail": self.detail,
            "instance": instance,
        }

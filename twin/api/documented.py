"""OpenAPI: problem answers by status, and bodies that `bodies` reads by itself."""

from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI
from pydantic import TypeAdapter

from twin.api import shapes
from twin.api.problems import CODES

PROBLEM: Final = "application/problem+json"
_PROBLEM = shapes.shape(shapes.ProblemDocument)


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that may refuse with these statuses."""
    described: dict[int | str, dict[str, Any]] = {}
    for status in statuses:
        codes = [code for code, (of, _title) in CODES.items() if of == status]
        described[status] = {
            "model": _PROBLEM,
            "description": f"{HTTPStatus(status).phrase}: {', '.join(codes)}",
        }
    return described


def body_of(shape: Any, *media_types: str, required: bool = True) -> dict[str, Any]:
    """The `openapi_extra` of a route whose body is a JSON object of `shape`."""
    schema = TypeAdapter(shape).json_schema()
    schema = _inlined(schema, schema.pop("$defs", {}))
    content = {media_type: {"schema": schema} for media_type in media_types}
    return {"requestBody": {"required": required, "content": content}}


def _inlined(schema: Any, definitions: dict[str, Any]) -> Any:
    """A schema without `$defs`: beside a route they would not be where its references point to.

    Shapes of bodies do not hold themselves, so this ends.
    """
    if isinstance(schema, list):
        return [_inlined(part, definitions) for part in schema]
    if not isinstance(schema, dict):
        return schema
    rest = {name: _inlined(part, definitions) for name, part in schema.items() if name != "$ref"}
    if "$ref" not in schema:
        return rest
    name = schema["$ref"].removeprefix("#/$defs/")
    return {**_inlined(definitions[name], definitions), **rest}


def document(app: FastAPI) -> dict[str, Any]:
    """The application's OpenAPI document: refusals are problem+json, and only those that exist."""
    if app.openapi_schema is not None:
        return app.openapi_schema
    described = FastAPI.openapi(app)
    for calls in described["paths"].values():
        for call in calls.values():
            answers = call["responses"]
            if _is_default(answers.get("422")):
                # The framework promises it wherever there is a parameter; here that is a 400.
                del answers["422"]
            for status, answer in answers.items():
                if status >= "400" and "content" in answer:
                    answer["content"] = {PROBLEM: next(iter(answer["content"].values()))}
    for name in ("HTTPValidationError", "ValidationError"):
        described["components"]["schemas"].pop(name, None)
    return described


def _is_default(answer: dict[str, Any] | None) -> bool:
    return answer is not None and "HTTPValidationError" in str(answer)

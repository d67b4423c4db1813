"""The OpenAPI document: what FastAPI reads off the routes, made true of errors and keys, with answers as examples."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import TypeAdapter
from typing_extensions import TypedDict

from problems import MEDIA_TYPE, title_of, to_problem
from routes.error_guide import KNOWN_ERRORS, KnownError
from routes.permissions import SCOPES

EXAMPLES_PATH = Path(__file__).parent / "examples.json"
EXAMPLE_REQUEST_ID = "5f1c0e7a92d4-2a"
Document = dict[str, Any]

_JSON = "application/json"
_METHODS = frozenset({"get", "put", "post", "delete", "patch", "head", "options"})
_SECURITY_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "An API key, as `Authorization: Bearer KEY`."},
    "api_key": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "The same key, as a header."},
}
_HEADERS = {
    "X-Request-ID": {
        "description": "The id that was sent with the request, or a new one; it is in the log, too.",
        "schema": {"type": "string"},
    },
    "Retry-After": {
        "description": "Whole seconds, 1 or more, after which the same request can succeed.",
        "schema": {"type": "integer", "minimum": 1},
    },
}


class Body(TypedDict):
    """A body as it was sent."""

    media_type: str
    value: Any


class Answer(Body):
    """A body as it was answered."""

    status: int


class Examples(TypedDict):
    """What was sent to one operation, and what it answered."""

    bodies: list[Body]
    answers: list[Answer]


def load_examples(path: Path = EXAMPLES_PATH) -> dict[str, Examples]:
    """Examples by operation id; `make api-docs` writes them, from answers of a running service."""
    return TypeAdapter(dict[str, Examples]).validate_json(path.read_bytes())


def install_document(app: FastAPI) -> None:
    """Have the application serve its document as it should be; it is made when it is first asked for."""

    def document() -> Document:
        if app.openapi_schema is None:
            app.openapi_schema = make_document(app, load_examples())
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]  # the way FastAPI's documentation gives


def make_document(app: FastAPI, examples: Mapping[str, Examples]) -> Document:
    document: Document = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes
    )
    components = document["components"]
    for unused in ("HTTPValidationError", "ValidationError"):
        components["schemas"].pop(unused, None)
    components["securitySchemes"] = _SECURITY_SCHEMES
    components["headers"] = _HEADERS
    components["examples"] = {known.error.code: _example_of(known) for known in KNOWN_ERRORS}
    for _, _, operation in operations_of(document):
        _correct(operation)
        if (given := examples.get(operation["operationId"])) is not None:
            _add_examples(operation, given)
    _link_ids(document)
    return document


def operations_of(document: Document) -> Iterator[tuple[str, str, Document]]:
    """Each operation with its method, in capitals, and its path."""
    for path, item in document["paths"].items():
        for method, operation in item.items():
            if method in _METHODS:
                yield method.upper(), path, operation


def find_operation(document: Document, method: str, path: str) -> str | None:
    """The id of the operation that answers; a path that is written out goes before one with parameters."""
    found = [
        (template.count("{"), operation["operationId"])
        for known, template, operation in operations_of(document)
        if known == method and re.fullmatch(re.sub(r"\\{\w+\\}", "[^/]+", re.escape(template)), path)
    ]
    return min(found)[1] if found else None


def _link_ids(document: Document) -> None:
    """Say of each answer that accepts something where the id that it gives can go."""
    operations = list(operations_of(document))
    for _, _, operation in operations:
        if (response := operation["responses"].get("202")) is None:
            continue
        members = _members_of(document, response)
        links = {
            other["operationId"]: {
                "operationId": other["operationId"],
                "parameters": {member: f"$response.body#/{member}"},
            }
            for _, path, other in operations
            for member in members
            if f"{{{member}}}" in path
        }
        if links:
            response["links"] = links


def _members_of(document: Document, response: Document) -> list[str]:
    """The members that a JSON body of this response can have."""
    schema: Document = response.get("content", {}).get(_JSON, {}).get("schema", {})
    if (name := schema.get("$ref", "").rpartition("/")[2]) != "":
        schema = document["components"]["schemas"][name]
    return list(schema.get("properties", {}))


def _correct(operation: Document) -> None:
    """Errors are problem details, a wrong parameter is a 400 and never FastAPI's 422, and every operation can fail."""
    responses: Document = operation["responses"]
    if "HTTPValidationError" in str(responses.get("422")):
        del responses["422"]
    responses.setdefault("500", {"content": {_JSON: {"schema": {"$ref": "#/components/schemas/Problem"}}}})
    if "401" in responses:
        operation["security"] = _security_of(operation["operationId"])
    for status, response in responses.items():
        headers: Document = response.setdefault("headers", {})
        headers["X-Request-ID"] = {"$ref": "#/components/headers/X-Request-ID"}
        if status >= "400":
            _correct_error(int(status), response)
    operation["responses"] = dict(sorted(responses.items()))


def _security_of(operation_id: str) -> list[dict[str, list[str]]]:
    """None, or a key with the operation's scope: one is asked for where keys are configured."""
    scope = SCOPES[operation_id]
    return [{}, *({scheme: [str(scope)]} for scheme in _SECURITY_SCHEMES)]


def _correct_error(status: int, response: Document) -> None:
    known = [one for one in KNOWN_ERRORS if one.error.status == status]
    response["description"] = " ".join([f"{title_of(status)}.", *(one.when for one in known)])
    examples = {one.error.code: {"$ref": f"#/components/examples/{one.error.code}"} for one in known}
    response["content"] = {MEDIA_TYPE: {**response["content"][_JSON], "examples": examples}}
    if any(one.error.retry_after_s is not None for one in known):
        response["headers"]["Retry-After"] = {"$ref": "#/components/headers/Retry-After"}


def _example_of(known: KnownError) -> Document:
    problem, _ = to_problem(known.error)
    return {
        "summary": known.when,
        "description": known.remedy,
        "value": {**problem, "request_id": EXAMPLE_REQUEST_ID},
    }


def _add_examples(operation: Document, given: Examples) -> None:
    for body in given["bodies"]:
        media: Document = operation["requestBody"]["content"][body["media_type"]]
        media.setdefault("examples", {})["sent"] = {"value": body["value"]}
    for answer in given["answers"]:
        content: Document = operation["responses"][str(answer["status"])].setdefault("content", {})
        media = content.setdefault(answer["media_type"], {"schema": {"type": "string"}})
        name = answer["value"]["error"] if answer["status"] >= 400 else "answered"
        media.setdefault("examples", {})[name] = _with_guide(name, answer["value"])


def _with_guide(name: str, value: object) -> Document:
    """An error is explained, whoever made its example."""
    known = next((one for one in KNOWN_ERRORS if one.error.code == name), None)
    return {"value": value} if known is None else {"summary": known.when, "description": known.remedy, "value": value}

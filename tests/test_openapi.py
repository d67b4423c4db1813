"""The OpenAPI document: valid, with a name, words, examples and errors for every operation."""

import json
import re
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
from fastapi.routing import APIRoute

import routes
from docs.make_api import NO_CONTENT, make_app
from errors import GrokError, InsightsError
from problems import MEDIA_TYPE, to_problem
from routes.error_guide import KNOWN_ERRORS
from routes.openapi import Document, find_operation, load_examples, make_document, operations_of

pytestmark = pytest.mark.unit

DOCUMENT = make_document(make_app(), load_examples())
OPERATIONS = {operation["operationId"]: (path, operation) for _, path, operation in operations_of(DOCUMENT)}
VERBS = {
    "check", "count", "delete", "erase", "find", "follow", "get", "list", "post", "put", "read", "reanalyze",
    "retry", "stop",
}  # fmt: skip
REMEDY = "show it in a session of docs/sessions/NN-{}.md, then run make api-docs"

# What https://spec.openapis.org/oas/v3.1.1 asks of the parts that this document has.
TEXT: Document = {"type": "string", "minLength": 1}
MEDIA: Document = {
    "type": "object",
    "additionalProperties": {
        "type": "object",
        "required": ["schema"],
        "properties": {"schema": {"type": "object"}, "examples": {"type": "object"}},
        "patternProperties": {"^x-": True},
        "additionalProperties": False,
    },
}
PARAMETER: Document = {
    "type": "object",
    "required": ["name", "in", "schema"],
    "properties": {"name": TEXT, "in": {"enum": ["query", "header", "path", "cookie"]}, "schema": {"type": "object"}},
    "if": {"properties": {"in": {"const": "path"}}},
    "then": {"required": ["required"], "properties": {"required": {"const": True}}},
}
RESPONSE: Document = {
    "type": "object",
    "required": ["description"],
    "properties": {"description": TEXT, "content": MEDIA, "headers": {"type": "object"}, "links": {"type": "object"}},
    "additionalProperties": False,
}
OPERATION: Document = {
    "type": "object",
    "required": ["responses"],
    "properties": {
        "operationId": TEXT,
        "summary": TEXT,
        "description": TEXT,
        "tags": {"type": "array", "items": TEXT},
        "parameters": {"type": "array", "items": PARAMETER},
        "requestBody": {"type": "object", "required": ["content"], "properties": {"content": MEDIA}},
        "responses": {
            "type": "object",
            "minProperties": 1,
            "patternProperties": {"^[1-5][0-9][0-9]$": RESPONSE},
            "additionalProperties": False,
        },
        "security": {"type": "array", "items": {"type": "object", "additionalProperties": {"type": "array"}}},
    },
    "additionalProperties": False,
}
OPENAPI: Document = {
    "type": "object",
    "required": ["openapi", "info", "paths"],
    "properties": {
        "openapi": {"type": "string", "pattern": r"^3\.1\.\d+$"},
        "info": {"type": "object", "required": ["title", "version"]},
        "paths": {
            "type": "object",
            "patternProperties": {
                "^/": {
                    "type": "object",
                    "propertyNames": {"enum": ["get", "put", "post", "delete", "patch"]},
                    "additionalProperties": OPERATION,
                }
            },
            "additionalProperties": False,
        },
        "components": {
            "type": "object",
            "propertyNames": {"enum": ["schemas", "securitySchemes", "headers", "examples"]},
        },
    },
    "additionalProperties": False,
}


def each_operation(argument: str = "name") -> pytest.MarkDecorator:
    return pytest.mark.parametrize(argument, sorted(OPERATIONS))


def examples_in(content: Document) -> Iterator[tuple[str, Document, Any]]:
    """Media type, schema and value of each example, wherever it stands."""
    for media_type, media in content.items():
        for name, example in media.get("examples", {}).items():
            told = DOCUMENT["components"]["examples"][name] if "$ref" in example else example
            yield media_type, media["schema"], told["value"]


def errors_of(operation: Document) -> Iterator[tuple[int, Document]]:
    yield from ((int(status), response) for status, response in operation["responses"].items() if status >= "400")


def fits(value: object, schema: Document) -> None:
    jsonschema.validate(value, {**schema, "components": DOCUMENT["components"]})


def test_the_document_is_openapi_3_1() -> None:
    jsonschema.validate(DOCUMENT, OPENAPI)


def test_every_schema_is_one() -> None:
    for schema in DOCUMENT["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)


def test_every_reference_leads_somewhere() -> None:
    for reference in set(re.findall(r'"\$ref": "#/([^"]+)"', json.dumps(DOCUMENT))):
        found = DOCUMENT
        for part in reference.split("/"):
            found = found[part]


@each_operation()
def test_the_parameters_of_a_path_are_those_of_its_operation(name: str) -> None:
    path, operation = OPERATIONS[name]

    in_path = [one["name"] for one in operation.get("parameters", []) if one["in"] == "path"]
    assert in_path == re.findall(r"{(\w+)}", path)


def test_an_operation_is_named_after_the_function_that_answers() -> None:
    endpoints = [
        route.endpoint.__name__ for router in routes.ROUTERS for route in router.routes if isinstance(route, APIRoute)
    ]

    assert sorted(OPERATIONS) == sorted(endpoints)


@each_operation()
def test_an_operations_name_begins_with_a_verb(name: str) -> None:
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", name)
    assert name.partition("_")[0] in VERBS


@each_operation()
def test_an_operation_says_what_it_does_and_what_it_takes(name: str) -> None:
    _, operation = OPERATIONS[name]

    wordless = [one["name"] for one in operation.get("parameters", []) if not one.get("description")]
    assert operation["summary"]
    assert not wordless, "describe the field in schemas"


@each_operation()
def test_every_field_of_a_body_is_described(name: str) -> None:
    _, operation = OPERATIONS[name]

    for media in operation.get("requestBody", {}).get("content", {}).values():
        fields: Document = media["schema"].get("properties", {})
        assert not [field for field, schema in fields.items() if not schema.get("description")]


@each_operation()
def test_an_operation_shows_what_it_answers(name: str) -> None:
    _, operation = OPERATIONS[name]
    successes = [response for status, response in operation["responses"].items() if status < "300"]

    shown = [example for response in successes for example in examples_in(response.get("content", {}))]
    assert shown or set(operation["responses"]) & {str(NO_CONTENT)}, REMEDY.format(name)
    for media_type, schema, value in shown:
        if media_type == "application/json":
            fits(value, schema)


@each_operation()
def test_a_body_of_each_kind_is_shown(name: str) -> None:
    _, operation = OPERATIONS[name]
    content: Document = operation.get("requestBody", {}).get("content", {})

    shown = list(examples_in(content))
    assert {media_type for media_type, _, _ in shown} == set(content), REMEDY.format(name)
    for _, schema, value in shown:
        fits(value, schema)


@each_operation()
def test_every_error_is_shown_as_a_problem(name: str) -> None:
    _, operation = OPERATIONS[name]

    for status, response in errors_of(operation):
        shown = list(examples_in(response["content"]))
        assert {media_type for media_type, _, _ in shown} == {MEDIA_TYPE}
        for _, schema, value in shown:
            fits(value, schema)
            assert value["status"] == status


@each_operation()
def test_what_can_ask_for_a_key_says_where_it_goes(name: str) -> None:
    _, operation = OPERATIONS[name]
    schemes: Document = DOCUMENT["components"]["securitySchemes"]

    asked = [scheme for choice in operation.get("security", []) for scheme in choice]
    assert asked == (["bearer", "api_key"] if "401" in operation["responses"] else [])
    assert set(asked) <= set(schemes)


@each_operation()
def test_whatever_is_under_the_gate_can_answer_its_errors(name: str) -> None:
    path, operation = OPERATIONS[name]

    guarded = path.startswith(("/api/", "/status/"))
    assert ({"401", "429"} <= set(operation["responses"])) == guarded


def test_every_error_that_a_client_can_see_is_explained() -> None:
    def below(kind: type[InsightsError]) -> Iterator[type[InsightsError]]:
        yield kind
        for heir in kind.__subclasses__():
            if heir is not GrokError:
                yield from below(heir)

    assert {type(known.error) for known in KNOWN_ERRORS} == set(below(InsightsError))
    assert len({known.error.code for known in KNOWN_ERRORS}) == len(KNOWN_ERRORS)


@pytest.mark.parametrize("known", KNOWN_ERRORS, ids=lambda known: known.error.code)
def test_an_example_of_an_error_is_what_the_service_would_answer(known: Any) -> None:
    problem, headers = to_problem(known.error)

    example = DOCUMENT["components"]["examples"][known.error.code]
    assert example["value"] == {**problem, "request_id": example["value"]["request_id"]}
    assert ("Retry-After" in headers) == ("retry_after" in example["value"])


@pytest.mark.parametrize(("code", "title"), [("body_too_large", "Content Too Large"), ("not_found", "Not Found")])
def test_a_status_has_the_title_of_the_standard_on_every_python(code: str, title: str) -> None:
    assert DOCUMENT["components"]["examples"][code]["value"]["title"] == title


@pytest.mark.parametrize(
    ("method", "path", "found"),
    [
        pytest.param("POST", "/api/v1/conversations", "post_conversation", id="by its method"),
        pytest.param("GET", "/api/v1/conversations/conv_1", "get_conversation", id="with a parameter"),
        pytest.param("POST", "/api/v1/conversations/retry", "retry_failed", id="written out, before a parameter"),
        pytest.param("GET", "/api/v1/conversations/conv_1/more", None, id="a parameter is one part"),
        pytest.param("PUT", "/api/v1/conversations", None, id="no such method"),
    ],
)
def test_an_operation_is_found_by_its_request(method: str, path: str, found: str | None) -> None:
    assert find_operation(DOCUMENT, method, path) == found

"""The API's page in Markdown: made from the OpenAPI document, and from sessions that were run."""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from docs.api_sessions import Chapter, Exchange
from routes.error_guide import KNOWN_ERRORS
from routes.openapi import Document, operations_of

_OPENING = "opening"


@dataclass(frozen=True, slots=True)
class Played:
    """A chapter, and what became of each of its commands."""

    chapter: Chapter
    exchanges: tuple[Exchange, ...]

    def told(self) -> str:
        parts: list[str] = []
        for (words, command), exchange in zip(self.chapter.parts, self.exchanges, strict=True):
            parts += [words.strip(), f"```bash\n{command}```", f"```http\n{exchange.shown()}```"]
        return "\n\n".join(part for part in [*parts, self.chapter.rest.strip()] if part)


def make_page(document: Document, played: Sequence[Played]) -> str:
    """The opening, then an endpoint for each chapter, in the chapters' order."""
    operations = {
        operation["operationId"]: (method, path, operation) for method, path, operation in operations_of(document)
    }
    endpoints = [one for one in played if one.chapter.name in operations]
    opening = "\n\n".join(one.told() for one in played if one.chapter.name == _OPENING)
    summaries = [operations[one.chapter.name][2]["summary"] for one in endpoints]
    opening = opening.replace("[[endpoints]]", _contents(summaries)).replace("[[errors]]", _error_codes())
    sections = [_section(document, *operations[one.chapter.name], told=one.told()) for one in endpoints]
    return "\n\n".join([opening, *sections]) + "\n"


def slug_of(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def type_of(document: Document, schema: Document) -> str:
    """What a value may be, in words."""
    if "$ref" in schema:
        return type_of(document, document["components"]["schemas"][schema["$ref"].rpartition("/")[2]])
    if "anyOf" in schema:
        return " or ".join(type_of(document, one) for one in schema["anyOf"] if one.get("type") != "null")
    if "enum" in schema or "const" in schema:
        return " or ".join(f"`{one}`" for one in schema.get("enum", [schema.get("const")]))
    if schema.get("type") == "array":
        items: Document = schema.get("items") or {}
        inner = type_of(document, items) if "properties" not in items else "object"
        return ", ".join([f"list of {inner}", *_bounds(schema, "Items")])
    return ", ".join([str(schema.get("type", "any")), *_bounds(schema, "imum"), *_bounds(schema, "Length")])


def _bounds(schema: Document, kind: str) -> list[str]:
    least, most = schema.get(f"min{kind}"), schema.get(f"max{kind}")
    unit = " characters" if kind == "Length" else ""
    if least is None and most is None:
        return []
    if most is None:
        return [f"at least {least}{unit}"]
    return [f"at most {most:,}{unit}" if least is None else f"{least:,} to {most:,}{unit}"]


def _contents(summaries: Iterable[str]) -> str:
    return "\n".join(f"- [{summary}](#{slug_of(summary)})" for summary in summaries)


def _error_codes() -> str:
    rows = [(f"{one.error.status}", f"`{one.error.code}`", one.when, one.remedy) for one in KNOWN_ERRORS]
    return _table(("status", "code", "when", "what to do"), sorted(rows))


def _section(document: Document, method: str, path: str, operation: Document, *, told: str) -> str:
    parts = [
        f"## {operation['summary']}",
        f"`{method} {path}`, operation `{operation['operationId']}`{_scope(operation)}",
        operation.get("description", ""),
        _parameters(document, operation),
        _body(document, operation),
        _answer(document, operation),
        told,
        _errors(document, operation),
    ]
    return "\n\n".join(part for part in parts if part)


def _scope(operation: Document) -> str:
    named = [scope for choice in operation.get("security", []) for scope in choice.get("bearer", [])]
    return "".join(f", scope `{scope}`" for scope in named)


def _parameters(document: Document, operation: Document) -> str:
    parameters: list[Document] = operation.get("parameters", [])
    rows = [
        (f"`{one['name']}`", one["in"], type_of(document, one["schema"]), _default(one), one.get("description", ""))
        for one in parameters
    ]
    return _table(("parameter", "in", "type", "default", "meaning"), rows)


def _body(document: Document, operation: Document) -> str:
    request: Document = operation.get("requestBody", {})
    content: Document = request.get("content", {})
    kinds = list(content)
    schema: Document = content[kinds[0]].get("schema", {}) if kinds else {}
    required: list[str] = schema.get("required", [])
    fields: Document = schema.get("properties", {})
    rows = [
        (
            f"`{name}`",
            type_of(document, field),
            "required" if name in required else _default({"schema": field}),
            field.get("description", ""),
        )
        for name, field in fields.items()
    ]
    table = _table(("field", "type", "default", "meaning"), rows)
    named = " or ".join(f"`{kind}`" for kind in kinds)
    return f"The body is {named}:\n\n{table}" if rows else ""


def _answer(document: Document, operation: Document) -> str:
    """What the answer's schemas say of themselves, the outer before the inner."""
    schemas: Document = document["components"]["schemas"]
    waiting = [response for status, response in operation["responses"].items() if status < "300"]
    seen: dict[str, str] = {}
    while waiting:
        for name in _named_in(waiting.pop(0)):
            if name not in seen:
                seen[name] = schemas[name].get("description", "")
                waiting.append(schemas[name])
    told = [f"- {name}: {' '.join(said.split())}" for name, said in seen.items() if said]
    return "In the answer:\n\n" + "\n".join(told) if told else ""


def _named_in(schema: Document) -> list[str]:
    return re.findall(r'"#/components/schemas/(\w+)"', json.dumps(schema))


def _errors(document: Document, operation: Document) -> str:
    rows: list[tuple[str, ...]] = []
    for status, response in operation["responses"].items():
        for media in response["content"].values() if status >= "400" else ():
            for code, example in media["examples"].items():
                told = document["components"]["examples"][code] if "$ref" in example else example
                rows.append((status, f"`{code}`", told["summary"], told["description"]))
    return "Errors:\n\n" + _table(("status", "code", "when", "what to do"), rows)


def _default(parameter: Document) -> str:
    if parameter.get("required"):
        return "required"
    default = parameter["schema"].get("default")
    return "none" if default in (None, []) else f"`{default}`"


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    if not rows:
        return ""
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(
        "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in line) + " |" for line in lines
    )

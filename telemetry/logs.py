"""JSON log lines on stderr, each with the request id it belongs to and without keys of anyone."""

import json
import logging
import re
import sys
from collections.abc import MutableMapping
from contextlib import suppress
from contextvars import ContextVar
from typing import Any, BinaryIO, cast

import orjson
import structlog

_KEPT_CHARS = 2000  # enough to see what it was

Logger = structlog.stdlib.BoundLogger

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)

# Ids of teams and keys, and masked keys, as xAI's messages show them (XAI documents none of this: seen in its errors).
_SECRETS = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|\bxai?-?[\w-]*\*{2,}\w*|\bxai-[\w-]{8,}|\bteam-\d+",
    re.IGNORECASE,
)

_QUOTED = re.compile(r"^(xAI answered \d{3}):.*", re.DOTALL)  # as `xai.classify` says it


def configure_logging(level: str, *, environment: str) -> None:
    """Send structlog and the standard library's loggers to stderr, one JSON object a line; call once, from `main`."""
    logging.basicConfig(level=level, format="%(message)s", stream=sys.stderr, force=True)
    formatter = structlog.stdlib.ProcessorFormatter(
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, _render_json],
        foreign_pre_chain=[
            *_shared_processors(environment),
            structlog.stdlib.add_logger_name,
            structlog.processors.format_exc_info,
        ],
    )
    logging.getLogger().handlers[0].setFormatter(formatter)
    for noisy in ("httpx2", "httpcore2", "alembic", "uvicorn.access"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    structlog.configure(
        processors=[*_shared_processors(environment), structlog.processors.format_exc_info, _render_json_bytes],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level]),
        logger_factory=structlog.BytesLoggerFactory(cast("BinaryIO", _Lasting(sys.stderr.buffer))),
        cache_logger_on_first_use=True,
    )


class _Lasting:
    """A stream whose lines are lost, and nothing else, while its disk is full or its pipe closed."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def write(self, line: bytes) -> None:
        with suppress(OSError):
            self._stream.write(line)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()


def get_logger() -> Logger:
    logger: Logger = structlog.get_logger()
    return logger


def redact(text: str) -> str:
    """`text` without key and team ids; apply to whatever xAI said before it is logged or stored."""
    return _SECRETS.sub("[redacted]", text)


def unquoted(reason: str) -> str:
    """`reason` as far as the log may have it: xAI's own words may repeat a text that it was asked about."""
    return _QUOTED.sub(r"\1", reason)


def excerpt(text: str) -> str:
    """The beginning of what xAI said, as it is kept: redacted first, for half an id would not be known for one."""
    return redact(text[: 2 * _KEPT_CHARS])[:_KEPT_CHARS]


def _shared_processors(environment: str) -> list[structlog.typing.Processor]:
    def add_context(_logger: Any, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        event["environment"] = environment
        if (current := request_id.get()) is not None:
            event.setdefault("request_id", current)
        return event

    return [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        add_context,
    ]


def _render_json(_logger: Any, _name: str, event: MutableMapping[str, Any]) -> str:
    return _render_json_bytes(_logger, _name, event).decode()


def _render_json_bytes(_logger: Any, _name: str, event: MutableMapping[str, Any]) -> bytes:
    try:
        return orjson.dumps(dict(event), default=repr, option=orjson.OPT_NON_STR_KEYS | orjson.OPT_UTC_Z)
    except orjson.JSONEncodeError:  # a lone surrogate, a value that holds itself; a log line must never raise
        plain = {str(key): value if isinstance(value, str | int) else repr(value) for key, value in event.items()}
        return json.dumps(plain).encode()

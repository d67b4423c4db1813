"""Clients that go away at bad moments, over plain sockets, and what a process holds while they do."""

import json
import socket
from pathlib import Path
from typing import NamedTuple

from tests.harness import Json, Service

ONE, BULK = "/api/v1/conversations", "/api/v1/conversations/bulk"


def request(method: str, path: str, body: object = None, *headers: str) -> bytes:
    """A whole request, as bytes."""
    content = b"" if body is None else json.dumps(body).encode()
    lines = [f"{method} {path} HTTP/1.1", "Host: x", *headers]
    if body is not None:
        lines += ["Content-Type: application/json", f"Content-Length: {len(content)}"]
    return "\r\n".join([*lines, "", ""]).encode() + content


def connect(service: Service) -> socket.socket:
    return socket.create_connection(("127.0.0.1", service.port), timeout=30)


def exchange(service: Service, sent: bytes) -> Json:
    """The answer's body, on a connection of its own."""
    with connect(service) as connection:
        connection.sendall(sent.replace(b"Host: x", b"Host: x\r\nConnection: close", 1))
        answer = b"".join(iter(lambda: connection.recv(65_536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    told: Json = json.loads(body)
    return {**told, "http_status": int(head.split()[1])}


class Held(NamedTuple):
    """What a process holds of what it must give back."""

    sockets: int
    descriptors: int
    threads: int
    memory_mb: float


def held_by(service: Service) -> Held:
    assert service.process is not None
    process = Path(f"/proc/{service.process.pid}")
    status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines() if ":" in line)
    files = [_target_of(one) for one in (process / "fd").iterdir()]
    sockets = sum(file.startswith("socket:") for file in files)
    return Held(sockets, len(files), int(status["Threads"]), int(status["VmRSS"].split()[0]) / 1024)


def _target_of(descriptor: Path) -> str:
    try:
        return str(descriptor.readlink())
    except FileNotFoundError:  # closed meanwhile
        return ""

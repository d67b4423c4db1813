import contextlib
import csv
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from ingest_data import ExitCode, Options, run

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parent.parent
TWCS_HEADER = "tweet_id,author_id,inbound,created_at,text,response_tweet_id,in_response_to_tweet_id\r\n"
MOMENT = "Tue Oct 31 22:10:4{} +0000 2017"


@dataclass
class FakeService:
    """The bulk endpoint in memory: keeps what it is sent once, and plays the faults it is told to."""

    stored: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    sizes: list[int] = field(default_factory=list[int])
    keys: list[str | None] = field(default_factory=list[str | None])
    faults: list[str] = field(default_factory=list[str])
    moments: list[float] = field(default_factory=list[float])
    delay_s: float = 0.0
    names_each_result: bool = True
    lock: threading.Lock = field(default_factory=threading.Lock)
    url: str = ""

    def answer(self, body: bytes) -> tuple[int, dict[str, Any]]:
        items: list[dict[str, Any]] = json.loads(body)["conversations"]
        self.sizes.append(len(items))
        results = [self._take(index, item) for index, item in enumerate(items)]
        statuses = [result["status"] for result in results]
        if statuses.count("invalid") == len(items):
            problem: dict[str, Any] = {"error": "invalid_schema", "details": "no item is valid"}
            return 400, problem | ({"results": results} if self.names_each_result else {})
        counts = {"accepted": statuses.count("accepted"), "duplicates": statuses.count("duplicate")}
        return 202, {"status": "accepted", **counts, "rejected": statuses.count("invalid"), "results": results}

    def _take(self, index: int, item: dict[str, Any]) -> dict[str, Any]:
        kept = self.stored.get(item["external_id"])
        if kept is not None and kept != item:
            return {
                "index": index,
                "status": "invalid",
                "error": "conflict",
                "details": "external_id has other content",
            }
        if "unwanted" in item["text"]:
            return {"index": index, "status": "invalid", "details": "the service does not want this"}
        self.stored[item["external_id"]] = item
        return {"index": index, "status": "duplicate" if kept else "accepted"}


def create_handler(service: FakeService) -> type[BaseHTTPRequestHandler]:
    def play(body: bytes, fault: str) -> tuple[int, dict[str, Any]]:
        if fault == "lost request":
            return 0, {}
        return (int(fault), {"error": "told", "details": "told to"}) if fault.isdigit() else service.answer(body)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            time.sleep(service.delay_s)
            with service.lock:
                service.moments.append(time.monotonic())
                service.keys.append(self.headers.get("X-API-Key"))
                fault = service.faults.pop(0) if service.faults else ""
                status, answer = play(body, fault)
            if fault.startswith("lost"):
                self.close_connection = True
                return
            content = json.dumps(answer).encode()
            with contextlib.suppress(ConnectionError):
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                if status in {429, 503, 507}:
                    self.send_header("Retry-After", "1")
                self.end_headers()
                self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None: ...  # noqa: A002 - the base class's name

    return Handler


@pytest.fixture
def service() -> Iterator[FakeService]:
    fake = FakeService()
    server = ThreadingHTTPServer(("127.0.0.1", 0), create_handler(fake))
    fake.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield fake
    server.shutdown()
    thread.join()
    server.server_close()


def write_twcs(path: Path, count: int, *, start: int = 1) -> Path:
    rows = [
        f"{number},{900_000 + number},True,{MOMENT.format(number % 10)},"
        f'"My order no. {number} is late,\nplease help",,\r\n'
        for number in range(start, start + count)
    ]
    path.write_text(TWCS_HEADER + "".join(rows), encoding="utf-8", newline="")
    return path


def load(service: FakeService, *files: Path, **options: Any) -> ExitCode:
    return run(Options(files=[str(path) for path in files], api_url=service.url, **options))


def rejected_rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.with_name(path.name + ".rejected.csv").read_text().splitlines()))


def start_command(service_url: str, *arguments: str, folder: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(ROOT / "ingest_data.py"), *arguments, "--api-url", service_url]
    return subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.PIPE
    )


def test_a_file_arrives_whole_and_under_its_own_ids(service: FakeService, tmp_path: Path) -> None:
    path = write_twcs(tmp_path / "any_name.csv", 1_203)

    code = load(service, path)

    assert (code, len(service.stored), max(service.sizes)) == (ExitCode.OK, 1_203, 500)
    assert service.stored["twcs:7"] == {
        "text": "My order no. 7 is late,\nplease help",
        "author": "900007",
        "timestamp": "2017-10-31T22:10:47+00:00",
        "raw_data": {"inbound": "True"},
        "external_id": "twcs:7",
    }


def test_loading_again_stores_nothing_twice(
    service: FakeService, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_twcs(tmp_path / "twcs.csv", 40)
    load(service, path)
    capsys.readouterr()

    code = load(service, path)

    assert (code, len(service.stored)) == (ExitCode.OK, 40)
    assert "40" in capsys.readouterr().out.split("duplicates")[1]


def test_rows_that_another_file_has_otherwise_are_kept_as_versions(
    service: FakeService, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = write_twcs(tmp_path / "first.csv", 20)
    second = tmp_path / "second.csv"
    second.write_text(first.read_text(encoding="utf-8").replace(",True,", ",TRUE,"), encoding="utf-8", newline="")
    load(service, first)

    codes = [load(service, second) for _ in range(2)]

    assert (codes, len(service.stored)) == ([ExitCode.OK] * 2, 40)
    assert capsys.readouterr().out.count("20 rows have an id stored before") == 1


def test_equal_ids_of_unlike_files_do_not_meet(service: FakeService, tmp_path: Path) -> None:
    tickets = tmp_path / "tickets.csv"
    tickets.write_text("ticket_id,message\n1,The lamp broke on day one\n2,Where is my invoice please\n")

    load(service, write_twcs(tmp_path / "twcs.csv", 2), tickets)

    assert len(service.stored) == 4
    assert sorted(name.partition(":")[2] for name in service.stored) == ["1", "1", "2", "2"]


def test_bad_rows_are_written_down_with_line_and_reason(service: FakeService, tmp_path: Path) -> None:
    path = tmp_path / "feedback.csv"
    long = "x" * 1_000_000
    path.write_text(f"id,text\n1,The door sticks\n2,\n3,{long}\n4,=unwanted thing\n5,It works now\n")

    code = load(service, path)

    assert code is ExitCode.ROWS_REJECTED
    assert [(row["line"], row["reason"][:30], row["text"][:12]) for row in rejected_rows(path)] == [
        ("3", "the text is empty", "2"),
        ("4", "the text has more than 10000 c", "xxxxxxxxxxxx"),
        ("5", "the service does not want this", "'=unwanted t"),
    ]


@pytest.mark.parametrize("names_each_result", [True, False], ids=["with results", "without results"])
def test_a_batch_of_only_invalid_items_is_rejected_row_by_row(
    service: FakeService, tmp_path: Path, *, names_each_result: bool
) -> None:
    service.names_each_result = names_each_result
    path = tmp_path / "feedback.csv"
    path.write_text("id,text\n1,unwanted one\n2,unwanted two\n3,unwanted three\n")

    code = load(service, path)

    assert code is ExitCode.ROWS_REJECTED
    assert [row["line"] for row in rejected_rows(path)] == ["2", "3", "4"]


@pytest.mark.parametrize("status", ["429", "503", "507"])
def test_the_service_s_wait_is_obeyed_by_every_request(service: FakeService, tmp_path: Path, status: str) -> None:
    service.faults = [status]
    path = write_twcs(tmp_path / "twcs.csv", 30)

    code = load(service, path, batch_size=10, concurrency=1)

    assert (code, len(service.stored)) == (ExitCode.OK, 30)
    assert service.moments[1] - service.moments[0] >= 1.0


@pytest.mark.parametrize("fault", ["lost request", "lost answer", "500", "502"])
def test_a_fault_on_the_way_loses_and_doubles_nothing(service: FakeService, tmp_path: Path, fault: str) -> None:
    service.faults = ["", fault, fault, "", fault]
    path = write_twcs(tmp_path / "twcs.csv", 90)

    code = load(service, path, batch_size=10)

    assert (code, len(service.stored)) == (ExitCode.OK, 90)


def test_a_server_that_is_not_there_is_exit_4(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_twcs(tmp_path / "twcs.csv", 3)

    code = run(Options(files=[str(path)], api_url="http://127.0.0.1:9", max_wait=0.3))

    assert code is ExitCode.UNREACHABLE
    assert "http://127.0.0.1:9 is not reachable" in capsys.readouterr().err


@pytest.mark.parametrize("status", ["401", "403", "404", "405"])
def test_a_refusal_that_no_retry_cures_ends_the_load(service: FakeService, tmp_path: Path, status: str) -> None:
    service.faults = [status] * 3

    code = load(service, write_twcs(tmp_path / "twcs.csv", 3))

    assert (code, len(service.moments)) == (ExitCode.FAILURE, 1)


def test_the_key_travels_as_a_header(service: FakeService, tmp_path: Path) -> None:
    load(service, write_twcs(tmp_path / "twcs.csv", 3), api_key="a-key-of-our-own")

    assert service.keys == ["a-key-of-our-own"]


def test_the_sample_is_ten_conversations_and_sent_once(service: FakeService) -> None:
    first = run(Options(sample=True, api_url=service.url))
    again = run(Options(sample=True, api_url=service.url))

    assert (first, again, len(service.stored)) == (ExitCode.OK, ExitCode.OK, 10)


def test_a_dry_run_shows_the_mapping_and_contacts_nobody(
    service: FakeService, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = load(service, write_twcs(tmp_path / "twcs.csv", 9), dry_run=True)

    shown = capsys.readouterr().out
    assert (code, service.moments) == (ExitCode.OK, [])
    assert "text <- text, author <- author_id" in shown
    assert "9 rows: 9 to send, 0 rejected" in shown
    assert shown.count('{"text":') == 3


@pytest.mark.parametrize(
    ("content", "said"),
    [
        pytest.param("<!DOCTYPE html><html></html>", "HTML page", id="a saved page"),
        pytest.param("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "git-LFS", id="a pointer"),
        pytest.param("a,b\n1,2\n3,4\n", "no column holds text", id="numbers only"),
    ],
)
def test_what_is_no_table_of_texts_is_refused_by_name(
    service: FakeService, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, said: str
) -> None:
    path = tmp_path / "Tweets.csv"
    path.write_text(content)

    code = load(service, path)

    assert (code, service.moments) == (ExitCode.FAILURE, [])
    assert said in capsys.readouterr().err.replace("\n", " ")


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, id="no file"),
        pytest.param({"files": ["x.csv"], "columns": "body=text"}, id="an unknown role"),
        pytest.param({"files": ["x.csv"], "columns": "text=nowhere"}, id="an unknown column"),
        pytest.param({"files": ["x.csv"], "threads": True}, id="threads without parents"),
        pytest.param({"files": ["x.csv"], "inbound_only": True}, id="inbound without that column"),
    ],
)
def test_options_that_cannot_be_followed_are_exit_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("x.csv").write_text("id,text\n1,The door sticks a lot\n2,The window too\n")

    assert run(Options(api_url="http://127.0.0.1:9", **options)) is ExitCode.USAGE


def test_the_rejected_rows_of_an_earlier_load_are_not_loaded(service: FakeService, tmp_path: Path) -> None:
    path = tmp_path / "twcs.csv.rejected.csv"
    path.write_text("line,reason,text\n2,the text is empty,something quite long\n")

    assert (load(service, path), service.stored) == (ExitCode.OK, {})


def test_stdin_is_a_file(service: FakeService, tmp_path: Path) -> None:
    content = write_twcs(tmp_path / "twcs.csv", 5).read_bytes()

    with start_command(service.url, "-", folder=tmp_path) as command:
        shown, _ = command.communicate(content, timeout=20)

    assert (command.returncode, len(service.stored)) == (0, 5)
    assert b"stdin" in shown


def test_a_drawn_sample_of_threads_is_the_same_every_time(service: FakeService, tmp_path: Path) -> None:
    path = write_twcs(tmp_path / "twcs.csv", 300)
    load(service, path, sample_rows=20, threads=True)
    first = set(service.stored)

    load(service, path, sample_rows=20, threads=True)

    assert set(service.stored) == first
    assert len(first) == 20


def test_inbound_only_leaves_the_brand_out(service: FakeService, tmp_path: Path) -> None:
    path = tmp_path / "twcs.csv"
    path.write_text(
        TWCS_HEADER
        + f"1,777,True,{MOMENT.format(1)},My train never came,2,\n"
        + f"2,RailHelp,False,{MOMENT.format(2)},Sorry to hear that,,1.0\n"
    )

    load(service, path, inbound_only=True)

    assert list(service.stored) == ["twcs:1"]


def test_a_killed_load_goes_on_where_it_was(service: FakeService, tmp_path: Path) -> None:
    path = write_twcs(tmp_path / "twcs.csv", 3_000)
    service.delay_s = 0.02
    for _ in range(3):
        command = start_command(service.url, str(path), "--batch-size", "20", folder=tmp_path)
        before = len(service.moments)
        while len(service.moments) < before + 30 and command.poll() is None:
            time.sleep(0.005)
        time.sleep(0.2)
        command.kill()
        command.communicate()
    sent_count = sum(service.sizes)
    service.delay_s = 0.0

    code = load(service, path)

    assert (code, len(service.stored)) == (ExitCode.OK, 3_000)
    assert sum(service.sizes) - sent_count < 3_000
    assert not list(tmp_path.glob("*.progress*"))


def test_an_interrupted_load_says_how_to_go_on(service: FakeService, tmp_path: Path) -> None:
    path = write_twcs(tmp_path / "twcs.csv", 3_000)
    service.delay_s = 0.05
    command = start_command(service.url, str(path), "--batch-size", "10", folder=tmp_path)
    while len(service.moments) < 10 and command.poll() is None:
        time.sleep(0.01)

    os.kill(command.pid, signal.SIGINT)
    shown, _ = command.communicate(timeout=20)

    assert command.returncode == ExitCode.INTERRUPTED
    assert b"goes on from here" in shown
    assert (tmp_path / "twcs.csv.progress").exists()


def test_a_changed_file_is_loaded_from_its_start(service: FakeService, tmp_path: Path) -> None:
    path = write_twcs(tmp_path / "twcs.csv", 50)
    service.faults = ["", "401"]
    load(service, path, batch_size=10, concurrency=1)
    write_twcs(path, 60, start=1_000)

    code = load(service, path)

    assert code is ExitCode.OK
    assert {f"twcs:{number}" for number in range(1_000, 1_060)} <= set(service.stored)


def test_the_command_line_has_help_and_refuses_what_it_does_not_know(tmp_path: Path) -> None:
    with start_command("http://127.0.0.1:9", "--help", folder=tmp_path) as helped:
        shown, _ = helped.communicate(timeout=20)
    with start_command("http://127.0.0.1:9", "--nonsense", folder=tmp_path) as refused:
        refused.communicate(timeout=20)

    assert (helped.returncode, refused.returncode) == (0, ExitCode.USAGE)
    assert b"--inbound-only" in shown

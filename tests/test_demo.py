"""The demo, `test_api.sh`, and what is around them, run as a user runs them."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import yaml

from demo import find_spike

ROOT = Path(__file__).parent.parent
HOST = "127.0.0.1"
needs_ps = pytest.mark.skipif(shutil.which("ps") is None, reason="looks for processes with ps")
MONDAY = datetime(2026, 1, 5, tzinfo=UTC)
LOGIN = "my account is locked and I cannot log in since this morning, this is a disgrace"


def hours(*counts: int) -> list[datetime]:
    """So many moments in each hour of a Monday."""
    return [MONDAY + timedelta(hours=hour, minutes=30) for hour, number in enumerate(counts) for _ in range(number)]


@pytest.mark.unit
@pytest.mark.parametrize(
    ("counts", "first_hour", "end_hour"),
    [
        pytest.param([1, 1, 20, 1], 2, 3, id="one hour"),
        pytest.param([1, 1, 8, 20, 8, 1], 2, 5, id="its neighbours with a third of it belong to it"),
    ],
)
def test_a_spike_reaches_from_the_busiest_hour_to_both_sides(counts: list[int], first_hour: int, end_hour: int) -> None:
    assert find_spike(hours(*counts)) == (MONDAY + timedelta(hours=first_hour), MONDAY + timedelta(hours=end_hour))


@pytest.mark.unit
@pytest.mark.parametrize(
    "counts", [[], [1, 1, 4], [5, 4, 5, 6], [0, 30]], ids=["nothing", "too few", "all alike", "only one"]
)
def test_what_does_not_stand_out_is_no_spike(counts: list[int]) -> None:
    assert find_spike(hours(*counts)) is None


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project in a folder of its own: the demo of whoever runs the tests is left alone."""
    folder = tmp_path_factory.mktemp("checkouts") / "checkout"
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(".*", "__pycache__", "tests", "*.db*"))
    return folder


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        port: int = listener.getsockname()[1]
        return port


def environment(**settings: str) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "PORT": str(free_port()), **settings}


def run_demo(checkout: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(checkout / "demo.py")]
    return subprocess.run(
        command, env=environment(**settings), capture_output=True, text=True, timeout=120, check=False
    )


@contextmanager
def serving_demo(checkout: Path, **settings: str) -> Generator[tuple[subprocess.Popen[str], list[str]], None, None]:
    """The demo and what it printed until it serves; killed at the end if it is still there."""
    process = subprocess.Popen(
        [sys.executable, str(checkout / "demo.py")],
        env=environment(**settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    printed: list[str] = []
    try:
        for line in process.stdout:
            printed.append(line)
            if line.startswith("Serving"):
                break
        yield process, printed
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(30)
        process.stdout.close()


def service_pids(checkout: Path) -> list[int]:
    """The services that run from this checkout, by their command lines."""
    listed = subprocess.run(["ps", "-eww", "-o", "pid,args"], capture_output=True, text=True, check=True)
    return [int(line.split()[0]) for line in listed.stdout.splitlines() if str(checkout / "main.py") in line]


@pytest.mark.integration
@pytest.mark.slow
def test_a_second_run_loads_nothing_new_and_shows_the_same(checkout: Path) -> None:
    first, second = run_demo(checkout, DEMO_EXIT="1"), run_demo(checkout, DEMO_EXIT="1")

    assert (first.returncode, second.returncode) == (0, 0), first.stdout + first.stderr + second.stdout + second.stderr
    counts = [re.findall(r"311 +│ +(\d+) +│ +(\d+) ", run.stdout)[0] for run in (first, second)]
    assert counts[0] == (counts[1][1], "0")
    assert counts[1][0] == "0"
    shown = [
        run.stdout[run.stdout.index("Answer these first") : run.stdout.index("All endpoints")]
        for run in (first, second)
    ]
    assert shown[0] == shown[1]


@pytest.mark.integration
@pytest.mark.slow
def test_it_shows_whom_to_answer_the_topics_the_spike_and_where_to_go_on(checkout: Path) -> None:
    shown = run_demo(checkout, DEMO_EXIT="1").stdout

    for part in ("Answer these first", "How customers feel", "account_access", "The spike: ", "/docs", "curl 'http"):
        assert part in shown
    assert "\x1b" not in shown


@pytest.mark.integration
@pytest.mark.slow
def test_a_sample_of_yesterday_is_moved_to_now_again_with_a_new_database(checkout: Path) -> None:
    run_demo(checkout, DEMO_EXIT="1")
    sample = checkout / ".demo" / "sample" / "conversations.csv"
    old = time.time() - 25 * 3600
    os.utime(sample, (old, old))

    again = run_demo(checkout, DEMO_EXIT="1")

    assert again.returncode == 0, again.stdout + again.stderr
    assert re.search(r"311 +│ +[1-9]\d* +│ +0 ", again.stdout)


@pytest.mark.integration
@pytest.mark.slow
def test_a_file_of_the_users_own_is_loaded_as_it_is(checkout: Path, tmp_path: Path) -> None:
    csv = tmp_path / "mine.csv"
    csv.write_text(f"text,author\n{LOGIN},ann\n\x1b[31mthank you so much you are great,bob\n", encoding="utf-8")

    loaded = run_demo(checkout, DEMO_EXIT="1", CSV=str(csv))

    assert loaded.returncode == 0, loaded.stdout + loaded.stderr
    assert "Analyzed: 2 insights" in loaded.stdout
    assert "\x1b" not in loaded.stdout


@pytest.mark.integration
@pytest.mark.parametrize(
    ("content", "status", "sentence"),
    [
        pytest.param(None, 2, "is not a file", id="no such file"),
        pytest.param("text\nhttps://example.org/a\n", 1, "0 insights, 1 skipped", id="nothing to analyze in it"),
    ],
)
def test_without_an_insight_it_ends_with_a_status_and_a_sentence(
    checkout: Path, tmp_path: Path, content: str | None, status: int, sentence: str
) -> None:
    csv = tmp_path / "mine.csv"
    if content is not None:
        csv.write_text(content, encoding="utf-8")

    ended = run_demo(checkout, DEMO_EXIT="1", CSV=str(csv))

    assert (ended.returncode, sentence in ended.stdout) == (status, True), ended.stdout + ended.stderr


@pytest.mark.integration
@pytest.mark.slow
@needs_ps
def test_ctrl_c_ends_the_demo_and_its_service_without_a_traceback(checkout: Path) -> None:
    with serving_demo(checkout) as (process, printed):
        assert len(service_pids(checkout)) == 1
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=30)

    assert process.returncode == 0, "".join(printed) + rest
    assert "Traceback" not in "".join(printed) + rest
    assert service_pids(checkout) == []


@pytest.mark.integration
@pytest.mark.slow
def test_a_taken_port_is_named_and_another_one_used(checkout: Path) -> None:
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]

        with serving_demo(checkout, PORT=str(port)) as (_, printed):
            shown = "".join(printed)
            url = re.findall(r"browser: (http://\S+)", shown)[0]
            with urllib.request.urlopen(url, timeout=10) as docs:
                assert docs.status == 200

    assert f"Port {port} is taken" in shown


@pytest.mark.integration
@pytest.mark.slow
@needs_ps
def test_a_service_that_dies_ends_the_demo_with_its_log(checkout: Path) -> None:
    with serving_demo(checkout) as (process, _):
        for pid in service_pids(checkout):
            os.kill(pid, signal.SIGKILL)
        rest, _ = process.communicate(timeout=30)

    assert process.returncode == 1
    assert "The service ended with status -9" in rest
    assert '"event":' in rest


@pytest.mark.integration
@pytest.mark.slow
def test_a_second_demo_beside_the_first_is_refused(checkout: Path) -> None:
    with serving_demo(checkout):
        second = run_demo(checkout, DEMO_EXIT="1")

    assert second.returncode == 1
    assert "already" in second.stdout


@pytest.fixture
def service_url(tmp_path: Path) -> Iterator[str]:
    """A fresh service of the project's, as `make run` starts it."""
    settings = environment(GROK_MODE="mock", DATABASE_URL=f"sqlite:///{tmp_path}/api.db", LOG_LEVEL="WARNING")
    settings["TOPICS_FILE"] = str(ROOT / "topics.yaml")
    process = subprocess.Popen([sys.executable, str(ROOT / "main.py")], cwd=tmp_path, env=settings)
    url = f"http://{HOST}:{settings['PORT']}"
    try:
        _await_ready(f"{url}/ready", process)
        yield url
    finally:
        process.terminate()
        process.wait(30)


def _await_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(300):
        assert process.poll() is None, "the service ended"
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.1)
    raise AssertionError("the service did not become ready")


def run_walk(url: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(ROOT / "test_api.sh"), url], env=environment(), capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.integration
@pytest.mark.slow
def test_the_walk_through_the_api_finds_every_answer_right(service_url: str) -> None:
    walk = run_walk(service_url)

    assert walk.returncode == 0, walk.stdout + walk.stderr
    assert "answers are as they should be." in walk.stdout


class AnswersWrongly(BaseHTTPRequestHandler):
    """Healthy by status alone."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name in the standard library
        pass


@pytest.mark.integration
def test_the_walk_ends_at_the_first_wrong_answer() -> None:
    with ThreadingHTTPServer((HOST, 0), AnswersWrongly) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        walk = run_walk(f"http://{HOST}:{server.server_port}")
        server.shutdown()

    assert walk.returncode == 1
    assert walk.stdout.splitlines()[1].startswith("FAIL  GET /health")


@pytest.mark.integration
def test_the_walk_says_when_nobody_answers() -> None:
    walk = run_walk(f"http://{HOST}:{free_port()}")

    assert (walk.returncode, "start the service" in walk.stdout) == (4, True)


@pytest.mark.unit
def test_every_container_has_its_limits_and_may_write_only_where_it_must() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]

    for name in ("api", "api-postgres"):
        service = services[name]
        limits = service["deploy"]["resources"]
        assert (limits["limits"], limits["reservations"]) == ({"cpus": "2", "memory": "1G"}, {"memory": "512M"})
        assert (service["read_only"], service["cap_drop"], service["tmpfs"]) == (True, ["ALL"], ["/tmp"])
        assert service["security_opt"] == ["no-new-privileges:true"]


@pytest.mark.unit
def test_every_package_of_the_service_reaches_the_image() -> None:
    packages = {init.parent.name for init in ROOT.glob("*/__init__.py")} - {"tests", "benchmarks"}

    assert packages <= {line[1:] for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()}


@pytest.mark.unit
def test_every_target_of_the_makefile_is_in_its_help() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = re.findall(r"[a-z-]+", re.findall(r"^\.PHONY: ((?:.*\\\n)*.*)", makefile, re.MULTILINE)[0])

    listed = subprocess.run(["make", "-C", str(ROOT), "help"], capture_output=True, text=True, check=True).stdout

    assert sorted(re.findall(r"^  ([a-z-]+) ", listed, re.MULTILINE)) == sorted(phony)

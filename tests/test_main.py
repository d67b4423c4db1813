"""How the process starts, refuses to start, and ends."""

import json
import subprocess
import sys
import threading
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.fake_xai import FakeXaiServer, running_fake_xai
from tests.harness import ROOT, Service, free_port, post_one, running_service, wait_until

pytestmark = pytest.mark.integration

ROUTE = "/api/v1/conversations"


def start(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Start the service where it must refuse, and wait for its end."""
    return subprocess.run(
        [sys.executable, str(ROOT / "main.py")],
        cwd=folder,
        env={"TOPICS_FILE": str(ROOT / "topics.yaml"), "PORT": str(free_port()), **environment},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        pytest.param({"PORT": "99999"}, "PORT", id="a port out of range"),
        pytest.param({"BATCH_SIZE": "0"}, "BATCH_SIZE", id="a batch of nothing"),
        pytest.param({"BATCH_SIZE": "ten"}, "BATCH_SIZE", id="a number in words"),
        pytest.param({"GROK_MODE": "real"}, "GROK_KEY", id="real mode without a key"),
        pytest.param({"GROK_BASE_URL": "http://example.com"}, "GROK_BASE_URL", id="a key sent in the clear"),
        pytest.param({"DATABASE_URL": "mysql://x/y"}, "DATABASE_URL", id="another database"),
        pytest.param({"DATABASE_URL": "sqlite://"}, "DATABASE_URL", id="a database in memory"),
        pytest.param({"MIN_BATCH_SIZE": "50"}, "MIN_BATCH_SIZE", id="a smallest above the start"),
        pytest.param({"API_KEYS": "short"}, "API_KEYS", id="a short key"),
        pytest.param({"TOPICS_FILE": "nowhere.yaml"}, "nowhere.yaml", id="no topics"),
        pytest.param({"PRICES_FILE": "nowhere.yaml"}, "nowhere.yaml", id="no prices"),
        pytest.param({"GROK_PACK_SIZE": "51"}, "GROK_PACK_SIZE", id="packs too large"),
        pytest.param({"GROK_DAILY_BUDGET_USD": "-1"}, "GROK_DAILY_BUDGET_USD", id="a budget below nothing"),
        pytest.param({"CANARY_SHARE": "1.1"}, "CANARY_SHARE", id="more canaries than rows"),
        pytest.param({"FAILPOINTS": "after_lunch:kill"}, "after_lunch", id="a failpoint that is none"),
        pytest.param({"FAILPOINTS": "after_claim:die"}, "after_claim:die", id="an action that is none"),
        pytest.param(
            {"FAILPOINTS": "after_claim:kill", "ENVIRONMENT": "production"}, "ENVIRONMENT", id="faults in production"
        ),
        pytest.param({"TRUSTED_PROXIES": "everybody"}, "everybody", id="a network that is none"),
    ],
)
def test_a_setting_that_cannot_be_used_ends_the_start_with_its_name(
    tmp_path: Path, environment: dict[str, str], named: str
) -> None:
    ended = start(tmp_path, **environment)

    assert ended.returncode == 2
    assert ended.stderr.startswith("The service cannot start:\n")
    assert named in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    "content", [pytest.param(b"no database at all " * 400, id="other content"), pytest.param(None, id="a folder")]
)
def test_a_database_that_cannot_be_used_ends_the_start_with_a_sentence(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "insights.db"
    if content is None:
        file.mkdir()
    else:
        file.write_bytes(content)

    ended = start(tmp_path, DATABASE_URL=f"sqlite:///{file}")

    assert ended.returncode == 3
    assert ended.stderr.startswith("The service cannot start: its database cannot be opened.\n")
    assert "Traceback" not in ended.stderr


def test_an_unknown_name_in_the_env_file_ends_the_start(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("GROK_KEI=xai-secret-4711\n")

    ended = start(tmp_path)

    assert ended.returncode == 2
    assert "GROK_KEI" in ended.stderr
    assert "xai-secret-4711" not in ended.stderr


def test_a_secret_that_is_refused_is_not_printed(tmp_path: Path) -> None:
    ended = start(tmp_path, API_KEYS="secret-4711")

    assert "secret-4711" not in ended.stderr


@pytest.fixture
def xai() -> Generator[FakeXaiServer]:
    with running_fake_xai() as running:
        yield running


def assert_nothing_in_hand(service: Service) -> None:
    assert service.query("SELECT count(*) FROM conversations WHERE status = 'processing'") == [(0,)]


def test_sigterm_at_rest_ends_at_once(tmp_path: Path) -> None:
    with running_service(tmp_path) as service:
        took_s = service.stop()

    assert took_s < 3


def test_what_was_released_is_analyzed_after_the_next_start(tmp_path: Path, xai: FakeXaiServer) -> None:
    xai.hang()
    with running_service(tmp_path, **xai.environment) as service, service.client() as client:
        post_one(client, "late parcel")
        wait_until(lambda: bool(xai.journal.chats))
        service.kill()

    with running_service(tmp_path) as again:
        wait_until(lambda: again.query("SELECT status FROM conversations") == [("completed",)], within_s=3)

    assert again.query("SELECT count(*) FROM insights") == [(1,)]


def test_a_request_under_way_at_sigterm_is_answered(tmp_path: Path) -> None:
    with running_service(tmp_path) as service:
        answers: list[int] = []

        def post() -> None:
            with service.client() as client:
                items = [{"text": f"late parcel {number}"} for number in range(500)]
                answers.append(client.post("/api/v1/conversations/bulk", json={"conversations": items}).status_code)

        posting = threading.Thread(target=post)
        posting.start()
        wait_until(lambda: bool(answers) or service.query("SELECT 1 FROM conversations LIMIT 1") == [(1,)])
        service.stop()
        posting.join()

    assert answers == [202]
    assert_nothing_in_hand(service)


def test_the_log_names_the_route_of_a_request_never_its_path(tmp_path: Path) -> None:
    with running_service(tmp_path, LOG_LEVEL="INFO") as service, service.client() as client:
        client.post(ROUTE, json={"text": "late parcel"})
        client.get(f"{ROUTE}/conv_of_somebody")
        service.stop()  # a line is written after its answer was sent

    lines = [json.loads(line) for line in service.log.read_text().splitlines() if '"event":"request"' in line]
    named = {(line["method"], line["route"]) for line in lines}
    assert {("POST", ROUTE), ("GET", f"{ROUTE}/{{conversation_id}}")} <= named
    assert "conv_of_somebody" not in service.log.read_text()

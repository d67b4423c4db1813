"""Whatever a stranger makes of the API's document is answered as the document says."""

import os
import random
import re
import subprocess
from pathlib import Path

import pytest

from tests.faults.figures import FULL, Figures
from tests.faults.invariants import find_broken
from tests.harness import ROOT, running_service
from tests.nursery import Nursery

pytestmark = [pytest.mark.integration, pytest.mark.slow]

SEED = int(os.environ.get("DOCUMENT_SEED", "0")) or (random.randrange(1, 10**9) if FULL else 1)


@pytest.mark.fault(22)
def test_requests_made_from_the_document_are_answered_as_it_says(
    tmp_path: Path, nursery: Nursery, figures: Figures
) -> None:
    with running_service(tmp_path, nursery, LOG_LEVEL="WARNING") as service:
        command = [
            str(ROOT / ".venv/bin/schemathesis"),
            *("--config-file", str(ROOT / "tests/schemathesis.toml")),
            *("run", f"{service.url}/openapi.json", "--no-color", "--seed", str(SEED)),
            *("--max-examples", str(figures.times(1, 500))),
            *("--exclude-path", "/api/v1/events"),  # it has no end
        ]
        ended = subprocess.run(
            command,
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            check=False,
        )

        print(f"DOCUMENT_SEED={SEED}\n{ended.stdout}{ended.stderr}")  # shown when it fails
        made = re.search(r"(\d+) generated", ended.stdout)
        figures.count(requests=int(made[1]) if made else 0, status_500=ended.stdout.count("Internal Server Error"))
        assert ended.returncode == 0
        assert figures.counts["requests"] > 500
        assert find_broken(service.query, acknowledged=[]) == []
        assert [line for line in service.log_lines() if line["level"] in {"error", "critical"}] == []

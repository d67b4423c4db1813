"""The documents hold: commands run, tables match the code, links lead somewhere, ADRs have their parts."""

import os
import re
import subprocess
from collections.abc import Generator
from pathlib import Path

import pytest
from fastapi.routing import APIRoute

import routes
from settings import Settings
from tests.harness import ROOT, Service, running_service

pytestmark = pytest.mark.integration

README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"```bash\n(.*?)```", README, flags=re.DOTALL)
PAGES = sorted(
    page
    for page in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *ROOT.glob("*/README.md"))
    if page.parent.name != "sessions"  # parts of docs/API.md, whose links are checked there
)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Generator[Service]:
    with running_service(tmp_path_factory.mktemp("docs")) as started:
        yield started


def test_the_readme_has_commands_to_run() -> None:
    assert len(COMMANDS) >= 4


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.split("\n")[0][:60])
def test_every_command_of_the_readme_runs(command: str, service: Service) -> None:
    script = command.replace("http://localhost:8000", service.url)
    environment = {**os.environ, "API_URL": service.url}

    result = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )

    assert result.returncode == 0, result.stderr
    assert '"error"' not in result.stdout


def test_the_readme_names_only_make_targets_that_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"\bmake ([a-z][a-z-]+)", README))

    missing = {target for target in targets if not re.search(rf"^{target}:", makefile, flags=re.MULTILINE)}

    assert targets
    assert not missing


def test_the_readme_lists_every_setting_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `([A-Z][A-Z0-9_]+)`[^|]*\| (\S+)[^|]*\|", README, flags=re.MULTILINE))

    assert rows == {name.upper(): _shown(field.default) for name, field in Settings.model_fields.items()}


def test_the_readme_lists_every_endpoint() -> None:
    listed = set(re.findall(r"^\| `((?:GET|POST|PUT|DELETE) /\S+)`", README, flags=re.MULTILINE))
    served = {
        f"{method} {route.path}"
        for router in routes.ROUTERS
        for route in router.routes
        if isinstance(route, APIRoute)
        for method in route.methods or ()
    }

    assert listed - {"GET /docs"} == served


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))

    broken = [target for target in targets if "://" not in target and not (page.parent / target).exists()]

    assert not broken


@pytest.mark.parametrize("adr", sorted((ROOT / "docs" / "adr").glob("*.md")), ids=lambda adr: adr.stem)
def test_an_adr_has_its_parts(adr: Path) -> None:
    text = adr.read_text(encoding="utf-8")

    parts = ["Status: ", "Date: ", "## Context", "## Decision", "## Consequences", "## Alternatives"]
    assert not [part for part in [*parts, "## What enforces it"] if part not in text]
    assert re.search(r"## Decision\n\*\*[^*]+\*\*", text), "the decision is one quotable sentence"


def _shown(default: object) -> str:
    if default is None or default == ():
        return "none"
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"

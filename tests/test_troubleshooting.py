"""Whoever meets a code finds it in docs/TROUBLESHOOTING.md, with its cause and what to do."""

import ast
import re
from collections.abc import Iterator

import pytest

from errors import InsightsError
from ingest_data import ExitCode
from schemas import SkipReason
from tests.harness import ROOT

pytestmark = pytest.mark.unit

PAGE = (ROOT / "docs" / "TROUBLESHOOTING.md").read_text(encoding="utf-8")
ENTRIES = {
    code: cells[1:]
    for line in PAGE.splitlines()
    if line.startswith("| `") and (cells := [cell.strip() for cell in line.strip("|").split("|")])
    for code in re.findall(r"`([a-z_]+)`", cells[0])
}
ENDS_OF_THE_LOADER = re.findall(
    r"^\| (\d+) \|", PAGE.partition("## The loader ends with")[2].partition("\n## ")[0], re.MULTILINE
)
NOT_OF_THE_SERVICE = {"tests", "benchmarks", "docs"}
ALARMS = {"warning", "error", "exception", "critical", "_warn"}


def alarms() -> Iterator[str]:
    """Every event that is logged as more than for the record, in the module that says so or through `survive`."""
    for file in [*ROOT.glob("*.py"), *ROOT.glob("[a-z]*/**/*.py")]:
        if file.relative_to(ROOT).parts[0] in NOT_OF_THE_SERVICE:
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            match node:
                case ast.Call(func=ast.Attribute(attr=level), args=[ast.Constant(value=str(event)), *_]) if (
                    level in ALARMS
                ):
                    yield event
                case ast.Call(func=ast.Name(id="survive"), args=[_, ast.Constant(value=str(event))]):
                    yield event
                case _:
                    pass


def codes(error: type[InsightsError] = InsightsError) -> Iterator[str]:
    """Of the whole tree: what requests are answered with, what conversations fail with, what closes the lane."""
    yield error.code
    for kind in error.__subclasses__():
        yield from codes(kind)


@pytest.mark.parametrize("code", sorted({*codes(), "poison"}))
def test_every_code_has_its_cause_and_remedy(code: str) -> None:
    cause, remedy = ENTRIES[code][:2]

    assert cause
    assert remedy


@pytest.mark.parametrize("reason", SkipReason)
def test_every_reason_to_skip_is_told(reason: SkipReason) -> None:
    assert f"`{reason}`" in PAGE


def test_every_end_of_the_loader_is_told() -> None:
    assert [int(status) for status in ENDS_OF_THE_LOADER] == sorted(ExitCode)


@pytest.mark.parametrize("event", sorted(set(alarms())))
def test_every_alarm_in_the_log_is_told(event: str) -> None:
    assert f"`{event}`" in PAGE

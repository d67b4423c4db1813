"""The figures of every fault's test, and the table of them at the end of a run."""

from collections.abc import Generator
from typing import Any

import pytest

from tests.faults.figures import FULL, REPORT, Figures, keep_report, write_table
from tests.nursery import Nursery, running_nursery

_RUN: list[Figures] = []
_FIGURES = pytest.StashKey[Figures]()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Before any fixture, so that a test whose set-up fails stands in the table, too."""
    if (mark := item.get_closest_marker("fault")) is not None:
        words = item.name.removeprefix("test_").replace("_", " ")
        item.stash[_FIGURES] = Figures(number=mark.args[0], fault=words)
        _RUN.append(item.stash[_FIGURES])


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> Figures:
    """Of a test marked `@pytest.mark.fault(number)`: how often to do it, and what was seen."""
    assert _FIGURES in request.node.stash, "a test of a fault names its number: @pytest.mark.fault(1)"
    made: Figures = request.node.stash[_FIGURES]
    return made


@pytest.fixture(scope="session")
def nursery() -> Generator[Nursery]:
    with running_nursery() as running:
        yield running


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if (figures := item.stash.get(_FIGURES, None)) is None:
        return report
    if report.skipped:
        _RUN.remove(figures)
    elif call.when == "call":
        figures.seconds, figures.passed = call.duration, report.passed
    elif report.failed:
        figures.passed = False
    return report


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if not _RUN:
        return
    terminalreporter.section("faults, full figures" if FULL else "faults, short forms (`make soak` for the full ones)")
    for line in write_table(_RUN):
        terminalreporter.write_line(line)
    if FULL:
        keep_report(_RUN)
        terminalreporter.write_line(f"\nkept in {REPORT}")

"""Failpoints: how they are spelled, where they are refused, and that the code passes by every one."""

import ast
import time
from collections.abc import Generator
from pathlib import Path

import pytest

from survival import FAILPOINTS, FailpointReached, arm, parse_failpoints, pass_by
from tests.harness import ROOT, make_settings
from tests.test_architecture import all_modules

pytestmark = pytest.mark.unit


@pytest.fixture(autouse=True)
def disarmed() -> Generator[None]:
    yield
    arm([])


def test_a_point_that_is_not_armed_does_nothing() -> None:
    arm(parse_failpoints("after_claim:raise"))

    pass_by("before_claim")


def test_raise_raises_at_every_passing() -> None:
    arm(parse_failpoints("after_claim:raise"))

    for _ in range(2):
        with pytest.raises(FailpointReached, match="after_claim"):
            pass_by("after_claim")


def test_a_number_says_at_which_passing() -> None:
    arm(parse_failpoints("before_claim:pause=0, after_claim:raise@3"))
    pass_by("after_claim")
    pass_by("after_claim")

    with pytest.raises(FailpointReached):
        pass_by("after_claim")
    pass_by("after_claim")


def test_pause_holds_up_who_passes() -> None:
    arm(parse_failpoints("after_claim:pause=0.05"))
    started = time.monotonic()

    pass_by("after_claim")

    assert time.monotonic() - started >= 0.05


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("after_lunch:kill", id="no such point"),
        pytest.param("after_claim:explode", id="no such action"),
        pytest.param("after_claim", id="no action"),
        pytest.param("after_claim:pause", id="no seconds"),
        pytest.param("after_claim:raise=1", id="seconds for nothing"),
        pytest.param("after_claim:kill@0", id="passings begin at one"),
        pytest.param("after_claim:kill;before_claim:kill", id="another separator"),
    ],
)
def test_what_is_no_failpoint_is_refused_with_what_there_is(text: str) -> None:
    with pytest.raises(ValueError, match=r"FAILPOINTS: .* (must look like|is none of)"):
        parse_failpoints(text)


def test_production_refuses_them(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="FAILPOINTS"):
        make_settings(tmp_path, environment="production", failpoints="after_claim:kill")


def test_the_code_passes_by_each_of_them_once() -> None:
    passed = [
        node.args[0].value
        for path in [*all_modules(), ROOT / "migrations" / "env.py"]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "pass_by"
        if isinstance(node.args[0], ast.Constant)
    ]

    assert sorted(map(str, passed)) == sorted(FAILPOINTS)

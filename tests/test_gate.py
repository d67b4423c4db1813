import threading
from collections.abc import Generator
from contextlib import ExitStack, contextmanager

import pytest

from database.gate import Gate

pytestmark = pytest.mark.unit

PATIENCE_S = 20
A_MOMENT_S = 0.1  # for what must not happen


@contextmanager
def reading(gate: Gate) -> Generator[threading.Event]:
    """Somebody goes through the gate in a thread of their own and stays inside until the end of the block."""
    inside, leave = threading.Event(), threading.Event()

    def read() -> None:
        with gate:
            inside.set()
            leave.wait(PATIENCE_S)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield inside
    finally:
        leave.set()
        reader.join(PATIENCE_S)


def test_who_comes_to_a_shut_gate_waits_until_it_is_opened() -> None:
    gate = Gate()

    with ExitStack() as readers:
        with gate.shut():
            inside = readers.enter_context(reading(gate))
            came_in_early = inside.wait(A_MOMENT_S)

        assert not came_in_early
        assert inside.wait(PATIENCE_S)


def test_a_gate_is_opened_whatever_ends_its_being_shut() -> None:
    gate = Gate()

    with pytest.raises(ValueError, match="disk"), gate.shut():
        raise ValueError("disk")

    with reading(gate) as inside:
        assert inside.wait(PATIENCE_S)


def test_a_gate_is_empty_when_the_last_one_has_left() -> None:
    gate = Gate()

    with gate.shut():
        assert gate.wait_until_empty(PATIENCE_S)
    with reading(gate) as first, reading(gate) as second:
        assert first.wait(PATIENCE_S)
        assert second.wait(PATIENCE_S)
        with gate.shut():
            assert not gate.wait_until_empty(A_MOMENT_S)
    with gate.shut():
        assert gate.wait_until_empty(PATIENCE_S)


def test_who_waits_for_an_empty_gate_hears_at_once_that_it_is() -> None:
    gate = Gate()
    heard: list[bool] = []
    with reading(gate) as inside:
        assert inside.wait(PATIENCE_S)
        waiting = threading.Thread(target=wait_for_it, args=(gate, heard))
        waiting.start()
    waiting.join(PATIENCE_S)

    assert heard == [True]


def wait_for_it(gate: Gate, heard: list[bool]) -> None:
    with gate.shut():
        heard.append(gate.wait_until_empty(PATIENCE_S))


def test_a_read_that_fails_leaves_the_gate() -> None:
    gate = Gate()

    with pytest.raises(ValueError, match="no such row"), gate:
        raise ValueError("no such row")

    with gate.shut():
        assert gate.wait_until_empty(PATIENCE_S)

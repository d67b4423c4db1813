"""No window ever holds more than its limit, waits are told exactly, and clients share fairly."""

from math import ceil
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rate_limiter import CallSlot, CallWindow, FairLimiter, SlidingWindow
from tests.harness import HandClock

pytestmark = pytest.mark.unit

# fractions of a second that floats hold exactly, so that the edge of a window is where it should be
PAUSES_S = st.integers(0, 2_000).map(lambda ticks: ticks / 1024)


def most_in_a_window(admitted_at: list[float], window_s: float) -> int:
    return max((sum(start <= moment < start + window_s for moment in admitted_at) for start in admitted_at), default=0)


@given(limit=st.integers(1, 12), pauses_s=st.lists(PAUSES_S, max_size=150))
def test_no_window_ever_holds_more_than_the_limit(limit: int, pauses_s: list[float]) -> None:
    clock = HandClock()
    window = SlidingWindow(limit, window_s=1, monotonic=clock.monotonic)
    admitted_at: list[float] = []
    for pause_s in pauses_s:
        clock.turn(pause_s)
        if window.admit() == 0:
            admitted_at.append(clock.monotonic())

    assert most_in_a_window(admitted_at, 1) <= limit


@given(limit=st.integers(1, 12), pauses_s=st.lists(PAUSES_S, min_size=1, max_size=100))
def test_who_waits_as_long_as_told_is_admitted_and_not_a_moment_before(limit: int, pauses_s: list[float]) -> None:
    clock = HandClock()
    window = SlidingWindow(limit, window_s=1, monotonic=clock.monotonic)
    for pause_s in pauses_s:
        clock.turn(pause_s)
        if (wait_s := window.admit()) > 0:
            clock.turn(wait_s - 1 / 1024)
            assert window.wait_s() == 1 / 1024
            clock.turn(1 / 1024)
            assert window.admit() == 0


@given(st.lists(st.floats(0, 1.5), max_size=200))
def test_who_always_waits_uses_the_whole_rate_at_any_pace(pauses_s: list[float]) -> None:
    clock = HandClock()
    clock.turn(123_456.789)  # a machine that has run for a while: sums round
    window = SlidingWindow(3, window_s=1, monotonic=clock.monotonic)
    admitted_at: list[float] = []
    for pause_s in pauses_s:
        clock.turn(pause_s)
        while (wait_s := window.admit()) > 0:
            clock.turn(max(wait_s, 1e-9))
        admitted_at.append(clock.monotonic())

    assert most_in_a_window(admitted_at, 1 - 1e-9) <= 3


def test_the_limit_is_admitted_at_once_and_then_one_waits() -> None:
    clock = HandClock()
    window = SlidingWindow(3, window_s=2, monotonic=clock.monotonic)

    assert [window.admit() for _ in range(4)] == [0, 0, 0, 2]


def test_a_try_that_is_refused_costs_nothing() -> None:
    clock = HandClock()
    window = SlidingWindow(1, window_s=1, monotonic=clock.monotonic)
    window.admit()
    for _ in range(100):
        window.admit()
    clock.turn(1)

    assert window.admit() == 0


def test_asking_for_the_wait_takes_no_place() -> None:
    clock = HandClock()
    window = SlidingWindow(1, window_s=1, monotonic=clock.monotonic)

    assert [window.wait_s(), window.wait_s(), window.admit()] == [0, 0, 0]


# Calls going out


def call_window(clock: HandClock, limit: int) -> CallWindow:
    return CallWindow(limit, window_s=1, monotonic=clock.monotonic)


def send(window: CallWindow) -> None:
    window.admit().mark_sent()


CALL_STEPS = st.lists(st.tuples(st.sampled_from(["call", "sent", "lower"]), PAUSES_S), max_size=200)


@given(limit=st.integers(1, 12), steps=CALL_STEPS, turns=st.randoms(use_true_random=False))
def test_calls_sent_late_and_in_any_order_never_pass_the_limit(
    limit: int, steps: list[tuple[str, float]], turns: Random
) -> None:
    clock = HandClock()
    window = call_window(clock, limit)
    sent_at: list[float] = []
    under_way: list[CallSlot] = []
    for step, pause_s in steps:
        clock.turn(pause_s / 4)
        if step == "lower":
            window.lower(rest_s=pause_s)
        elif step == "call" and window.wait_s() == 0:
            under_way.append(window.admit())
        elif step == "sent" and under_way:
            under_way.pop(turns.randrange(len(under_way))).mark_sent()
            sent_at.append(clock.monotonic())

    assert most_in_a_window(sent_at, 1) <= limit


@given(limit=st.integers(1, 12), steps=CALL_STEPS)
def test_the_rate_is_never_above_the_setting_and_never_nothing(limit: int, steps: list[tuple[str, float]]) -> None:
    clock = HandClock()
    window = call_window(clock, limit)
    for step, pause_s in steps:
        clock.turn(pause_s)
        if step == "lower":
            window.lower(rest_s=pause_s)

        assert 1 <= window.current <= limit


def test_a_call_counts_from_when_it_was_sent() -> None:
    clock = HandClock()
    window = call_window(clock, 1)
    slot = window.admit()
    clock.turn(5)
    slot.mark_sent()
    clock.turn(0.75)

    assert window.wait_s() == 0.25


def test_a_call_that_is_not_yet_sent_holds_its_place() -> None:
    clock = HandClock()
    window = call_window(clock, 1)
    window.admit()
    clock.turn(100)

    assert 0 < window.wait_s() < 0.1


def test_a_call_is_sent_once_however_often_that_is_said() -> None:
    clock = HandClock()
    window = call_window(clock, 2)
    slot = window.admit()
    for _ in range(10):
        slot.mark_sent()

    assert window.wait_s() == 0


def test_too_many_requests_halve_the_rate_once_for_a_burst() -> None:
    clock = HandClock()
    window = call_window(clock, 10)
    for _ in range(8):  # all that were in flight hear the same
        window.lower(rest_s=2)
        clock.turn(0.125)

    assert window.current == 5


def test_too_many_requests_again_after_the_rest_halve_it_again() -> None:
    clock = HandClock()
    window = call_window(clock, 16)
    rates: list[int] = []
    for _ in range(6):
        window.lower(rest_s=1)
        rates.append(window.current)
        clock.turn(1)

    assert rates == [8, 4, 2, 1, 1, 1]


@pytest.mark.parametrize("limit", [1, 2, 10, 37])
def test_a_lowered_rate_comes_back_by_itself_within_thirty_seconds(limit: int) -> None:
    clock = HandClock()
    window = call_window(clock, limit)
    for _ in range(10):
        window.lower(rest_s=1)
        clock.turn(1)

    rates = [window.current]
    for _ in range(30):
        clock.turn(1)
        rates.append(window.current)

    assert rates[-1] == limit
    assert rates == sorted(rates)


def test_the_rate_stays_low_for_as_long_as_was_told() -> None:
    clock = HandClock()
    window = call_window(clock, 10)
    window.lower(rest_s=120)
    clock.turn(119.75)

    assert window.current == 5


def test_a_lowered_rate_holds_from_the_next_call_on() -> None:
    clock = HandClock()
    window = call_window(clock, 10)
    for _ in range(7):
        send(window)
        clock.turn(1 / 16)
    window.lower(rest_s=1)

    waits = window.wait_s()
    clock.turn(waits)

    assert waits == 1 - 5 / 16  # until the first three of the seven have left the window
    assert window.wait_s() == 0


@given(limit=st.integers(1, 12), pauses_s=st.lists(PAUSES_S, max_size=100))
def test_a_call_that_waits_as_told_is_let_through(limit: int, pauses_s: list[float]) -> None:
    clock = HandClock()
    window = call_window(clock, limit)
    for pause_s in pauses_s:
        clock.turn(pause_s / 8)
        clock.turn(window.wait_s())

        assert window.wait_s() == 0
        send(window)


# Clients that share


def fair(clock: HandClock, limit: int, *, most_clients: int = 10_000) -> FairLimiter:
    return FairLimiter(limit, window_s=1, monotonic=clock.monotonic, most_clients=most_clients)


def test_a_client_that_is_alone_uses_all_of_it() -> None:
    clock = HandClock()
    limiter = fair(clock, 100)

    admitted = [limiter.admit("ann") == 0 for _ in range(101)]

    assert admitted == [True] * 100 + [False]


def test_two_greedy_clients_share_equally() -> None:
    clock = HandClock()
    limiter = fair(clock, 100)
    admitted = {"ann": 0, "bob": 0}
    for _ in range(10_000):
        clock.turn(1 / 1024)
        for client in admitted:
            admitted[client] += limiter.admit(client) == 0

    assert abs(admitted["ann"] - admitted["bob"]) <= 100
    assert sum(admitted.values()) >= 950  # nearly 10 s at 100/s


def test_a_client_that_finds_all_taken_gets_in_when_it_comes_back() -> None:
    clock = HandClock()
    limiter = fair(clock, 100)
    while limiter.admit("greedy") == 0:
        clock.turn(1 / 1024)

    retry_after_s = ceil(limiter.admit("modest"))
    for _ in range(retry_after_s * 1024):
        limiter.admit("greedy")
        clock.turn(1 / 1024)

    assert retry_after_s >= 1
    assert limiter.admit("modest") == 0


def test_a_client_gets_its_whole_share_although_another_never_lets_go() -> None:
    clock = HandClock()
    limiter = fair(clock, 100)
    admitted = 0
    for tick in range(10 * 1024):
        limiter.admit("greedy")
        if tick % 64 == 0:  # 16 a second, well below its share
            admitted += limiter.admit("modest") == 0
        clock.turn(1 / 1024)

    assert admitted >= 9 * 16


@given(
    limit=st.integers(1, 20),
    tries=st.lists(st.tuples(PAUSES_S, st.sampled_from(["ann", "bob", "cid", "dan"])), max_size=150),
)
def test_all_clients_together_never_pass_the_limit(limit: int, tries: list[tuple[float, str]]) -> None:
    clock = HandClock()
    limiter = fair(clock, limit)
    admitted_at: list[float] = []
    for pause_s, client in tries:
        clock.turn(pause_s / 8)
        if limiter.admit(client) == 0:
            admitted_at.append(clock.monotonic())

    assert most_in_a_window(admitted_at, 1) <= limit


def test_a_client_that_went_away_leaves_its_share_to_the_others() -> None:
    clock = HandClock()
    limiter = fair(clock, 100)
    limiter.admit("gone")
    clock.turn(3.5)

    assert sum(limiter.admit("ann") == 0 for _ in range(200)) == 100


def test_a_million_clients_do_not_fill_the_memory() -> None:
    clock = HandClock()
    limiter = fair(clock, 5, most_clients=100)
    for number in range(20_000):
        limiter.admit(f"client {number}")
        clock.turn(1 / 4096)

    assert len(limiter._present) <= 100  # pyright: ignore[reportPrivateUsage] - memory shows nowhere else


def test_clients_are_forgotten_once_they_stay_away() -> None:
    clock = HandClock()
    limiter = fair(clock, 5)
    for number in range(1_000):
        limiter.admit(f"client {number}")
    clock.turn(4)
    limiter.admit("ann")

    assert len(limiter._present) == 1  # pyright: ignore[reportPrivateUsage] - memory shows nowhere else


def test_each_of_many_refused_at_once_is_promised_a_place_of_its_own() -> None:
    clock = HandClock()
    limiter = FairLimiter(100, window_s=1, monotonic=clock.monotonic)
    waits_s = [limiter.admit("burst") for _ in range(300)]

    later: list[float] = []
    for second in (1, 2):
        clock.turn(1)
        later += [limiter.admit("burst") for wait_s in waits_s if wait_s == second]

    assert [waits_s.count(told) for told in (0, 1, 2)] == [100, 100, 100]
    assert later == [0] * 200


def test_no_wait_is_longer_than_a_minute() -> None:
    clock = HandClock()
    limiter = FairLimiter(1, window_s=1, monotonic=clock.monotonic)

    assert max(limiter.admit("flood") for _ in range(1_000)) <= 60

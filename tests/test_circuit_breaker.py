"""When to stop calling a service that fails, when to try it again, and whose news still counts."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circuit_breaker import CircuitBreaker, State
from tests.harness import HandClock

pytestmark = pytest.mark.unit


def breaker_of(clock: HandClock, *, cooldown_s: float = 10) -> CircuitBreaker:
    return CircuitBreaker(threshold=5, cooldown_s=cooldown_s, monotonic=clock.monotonic)


def fail(breaker: CircuitBreaker, times: int = 1) -> None:
    """Calls that were let through now, and fail."""
    for _ in range(times):
        breaker.record_failure(era=breaker.era)


def succeed(breaker: CircuitBreaker) -> None:
    breaker.record_success(era=breaker.era)


def opened(clock: HandClock, *, cooldown_s: float = 10) -> CircuitBreaker:
    breaker = breaker_of(clock, cooldown_s=cooldown_s)
    fail(breaker, 5)
    return breaker


def probing(clock: HandClock) -> CircuitBreaker:
    breaker = opened(clock)
    clock.turn(breaker.wait_s())
    assert breaker.admit() == 0
    return breaker


def test_a_new_breaker_lets_everything_through(clock: HandClock) -> None:
    breaker = breaker_of(clock)

    assert (breaker.state, breaker.wait_s(), breaker.admit()) == (State.CLOSED, 0, 0)


def test_five_failures_in_a_row_open_it(clock: HandClock) -> None:
    breaker = breaker_of(clock)
    states: list[State] = []
    for _ in range(5):
        fail(breaker)
        states.append(breaker.state)

    assert states == [State.CLOSED] * 4 + [State.OPEN]
    assert breaker.admit() == 10


def test_a_success_in_between_starts_the_count_anew(clock: HandClock) -> None:
    breaker = breaker_of(clock)
    fail(breaker, 4)
    succeed(breaker)
    fail(breaker, 4)

    assert breaker.state is State.CLOSED


def test_half_of_the_last_twenty_calls_failing_opens_it(clock: HandClock) -> None:
    breaker = breaker_of(clock)
    for _ in range(10):
        succeed(breaker)
        fail(breaker)

    assert breaker.state is State.OPEN


def test_less_than_half_failing_leaves_it_closed(clock: HandClock) -> None:
    breaker = breaker_of(clock)
    for number in range(200):
        (fail if number % 9 in {0, 2, 4, 6} else succeed)(breaker)

    assert breaker.state is State.CLOSED


def test_an_open_breaker_refuses_until_its_cooldown_is_over(clock: HandClock) -> None:
    breaker = opened(clock)
    clock.turn(9.5)
    refused = (breaker.state, breaker.admit())
    clock.turn(0.5)

    assert refused == (State.OPEN, 0.5)
    assert (breaker.state, breaker.wait_s()) == (State.HALF_OPEN, 0)


def test_exactly_one_probe_goes_through(clock: HandClock) -> None:
    breaker = opened(clock)
    clock.turn(10)

    waits = [breaker.admit() for _ in range(10)]

    assert waits[0] == 0
    assert all(wait_s > 0 for wait_s in waits[1:])


def test_asking_for_the_wait_takes_no_probe(clock: HandClock) -> None:
    breaker = opened(clock)
    clock.turn(10)

    assert [breaker.wait_s(), breaker.wait_s(), breaker.admit()] == [0, 0, 0]


def test_a_probe_that_succeeds_closes_it_and_resets_the_cooldown(clock: HandClock) -> None:
    breaker = probing(clock)
    fail(breaker)  # the cooldown is now 20 s
    clock.turn(20)
    breaker.admit()
    succeed(breaker)
    state = breaker.state
    fail(breaker, 5)

    assert state is State.CLOSED
    assert breaker.wait_s() == 10


def test_what_failed_before_it_closed_counts_no_more(clock: HandClock) -> None:
    breaker = probing(clock)
    succeed(breaker)
    fail(breaker, 4)

    assert breaker.state is State.CLOSED


def test_each_probe_that_fails_doubles_the_cooldown_up_to_two_minutes(clock: HandClock) -> None:
    breaker = opened(clock)
    waits: list[float] = []
    for _ in range(6):
        waits.append(breaker.wait_s())
        clock.turn(waits[-1])
        breaker.admit()
        fail(breaker)

    assert waits == [10, 20, 40, 80, 120, 120]


def test_a_cooldown_configured_above_two_minutes_is_never_shortened(clock: HandClock) -> None:
    breaker = opened(clock, cooldown_s=600)
    clock.turn(600)
    breaker.admit()
    fail(breaker)

    assert breaker.wait_s() == 600


def test_a_probe_that_tells_nothing_makes_room_for_another(clock: HandClock) -> None:
    breaker = probing(clock)
    refused_s = breaker.admit()
    breaker.forget_probe(era=breaker.era)

    assert refused_s > 0
    assert breaker.admit() == 0


# Eras: news of a call that was let through before the last opening


def test_late_failures_of_calls_in_flight_do_not_prolong_the_cooldown(clock: HandClock) -> None:
    breaker = breaker_of(clock)
    before = breaker.era
    fail(breaker, 5)
    clock.turn(4)
    for _ in range(10):
        breaker.record_failure(era=before)

    assert breaker.wait_s() == 6


def test_a_late_success_does_not_close_an_open_breaker(clock: HandClock) -> None:
    breaker = breaker_of(clock)
    before = breaker.era
    fail(breaker, 5)
    breaker.record_success(era=before)

    assert (breaker.state, breaker.wait_s()) == (State.OPEN, 10)


def test_a_late_failure_is_not_the_probes(clock: HandClock) -> None:
    breaker = breaker_of(clock)
    before = breaker.era
    fail(breaker, 5)
    clock.turn(10)
    breaker.admit()
    breaker.record_failure(era=before)
    still_probing = breaker.admit() > 0
    succeed(breaker)

    assert still_probing
    assert breaker.state is State.CLOSED


def test_a_late_end_without_news_does_not_let_a_second_probe_go(clock: HandClock) -> None:
    breaker = breaker_of(clock)
    before = breaker.era
    fail(breaker, 5)
    clock.turn(10)
    breaker.admit()
    breaker.forget_probe(era=before)

    assert breaker.admit() > 0


def test_a_late_failure_does_not_count_after_it_closed_again(clock: HandClock) -> None:
    breaker = breaker_of(clock)
    before = breaker.era
    fail(breaker, 5)
    clock.turn(10)
    breaker.admit()
    succeed(breaker)
    for _ in range(20):
        breaker.record_failure(era=before)

    assert breaker.state is State.CLOSED


@given(
    st.lists(
        st.tuples(st.sampled_from(["admit", "good", "bad", "forget"]), st.floats(0, 30), st.integers(0, 2)),
        max_size=200,
    )
)
def test_whatever_happens_somebody_may_call_again(steps: list[tuple[str, float, int]]) -> None:
    clock = HandClock()
    breaker = breaker_of(clock)
    for step, pause_s, late_by in steps:
        clock.turn(pause_s)
        era = breaker.era - late_by
        match step:
            case "admit":
                breaker.admit()
            case "good":
                breaker.record_success(era=era)
            case "bad":
                breaker.record_failure(era=era)
            case _:
                breaker.forget_probe(era=era)

    breaker.forget_probe(era=breaker.era)  # whatever probe was under way has ended
    waits = [breaker.wait_s()]
    clock.turn(waits[0] + 1e-6)
    assert 0 <= waits[0] <= 120
    assert breaker.admit() == 0


@given(st.lists(st.tuples(st.sampled_from(["let_in", "good", "bad", "forget"]), st.floats(0, 15)), max_size=200))
def test_half_open_never_has_two_calls_under_way(steps: list[tuple[str, float]]) -> None:
    clock = HandClock()
    breaker = opened(clock)
    probes: list[int] = []  # the eras of those under way
    for step, pause_s in steps:
        clock.turn(pause_s)
        was_open = breaker.state is not State.CLOSED
        if step == "let_in" and breaker.admit() == 0 and was_open:
            probes.append(breaker.era)
        elif step != "let_in" and probes:
            end = {"good": breaker.record_success, "bad": breaker.record_failure, "forget": breaker.forget_probe}
            end[step](era=probes.pop())

        assert len(probes) <= 1


def test_the_states_follow_the_figure(clock: HandClock) -> None:
    breaker = breaker_of(clock)
    seen = [breaker.state]

    def note() -> None:
        if breaker.state is not seen[-1]:
            seen.append(breaker.state)

    for _ in range(5):
        fail(breaker)
        note()
    for _ in range(2):
        clock.turn(breaker.wait_s())
        note()
        breaker.admit()
        fail(breaker)
        note()
    clock.turn(breaker.wait_s())
    note()
    breaker.admit()
    succeed(breaker)
    note()

    allowed = {(State.CLOSED, State.OPEN), (State.OPEN, State.HALF_OPEN), (State.HALF_OPEN, State.OPEN)}
    assert set(pairwise(seen)) == allowed | {(State.HALF_OPEN, State.CLOSED)}

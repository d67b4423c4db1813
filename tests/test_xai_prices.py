"""What a call costs, to the tick, and that no answer of xAI makes it look cheaper or breaks the account."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fake_xai_answers import MODELS, Json
from tests.fake_xai_answers import Usage as FakeUsage
from xai import PRICES_PATH, TICKS_PER_USD, PriceList, PricesInvalid, Usage

pytestmark = pytest.mark.unit

PRICES = PriceList.load()
TINY: Json = {"models": {"m": {"input": 1, "cached_input": 0.5, "output": 4}}}


def usage(prompt: int, completion: int, **more: Any) -> Usage:
    read = Usage.read({"prompt_tokens": prompt, "completion_tokens": completion, **more})
    assert read is not None
    return read


# The numbers below are worked out by hand from prices.yaml: 1 USD a million tokens is 10,000 ticks a token.


@pytest.mark.parametrize(
    ("model", "used", "ticks"),
    [
        pytest.param("grok-4.3", usage(1000, 100, total_tokens=1100), 12_500_000 + 2_500_000, id="nothing cached"),
        pytest.param(
            "grok-4.3",
            usage(1000, 100, total_tokens=1100, prompt_tokens_details={"cached_tokens": 900}),
            100 * 12_500 + 900 * 2_000 + 100 * 25_000,
            id="most of the prompt cached",
        ),
        pytest.param(
            "grok-4.3",
            usage(1000, 100, total_tokens=1600, completion_tokens_details={"reasoning_tokens": 500}),
            1000 * 12_500 + 600 * 25_000,
            id="reasoning on top of the completion",
        ),
        pytest.param(
            "grok-4.3",
            usage(1000, 600, total_tokens=1600, completion_tokens_details={"reasoning_tokens": 500}),
            1000 * 12_500 + 600 * 25_000,
            id="reasoning within the completion",
        ),
        pytest.param(
            "grok-4.3",
            usage(1000, 100, total_tokens=1600),
            1000 * 12_500 + 600 * 25_000,
            id="reasoning that only the total tells of",
        ),
        pytest.param(
            "grok-4.7", usage(1000, 100, total_tokens=1100), 1000 * 20_000 + 100 * 60_000, id="a dearer model"
        ),
        pytest.param("grok-4.3", usage(200_000, 10, total_tokens=200_010), 2_500_250_000, id="just not a long prompt"),
        pytest.param("grok-4.3", usage(200_001, 10, total_tokens=200_011), 2 * 2_500_262_500, id="a long prompt"),
        pytest.param("grok-4.3", usage(0, 0), 0, id="nothing used"),
        pytest.param("nobody-knows-it", usage(1000, 100, total_tokens=1100), 26_000_000, id="a model not listed"),
        pytest.param("grok-4.3", usage(1000, 100, cost_in_usd_ticks=37_756_000), 37_756_000, id="xAI's own bill"),
        pytest.param("grok-4.3", usage(1000, 100, cost_in_usd_ticks=-1), 15_000_000, id="a negative bill is none"),
        pytest.param("grok-4.3", usage(1000, 100, cost_in_usd_ticks=10**30), 15_000_000, id="an absurd bill is none"),
        pytest.param("grok-4.3", usage(1000, 100, cost_in_usd_ticks=0), 15_000_000, id="a bill of nothing is none"),
    ],
)
def test_a_call_costs_what_it_comes_to_by_hand(model: str, used: Usage, ticks: int) -> None:
    assert PRICES.cost_ticks(model, used) == ticks


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(("prompt", "cached"), [(1843, 0), (1843, 1700), (250_000, 100_000)])
def test_the_list_comes_to_xais_own_bill(model: str, prompt: int, cached: int) -> None:
    ticks = MODELS[model].cost_ticks(prompt=prompt, cached=cached, output=311 + 77)
    body = FakeUsage(prompt, cached, 311, 77, ticks).body(ticks=False)

    assert PRICES.cost_ticks(model, Usage.read(body) or usage(0, 0)) == ticks


def test_one_price_for_every_token_goes_before_the_list() -> None:
    prices = PriceList.load(usd_per_1k_tokens=0.002)

    used = usage(1000, 500, total_tokens=1500, prompt_tokens_details={"cached_tokens": 1000})

    assert prices.cost_ticks("grok-4.3", used) == 1.5 * 0.002 * TICKS_PER_USD
    assert prices.cost_ticks("nobody-knows-it", used) == 1.5 * 0.002 * TICKS_PER_USD


def test_xais_own_bill_goes_before_one_price_for_every_token() -> None:
    assert PriceList.load(usd_per_1k_tokens=0.002).cost_ticks("grok-4.3", usage(1000, 500, cost_in_usd_ticks=7)) == 7


def test_what_a_call_may_become_is_reckoned_by_its_bytes_uncached() -> None:
    most = PRICES.most_ticks("grok-4.3", prompt_bytes=12_000, output_tokens=1760)

    assert most == 12_000 * 12_500 + 1760 * 25_000


def test_a_long_prompt_is_reserved_at_double() -> None:
    assert PRICES.most_ticks("grok-4.3", prompt_bytes=200_001, output_tokens=0) == 2 * 200_001 * 12_500


@given(
    model=st.sampled_from([*MODELS, "nobody-knows-it"]),
    sizes=st.tuples(st.integers(0, 400_000), st.integers(0, 10_000), st.integers(0, 10_000)),
    shares=st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1)),
)
def test_no_call_within_its_size_costs_more_than_was_reserved(
    model: str, sizes: tuple[int, int, int], shares: tuple[float, float, float]
) -> None:
    prompt_bytes, completion, reasoning = sizes
    prompt = int(prompt_bytes * shares[0])
    used = usage(
        prompt,
        int(completion * shares[1]),
        total_tokens=prompt + completion + reasoning,
        prompt_tokens_details={"cached_tokens": int(prompt * shares[2])},
        completion_tokens_details={"reasoning_tokens": reasoning},
    )

    most = PRICES.most_ticks(model, prompt_bytes=prompt_bytes, output_tokens=completion + reasoning)

    assert 0 <= PRICES.cost_ticks(model, used) <= most


@pytest.mark.parametrize(
    ("place", "used"),
    [
        ("input", usage(1000, 0, total_tokens=1000)),
        ("cached_input", usage(1000, 0, total_tokens=1000, prompt_tokens_details={"cached_tokens": 1000})),
        ("output", usage(0, 1000, total_tokens=1000)),
    ],
)
def test_no_token_of_a_model_not_listed_is_cheaper_than_one_of_those_that_are(place: str, used: Usage) -> None:
    models = {name: {"input": 1, "cached_input": 1, "output": 1} for name in ("a", "b", "c")}
    models["b"][place] = 50
    models["c"]["output"] = 60
    prices = PriceList({"models": models})

    assert prices.cost_ticks("unlisted", used) == max(prices.cost_ticks(name, used) for name in models)


# Reasoning


@pytest.mark.parametrize(
    ("model", "effort"),
    [
        ("grok-4.3", "none"),
        ("grok-4.5", "low"),
        ("grok-4.6", "low"),
        ("grok-4.7", "low"),
        ("grok-4.20-0309-non-reasoning", None),
        ("grok-4.20-0309-reasoning", None),
        ("nobody-knows-it", "none"),
    ],
)
def test_a_model_is_asked_to_reason_as_little_as_it_can(model: str, effort: str | None) -> None:
    assert PRICES.least_effort(model) == effort


# Hostile usage


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(None, id="null"),
        pytest.param([], id="a list"),
        pytest.param("usage", id="a word"),
        pytest.param({}, id="nothing in it"),
        pytest.param({"prompt_tokens": -5, "completion_tokens": 1}, id="a negative prompt"),
        pytest.param({"prompt_tokens": 1, "completion_tokens": -5}, id="a negative completion"),
        pytest.param({"prompt_tokens": 1e30, "completion_tokens": 1}, id="more tokens than there are"),
        pytest.param({"prompt_tokens": 10**30, "completion_tokens": 1}, id="an integer without end"),
        pytest.param({"prompt_tokens": float("nan"), "completion_tokens": 1}, id="no number"),
        pytest.param({"prompt_tokens": float("inf"), "completion_tokens": 1}, id="infinite"),
        pytest.param({"prompt_tokens": 1.5, "completion_tokens": 1}, id="half a token"),
        pytest.param({"prompt_tokens": "many", "completion_tokens": 1}, id="a word for a number"),
        pytest.param({"prompt_tokens": [1], "completion_tokens": 1}, id="a list for a number"),
        pytest.param({"prompt_tokens": None, "completion_tokens": 1}, id="null for a number"),
        pytest.param({"prompt_tokens": 1}, id="one of the two"),
        pytest.param(
            {"prompt_tokens": 1, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": -1}},
            id="negative cached tokens",
        ),
        pytest.param(
            {"prompt_tokens": 1, "completion_tokens": 1, "prompt_tokens_details": "x"}, id="details as a word"
        ),
    ],
)
def test_usage_that_cannot_be_believed_is_none_at_all(value: object) -> None:
    assert Usage.read(value) is None  # and the call is charged with all that was reserved


@pytest.mark.parametrize("details", [None, {}, {"cached_tokens": None}])
def test_details_that_are_missing_count_as_nothing_cached(details: object) -> None:
    used = Usage.read({"prompt_tokens": 1000, "completion_tokens": 0, "prompt_tokens_details": details})

    assert used is None or used.uncached_tokens == 1000


def test_no_more_is_cached_than_was_sent() -> None:
    used = usage(100, 0, prompt_tokens_details={"cached_tokens": 5000})

    assert (used.cached_tokens, used.uncached_tokens) == (100, 0)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.dictionaries(
            st.sampled_from(
                [
                    "prompt_tokens",
                    "completion_tokens",
                    "total_tokens",
                    "prompt_tokens_details",
                    "completion_tokens_details",
                    "cached_tokens",
                    "reasoning_tokens",
                    "cost_in_usd_ticks",
                ]
            ),
            inner,
            max_size=6,
        ),
        max_leaves=12,
    )
)
def test_whatever_xai_says_it_used_costs_something_between_nothing_and_the_limit(value: object) -> None:
    used = Usage.read(value)

    assert used is None or 0 <= PRICES.cost_ticks("grok-4.3", used) <= 10**18


# The file


@pytest.mark.parametrize(
    ("content", "says"),
    [
        pytest.param("models: [", "not UTF-8 YAML", id="no YAML"),
        pytest.param(b"\xff\xfe\x00", "not UTF-8 YAML", id="no text"),
        pytest.param("", "the file", id="nothing"),
        pytest.param("[1, 2]", "the file", id="a list"),
        pytest.param("models: {}", "models", id="no model"),
        pytest.param("models: {m: {input: 1, cached_input: 1}}", "models.m.output", id="a price is missing"),
        pytest.param("models: {m: {input: -1, cached_input: 1, output: 1}}", "models.m.input", id="a negative price"),
        pytest.param("models: {m: {input: .nan, cached_input: 1, output: 1}}", "models.m.input", id="no number"),
        pytest.param("models: {m: {inputs: 1, cached_input: 1, output: 1}}", "models.m.input", id="a typo"),
        pytest.param("long: 1\nmodels: {m: {input: 1, cached_input: 1, output: 1}}", "long", id="an unknown member"),
    ],
)
def test_a_price_list_that_cannot_be_used_says_where(tmp_path: Path, content: str | bytes, says: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())

    with pytest.raises(PricesInvalid, match=says) as caught:
        PriceList.load(path)

    assert "mine.yaml" in str(caught.value)


def test_a_price_list_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(PricesInvalid, match="put it at"):
        PriceList.load(tmp_path / "none.yaml")


def test_a_price_list_without_long_prompts_doubles_nothing() -> None:
    assert PriceList(TINY).cost_ticks("m", usage(1_000_000, 0)) == 1 * TICKS_PER_USD


def test_the_shipped_list_is_beside_the_modules() -> None:
    assert PRICES_PATH.name == "prices.yaml"
    assert PRICES_PATH.is_file()


@pytest.mark.parametrize(
    ("told", "agrees"),
    [
        ((1.25, 2.5), True),
        ((1.2504, 2.5), True),
        ((1.26, 2.5), False),
        ((1.25, 3.0), False),
        ((None, None), True),
    ],
)
def test_xais_prices_are_compared_with_the_list(told: tuple[float | None, float | None], *, agrees: bool) -> None:
    assert PRICES.agrees("grok-4.3", *told) is agrees


def test_prices_of_a_model_not_listed_differ_from_nothing() -> None:
    assert PRICES.agrees("nobody-knows-it", 99, 99)

"""What a call costs: xAI's own bill when it sends one, else tokens by the price list; in ticks, 10^10 to the dollar."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Self, cast

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

PRICES_PATH: Final = Path(__file__).parents[1] / "prices.yaml"
TICKS_PER_USD: Final = 10**10
_TICKS_PER_TOKEN: Final = TICKS_PER_USD // 1_000_000  # of a price of 1 USD per million tokens
_MOST_TOKENS: Final = 2_000_000  # no model takes half of that
_MOST_TICKS: Final = 100 * TICKS_PER_USD  # a call that says more is not believed

TokenCount = Annotated[int, Field(ge=0, le=_MOST_TOKENS)]
_Price = Annotated[float, Field(ge=0, le=100_000, allow_inf_nan=False)]


class PricesInvalid(ValueError):
    """The price list cannot be used; the sentence names the file, the place and the remedy."""


def _drop_nulls(value: object) -> object:
    if not isinstance(value, dict):
        return value
    return {name: part for name, part in cast("dict[str, object]", value).items() if part is not None}


class _Details(BaseModel):
    _take_nulls = model_validator(mode="before")(_drop_nulls)

    cached_tokens: TokenCount = 0
    reasoning_tokens: TokenCount = 0


class Usage(BaseModel):
    """What xAI says a call used. `completion_tokens` leaves out reasoning, unless the total says otherwise."""

    model_config = ConfigDict(frozen=True)

    prompt_tokens: TokenCount
    completion_tokens: TokenCount
    total_tokens: TokenCount = 0
    prompt_tokens_details: _Details = _Details()
    completion_tokens_details: _Details = _Details()
    cost_in_usd_ticks: int | None = None

    _take_nulls = model_validator(mode="before")(_drop_nulls)

    @classmethod
    def read(cls, value: object) -> Self | None:
        """None when xAI sent no usage, or none that can be believed."""
        try:
            return cls.model_validate(value)
        except ValidationError:
            return None

    @field_validator("cost_in_usd_ticks", mode="before")
    @classmethod
    def _believe_a_likely_bill(cls, value: object) -> object:
        """A bill of nothing, of less or of far too much is none: the price list then says what the tokens cost."""
        return value if isinstance(value, int) and 0 < value <= _MOST_TICKS else None

    @property
    def cached_tokens(self) -> int:
        return min(self.prompt_tokens, self.prompt_tokens_details.cached_tokens)

    @property
    def uncached_tokens(self) -> int:
        return self.prompt_tokens - self.cached_tokens

    @property
    def reasoning_tokens(self) -> int:
        """Reasoning that comes on top of `completion_tokens`; at least what the total holds beyond the two."""
        on_top = self.total_tokens - self.prompt_tokens - self.completion_tokens
        return max(on_top, self.completion_tokens_details.reasoning_tokens) if on_top else 0


class _ModelPrice(BaseModel):
    """USD per million tokens; `efforts` are the values of `reasoning_effort` that the model takes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    input: _Price
    cached_input: _Price
    output: _Price
    efforts: tuple[str, ...] | None = None

    def ticks(self, *, uncached: int, cached: int, output: int) -> int:
        return round((uncached * self.input + cached * self.cached_input + output * self.output) * _TICKS_PER_TOKEN)


class _LongContext(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    above_tokens: int = Field(ge=1)
    times: float = Field(ge=1, le=100)


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    long_context: _LongContext | None = None
    models: dict[str, _ModelPrice] = Field(min_length=1)


class PriceList:
    """Prices by model; a token of a model that is not in the list is taken to cost as much as the dearest that is."""

    def __init__(self, content: Mapping[str, Any], *, usd_per_1k_tokens: float | None = None) -> None:
        """`usd_per_1k_tokens` is one price for every token of every model. Raises ValidationError."""
        self._file = _File.model_validate(content)
        self._flat: _ModelPrice | None = None
        if usd_per_1k_tokens is not None:
            price = usd_per_1k_tokens * 1000
            self._flat = _ModelPrice(input=price, cached_input=price, output=price)

    @classmethod
    def load(cls, path: Path = PRICES_PATH, *, usd_per_1k_tokens: float | None = None) -> Self:
        """Raises: PricesInvalid, for a file that is missing, not YAML, or mistyped."""
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
            return cls(content, usd_per_1k_tokens=usd_per_1k_tokens)
        except OSError as exc:
            raise PricesInvalid(f"{path.name} cannot be read ({exc.strerror}); put it at {path}.") from exc
        except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as exc:
            reason = " ".join(str(exc).split())[:200]
            raise PricesInvalid(f"{path.name} is not UTF-8 YAML ({reason}); mend that line.") from exc
        except ValidationError as exc:
            first = exc.errors(include_input=False, include_url=False)[0]
            place = ".".join(map(str, first["loc"])) or "the file"
            raise PricesInvalid(f"{path.name}: {place}: {first['msg']}; see prices.yaml for the form.") from exc

    def cost_ticks(self, model: str, usage: Usage) -> int:
        """xAI's bill when there is one, else by the list."""
        if usage.cost_in_usd_ticks is not None:
            return usage.cost_in_usd_ticks
        output = usage.completion_tokens + usage.reasoning_tokens
        price = self._price(model).ticks(uncached=usage.uncached_tokens, cached=usage.cached_tokens, output=output)
        return round(price * self._times(usage.prompt_tokens))

    def most_ticks(self, model: str, *, prompt_bytes: int, output_tokens: int) -> int:
        """No call of this size costs more: a token is at least one byte, and nothing is cached."""
        price = self._price(model).ticks(uncached=prompt_bytes, cached=0, output=output_tokens)
        return round(price * self._times(prompt_bytes))

    def least_effort(self, model: str) -> str | None:
        """The value of `reasoning_effort` that reasons least; None when the model takes none.

        A model that is not in the list is asked for "none", and refuses it if it must.
        """
        price = self._file.models.get(model)
        efforts = ("none",) if price is None or price.efforts is None else price.efforts
        return efforts[0] if efforts else None

    def agrees(self, model: str, input_usd: float | None, output_usd: float | None) -> bool:
        """Whether the list has these prices per million tokens; what is not told, or not listed, agrees."""
        listed = self._file.models.get(model)
        if listed is None or self._flat is not None:  # the user has set a price of his own
            return True
        pairs = ((listed.input, input_usd), (listed.output, output_usd))
        return all(told is None or abs(ours - told) < 0.005 for ours, told in pairs)

    def _price(self, model: str) -> _ModelPrice:
        return self._flat or self._file.models.get(model) or self._dearest()

    def _dearest(self) -> _ModelPrice:
        prices = self._file.models.values()
        return _ModelPrice(
            input=max(price.input for price in prices),
            cached_input=max(price.cached_input for price in prices),
            output=max(price.output for price in prices),
        )

    def _times(self, prompt_tokens: int) -> float:
        long = self._file.long_context
        return long.times if long is not None and prompt_tokens > long.above_tokens else 1

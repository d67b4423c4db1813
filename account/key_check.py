"""Ask xAI at the start, for nothing, whether key, model and prices are what we take them to be; never fatal.

Source: docs.x.ai/docs/api-reference (`GET /v1/api-key`, `GET /v1/language-models`, prices in 1/10,000 dollar).
"""

import asyncio
from typing import Annotated, Literal

from pydantic import BaseModel, Field, ValidationError

from errors import GrokAuth, GrokBilling, GrokError, Overloaded, StorageFull
from grok_client import GrokClient
from telemetry import get_logger
from xai import PriceList

log = get_logger()

Verdict = Literal["not_needed", "unchecked", "ok", "key_refused", "model_unknown", "unreachable"]
_PRICE_UNITS_PER_USD = 10_000
_AGAIN_S = 61.0  # when a lane that was closed has opened again
_DEADLINE_S = 10


class _Key(BaseModel):
    api_key_blocked: bool = False
    api_key_disabled: bool = False
    team_blocked: bool = False


class _Model(BaseModel):
    id: str
    aliases: list[str] = []
    prompt_text_token_price: Annotated[int, Field(ge=0)] | None = None
    completion_text_token_price: Annotated[int, Field(ge=0)] | None = None


class _Models(BaseModel):
    models: list[_Model]


class KeyCheck:
    """What came of it: `verdict`, and in `details` a sentence for the operator."""

    def __init__(self, client: GrokClient, prices: PriceList, *, model: str, needed: bool) -> None:
        self._client = client
        self._prices = prices
        self._model = model
        self._verdict: Verdict = "unchecked" if needed else "not_needed"
        self.beats = 0
        self._details = "xAI has not been asked yet." if needed else "The offline analyzer needs no key."

    @property
    def verdict(self) -> Verdict:
        """What xAI said when it was asked; a call that has succeeded since says more."""
        return "ok" if self._is_outdated() else self._verdict

    @property
    def details(self) -> str:
        return "Calls succeed." if self._is_outdated() else self._details

    def _is_outdated(self) -> bool:
        return self._client.lane.proven and self._verdict in {"unchecked", "key_refused", "unreachable"}

    async def watch(self) -> None:
        """Ask at the start, and every minute while something has to be mended: nobody else may call meanwhile."""
        while self._verdict != "not_needed":
            self.beats += 1
            if self._verdict == "unchecked" or self._client.lane.outage is not None:
                await self.run()
            await asyncio.sleep(_AGAIN_S)

    async def run(self) -> None:
        """Ask once. A refused key closes the lane as a refused call would: rows wait, and it is tried again later."""
        if self._verdict == "not_needed":
            return
        try:
            async with asyncio.timeout(_DEADLINE_S):
                self._judge_key(_Key.model_validate(await self._client.get("api-key")))
                self._judge_model(_Models.model_validate(await self._client.get("language-models")).models)
            self._client.lane.outage = None
        except (GrokAuth, GrokBilling) as error:
            self._verdict, self._details = "key_refused", error.details
            self._client.lane.close(error)
        except (GrokError, Overloaded, StorageFull) as error:
            self._verdict, self._details = "unreachable", error.details
        except TimeoutError:
            self._verdict, self._details = "unreachable", f"xAI did not answer within {_DEADLINE_S} s."
        except ValidationError:
            self._verdict, self._details = "unreachable", "xAI's answer about the key cannot be read."
        log.info("grok_key_checked", verdict=self.verdict, details=self.details)

    def _judge_key(self, key: _Key) -> None:
        if key.api_key_blocked or key.api_key_disabled or key.team_blocked:
            raise GrokAuth("xAI says that the key is blocked or disabled; put another into GROK_KEY.")

    def _judge_model(self, models: list[_Model]) -> None:
        found = next((model for model in models if self._model in {model.id, *model.aliases}), None)
        if found is None:
            self._verdict = "model_unknown"
            self._details = f"{self._model} is not among this key's models; xAI may answer with another, at its price."
            return
        self._verdict, self._details = "ok", "Key and model are good."
        told = (found.prompt_text_token_price, found.completion_text_token_price)
        if not self._prices.agrees(
            self._model, *(None if price is None else price / _PRICE_UNITS_PER_USD for price in told)
        ):
            self._details = "Key and model are good; xAI's prices differ from the price list: mend PRICES_FILE."

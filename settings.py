"""The environment, read once and checked: a value out of range or an unknown name in `.env` stops the start."""

from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from dotenv.parser import parse_stream
from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

GrokMode = Literal["mock", "real"]


class Settings(BaseSettings):
    """Every setting with its default, bounds and unit; `.env.example` and the README's table list the same names."""

    model_config = SettingsConfigDict(
        env_file=".env", frozen=True, extra="forbid", env_ignore_empty=True, hide_input_in_errors=True
    )

    grok_key: SecretStr | None = Field(
        default=None,
        validation_alias=AliasChoices("GROK_KEY", "GROK_API_KEY", "XAI_API_KEY"),
        description="xAI API key. Without one the offline analyzer answers.",
    )
    grok_mode: GrokMode | None = Field(default=None, description="mock or real. Default: real with a key, else mock.")
    grok_model: str = Field(default="grok-4.3", min_length=1, description="Model asked for.")
    grok_base_url: str = Field(default="https://api.x.ai/v1", description="https, or http to a loopback address.")
    grok_max_concurrency: int = Field(default=10, ge=1, le=1000, description="Grok calls in flight at a time.")
    grok_calls_per_second: int = Field(default=10, ge=1, le=1000, description="Grok calls started in any 1 s window.")
    grok_timeout_seconds: float = Field(default=60, ge=1, le=600, description="Deadline of one Grok call, in seconds.")
    grok_cost_per_1k: float | None = Field(
        default=None, ge=0, le=100, description="USD per 1,000 tokens of any kind, in place of the price list."
    )
    grok_daily_budget_usd: float | None = Field(
        default=None, ge=0, le=1_000_000, description="USD that a day (UTC) may cost; then conversations wait."
    )
    grok_pack_size: int | None = Field(
        default=None,
        ge=1,
        le=50,
        description="Conversations in one Grok call, fixed. Default: adapts, see *_BATCH_SIZE.",
    )
    prices_file: Path | None = Field(
        default=None, description="What each model costs. Default: prices.yaml beside the service."
    )
    prefilter_audit: float = Field(
        default=0.02, ge=0, le=1, description="Share of conversations that need no Grok, read by it all the same."
    )
    cascade_confidence: float | None = Field(
        default=None, ge=0, le=1, description="Local answers at least this sure stand, and Grok is not asked."
    )
    canary_share: float = Field(
        default=0.01, ge=0, le=1, description="Share of conversations read in a pack that are read again alone."
    )
    cache_days: float = Field(
        default=30, ge=0, le=3650, description="Days for which an answer serves equal texts; 0 for none."
    )

    database_url: str = Field(
        default="sqlite+aiosqlite:///./insights.db",
        repr=False,
        description="sqlite:///FILE or postgresql://USER:PASSWORD@HOST/DB.",
    )
    api_url: str = Field(default="http://localhost:8000", description="Where ingest_data.py sends conversations.")
    host: str = Field(default="127.0.0.1", description="Address to listen on; 0.0.0.0 in the container.")
    port: int = Field(default=8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    environment: Literal["development", "test", "production"] = Field(
        default="development",
        description="development, test or production, which asks for keys; named in every log line.",
    )
    failpoints: str | None = Field(
        default=None, description="Faults to play, for tests of the service itself; see TESTING.md."
    )
    debug: bool = Field(default=False, description="Log at DEBUG, whatever LOG_LEVEL says.")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="DEBUG, INFO, WARNING or ERROR."
    )

    rate_limit_requests: int = Field(
        default=100, ge=1, le=10_000_000, description="Requests admitted in any window, all clients together."
    )
    rate_limit_window_seconds: float = Field(default=1, ge=0.1, le=3600, description="Length of that window, in s.")
    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="Networks (comma list of CIDR) whose X-Forwarded-For is believed."
    )
    api_keys: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        default=(), description="Comma list of entries that `python -m access create` prints; then keys are asked for."
    )
    api_keys_file: Path | None = Field(
        default=None, description="File of such entries, one a line; read again when it changes."
    )
    allow_anonymous: bool = Field(
        default=False, description="Start in production without any key: whoever reaches the service may do all."
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="Comma list of origins that browsers may call from."
    )

    batch_size: int = Field(default=10, ge=1, le=500, description="Conversations claimed at a time.")
    poll_interval_seconds: float = Field(default=5, ge=0.05, le=3600, description="Idle poll of the queue, in seconds.")
    min_batch_size: int = Field(default=1, ge=1, le=50, description="Fewest conversations in one Grok call.")
    start_batch_size: int = Field(default=5, ge=1, le=50, description="Conversations in one Grok call at the start.")
    max_batch_size: int = Field(default=50, ge=1, le=50, description="Most conversations in one Grok call.")
    error_threshold: int = Field(default=5, ge=1, le=1000, description="Failed calls in a row that open the breaker.")
    circuit_breaker_cooldown_seconds: float = Field(
        default=10, ge=0.1, le=3600, description="How long an open breaker waits before it probes, in seconds."
    )
    lease_seconds: float = Field(
        default=60, ge=1, le=3600, description="After so long another host takes what a dead one was reading."
    )
    max_attempts: int = Field(default=3, ge=1, le=10, description="Unusable answers after which a row is failed.")
    retention_days: float | None = Field(
        default=None, gt=0, le=36_500, description="Days for which conversations are kept once taken in; then erased."
    )
    topics_file: Path | None = Field(
        default=None, description="The topics and their patterns. Default: topics.yaml beside the service."
    )

    @field_validator("log_level", mode="before")
    @classmethod
    def _take_any_case(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value

    @field_validator("grok_key", mode="before")
    @classmethod
    def _strip_key(cls, value: object) -> object:
        """A key ends up in a header: a blank or a line end around it would break every call."""
        if not isinstance(value, str):
            return value
        key = value.strip()
        if not (key.isascii() and key.isprintable() and " " not in key):
            raise ValueError("must be printable ASCII without blanks")
        return key or None

    @field_validator("grok_model")
    @classmethod
    def _refuse_a_blank_model(cls, model: str) -> str:
        if not model.strip():
            raise ValueError("must name a model")
        return model.strip()

    @field_validator("trusted_proxies", "api_keys", "cors_origins", mode="before")
    @classmethod
    def _split_commas(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("api_keys")
    @classmethod
    def _refuse_short_keys(cls, keys: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        if any(len(key.get_secret_value()) < 16 for key in keys):
            raise ValueError("every key needs at least 16 characters")
        return keys

    @field_validator("trusted_proxies")
    @classmethod
    def _refuse_what_is_no_network(cls, networks: tuple[str, ...]) -> tuple[str, ...]:
        for network in networks:
            ip_network(network)
        return networks

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if not self.min_batch_size <= self.start_batch_size <= self.max_batch_size:
            raise ValueError("MIN_BATCH_SIZE <= START_BATCH_SIZE <= MAX_BATCH_SIZE must hold")
        if self.failpoints and self.environment == "production":
            raise ValueError("FAILPOINTS breaks the service on purpose: remove it, or ENVIRONMENT=production")
        if self.grok_mode == "real" and self.grok_key is None:
            raise ValueError("GROK_MODE=real needs GROK_KEY; without a key use GROK_MODE=mock")
        address = urlsplit(self.grok_base_url)
        if address.username or address.query or address.fragment or address.port == 0:  # a port out of range raises
            raise ValueError("GROK_BASE_URL must be scheme, host, port and path alone")
        local = address.scheme == "http" and address.hostname in {"127.0.0.1", "localhost", "::1"}
        if not (local or (address.scheme == "https" and address.hostname)):
            raise ValueError("GROK_BASE_URL must be https://, or http:// to a loopback address")
        return self

    @property
    def effective_grok_mode(self) -> GrokMode:
        return self.grok_mode or ("real" if self.grok_key else "mock")


def check_env_file(path: Path = Path(".env")) -> None:
    """Raises ValueError for a line that cannot be read: left out, it would leave its setting at the default."""
    if path.is_file():
        with path.open(encoding="utf-8") as file:
            broken = [str(binding.original.line) for binding in parse_stream(file) if binding.error]
        if broken:
            raise ValueError(f".env: line {', '.join(broken)} cannot be read; mend its quotes, or remove it.")


def describe_problems(error: ValidationError) -> str:
    """One line per wrong setting, by its environment name, without the value (it may be a secret)."""
    unknown = "is no setting of this service; correct its name in .env, or remove it"
    return "\n".join(
        f"{'.'.join(map(str, item['loc'])).upper() or 'settings'}: "
        f"{unknown if item['type'] == 'extra_forbidden' else item['msg']}"
        for item in error.errors()
    )

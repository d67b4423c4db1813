import os
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from settings import Settings, check_env_file, describe_problems

pytestmark = pytest.mark.unit

SECRET = "xai-very-secret-0123456789"
NUMBERS = {"<class 'int'>", "<class 'float'>", "float | None"}
NAMES = {name.upper() for name in Settings.model_fields} | {"GROK_API_KEY", "XAI_API_KEY"}


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting in the environment, and no `.env` but the test's own."""
    for name in NAMES & set(os.environ):
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def read_dotenv(*lines: str) -> Settings:
    Path(".env").write_text("\n".join(lines), encoding="utf-8")
    return Settings()


def problems_of(*lines: str) -> str:
    with pytest.raises(ValidationError) as refusal:
        read_dotenv(*lines)
    return describe_problems(refusal.value)


def test_without_any_setting_the_service_starts_offline() -> None:
    settings = Settings()

    assert (settings.effective_grok_mode, settings.port, settings.api_keys) == ("mock", 8000, ())


@pytest.mark.parametrize("name", ["GROK_KEY", "GROK_API_KEY", "XAI_API_KEY", "grok_key"])
def test_the_key_has_three_names_and_turns_grok_on(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, SECRET)
    settings = Settings()

    assert settings.effective_grok_mode == "real"
    assert settings.grok_key is not None
    assert settings.grok_key.get_secret_value() == SECRET


@pytest.mark.parametrize("name", ["GROK_KEY", "GROK_API_KEY", "XAI_API_KEY"])
def test_the_key_may_stand_in_dotenv_under_each_name(name: str) -> None:
    assert read_dotenv(f"{name}={SECRET}").effective_grok_mode == "real"


def test_a_key_with_mock_mode_stays_offline() -> None:
    assert read_dotenv(f"GROK_KEY={SECRET}", "GROK_MODE=mock").effective_grok_mode == "mock"


def test_an_empty_value_is_the_default() -> None:
    settings = read_dotenv("GROK_KEY=", "PORT=", "API_KEYS=")

    assert (settings.effective_grok_mode, settings.port, settings.api_keys) == ("mock", 8000, ())


def test_the_environment_goes_before_dotenv(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "9000")

    assert read_dotenv("PORT=8001").port == 9000


def test_a_foreign_name_in_the_environment_is_nobodys_business(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATCH_SIZES", "12")

    assert Settings().batch_size == 10


@pytest.mark.parametrize(
    ("line", "named"),
    [
        pytest.param("BATCHSIZE=12", "BATCHSIZE", id="an unknown name"),
        pytest.param("BATCH_SIZE=0", "BATCH_SIZE", id="too small"),
        pytest.param("BATCH_SIZE=501", "BATCH_SIZE", id="too large"),
        pytest.param("BATCH_SIZE=ten", "BATCH_SIZE", id="no number"),
        pytest.param("BATCH_SIZE=1.5", "BATCH_SIZE", id="a fraction of a row"),
        pytest.param("PORT=65536", "PORT", id="a port there is not"),
        pytest.param("GROK_CALLS_PER_SECOND=0", "GROK_CALLS_PER_SECOND", id="no call at all"),
        pytest.param("GROK_TIMEOUT_SECONDS=nan", "GROK_TIMEOUT_SECONDS", id="a time that is no number"),
        pytest.param("GROK_TIMEOUT_SECONDS=inf", "GROK_TIMEOUT_SECONDS", id="for ever"),
        pytest.param("GROK_COST_PER_1K=-1", "GROK_COST_PER_1K", id="a negative price"),
        pytest.param("GROK_MODE=fake", "GROK_MODE", id="a mode there is not"),
        pytest.param("GROK_MODE=real", "GROK_KEY", id="real without a key"),
        pytest.param("LOG_LEVEL=loud", "LOG_LEVEL", id="a level there is not"),
        pytest.param("ENVIRONMENT=prod", "ENVIRONMENT", id="an environment there is not"),
        pytest.param("DEBUG=perhaps", "DEBUG", id="neither yes nor no"),
        pytest.param("START_BATCH_SIZE=50\nMAX_BATCH_SIZE=10", "START_BATCH_SIZE", id="a start above the maximum"),
        pytest.param("MIN_BATCH_SIZE=6", "MIN_BATCH_SIZE", id="a minimum above the start"),
        pytest.param("GROK_BASE_URL=http://api.x.ai/v1", "GROK_BASE_URL", id="a key in the clear"),
        pytest.param("GROK_BASE_URL=http://127.0.0.1.evil.example", "GROK_BASE_URL", id="a host that looks like ours"),
        pytest.param(
            "GROK_BASE_URL=http://localhost@evil.example", "GROK_BASE_URL", id="a user that looks like a host"
        ),
        pytest.param("API_KEYS=short", "API_KEYS", id="a key too short"),
        pytest.param("API_KEYS=long-enough-0123456789,short", "API_KEYS", id="one key of two too short"),
        pytest.param("TRUSTED_PROXIES=10.0.0.0/99", "TRUSTED_PROXIES", id="a network there is not"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named(line: str, named: str) -> None:
    assert named in problems_of(line)


def test_every_wrong_setting_is_named_at_once() -> None:
    problems = problems_of("PORT=0x1", "BATCH_SIZE=0", "NOSUCH=1").splitlines()

    assert [problem.split(":")[0] for problem in sorted(problems)] == ["BATCH_SIZE", "NOSUCH", "PORT"]


@pytest.mark.parametrize(
    "url", ["https://api.x.ai/v1", "http://127.0.0.1:9/v1", "http://localhost:9", "http://[::1]:9"]
)
def test_grok_is_called_over_tls_or_on_this_machine(url: str) -> None:
    assert read_dotenv(f"GROK_BASE_URL={url}").grok_base_url == url


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        pytest.param("CORS_ORIGINS=https://a.example", ("https://a.example",), id="one"),
        pytest.param("CORS_ORIGINS=https://a.eu , https://b.eu,", ("https://a.eu", "https://b.eu"), id="two"),
        pytest.param("CORS_ORIGINS=,", (), id="none"),
    ],
)  # fmt: skip
def test_a_list_is_written_with_commas(line: str, parts: tuple[str, ...]) -> None:
    assert read_dotenv(line).cors_origins == parts


def test_several_api_keys_may_live_at_once() -> None:
    keys = read_dotenv("API_KEYS=first-key-0123456789, second-key-0123456789").api_keys

    assert [key.get_secret_value() for key in keys] == ["first-key-0123456789", "second-key-0123456789"]


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param(["API_KEYS=sesame"], id="a short API key"),
        pytest.param(["API_KEYS=sesame-0123456789,sesame"], id="a short one after a good one"),
        pytest.param(["GROK_KEY=sesame", "PORT=-1"], id="a Grok key beside something wrong"),
        pytest.param(["DATABASE_URL=postgresql://user:sesame@host/db", "PORT=-1"], id="a password beside it"),
        pytest.param(["GROK_KEYS=sesame"], id="a key under a wrong name"),
        pytest.param(["GROK_KEY=sesame", "START_BATCH_SIZE=50", "MAX_BATCH_SIZE=2"], id="a rule across settings"),
        pytest.param(["GROK_BASE_URL=http://user:sesame@evil.example"], id="a password in an address"),
    ],
)
def test_no_message_repeats_a_secret(lines: list[str]) -> None:
    with pytest.raises(ValidationError) as refusal:
        read_dotenv(*lines)

    assert "sesame" not in describe_problems(refusal.value)
    assert "sesame" not in str(refusal.value)  # what a traceback would show


def test_settings_that_are_printed_show_no_secret() -> None:
    settings = read_dotenv("GROK_KEY=sesame-0123456789", "API_KEYS=sesame-0123456789")

    assert "sesame" not in repr(settings)


def test_settings_stay_as_they_were_read() -> None:
    with pytest.raises(ValidationError):
        setattr(Settings(), "port", 1)  # noqa: B010 - the type checkers refuse the plain assignment already


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
def test_every_setting_says_what_it_is_for(name: str) -> None:
    field = Settings.model_fields[name]

    assert (field.description or "").endswith(".")
    assert not field.is_required()


@pytest.mark.parametrize(
    "name", [name for name, field in Settings.model_fields.items() if str(field.annotation) in NUMBERS]
)
def test_every_number_has_a_lower_and_an_upper_bound(name: str) -> None:
    limits = Settings.model_fields[name].metadata
    bounds: set[Any] = {bound for limit in limits for bound in ("ge", "le", "gt", "lt") if hasattr(limit, bound)}

    assert len(bounds) == 2


@pytest.mark.parametrize("key", ["  xai-test-key-0123456789\n", "xai-test-key-0123456789"])
def test_blanks_around_the_key_are_no_part_of_it(key: str) -> None:
    settings = Settings(_env_file=None, GROK_KEY=key)  # type: ignore[call-arg]  # pydantic-settings' own argument

    assert settings.grok_key is not None
    assert settings.grok_key.get_secret_value() == "xai-test-key-0123456789"


@pytest.mark.parametrize("key", ["xai-\u00fc-0123456789", "xai two words"])
def test_a_key_that_no_header_can_carry_is_refused(key: str) -> None:
    with pytest.raises(ValidationError, match="printable ASCII"):
        Settings(_env_file=None, GROK_KEY=key)  # type: ignore[call-arg]  # pydantic-settings' own argument


def test_the_log_level_may_be_written_small() -> None:
    assert Settings(_env_file=None, log_level="info").log_level == "INFO"  # type: ignore[call-arg,arg-type]


def test_a_line_of_the_file_that_cannot_be_read_stops_the_start(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("PORT=8001\nGROK_KEY='xai-never-closed\nGROK_DAILY_BUDGET_USD=5\n")

    with pytest.raises(ValueError, match="line 2 cannot be read"):
        check_env_file(file)


def test_a_file_that_can_be_read_and_one_that_is_not_there_pass(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    check_env_file(file)
    file.write_text("# words\nPORT=8001\nGROK_KEY='xai-closed'\n\nDEBUG=\n")

    check_env_file(file)


@pytest.mark.parametrize(
    "address", ["https://user:word@api.x.ai/v1", "https://api.x.ai/v1?x=1", "http://127.0.0.1:99999/v1"]
)
def test_an_address_of_grok_is_an_address_alone(address: str) -> None:
    with pytest.raises(ValidationError):
        Settings(grok_base_url=address)


def test_a_blank_model_is_none() -> None:
    with pytest.raises(ValidationError, match="must name a model"):
        Settings(grok_model=" ")

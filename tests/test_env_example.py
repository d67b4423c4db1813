"""`.env.example` and `settings.Settings` say the same."""

import re
from itertools import pairwise
from pathlib import Path

import pytest

from settings import Settings

pytestmark = pytest.mark.unit

LINES = (Path(__file__).parent.parent / ".env.example").read_text(encoding="utf-8").splitlines()
SETTING = re.compile(r"#([A-Z][A-Z0-9_]*)=(.*)")
LISTED = [match for line in LINES if (match := SETTING.fullmatch(line))]


@pytest.fixture
def _no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [*Settings.model_fields, "grok_api_key", "xai_api_key"]:
        monkeypatch.delenv(name.upper(), raising=False)
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def test_the_example_lists_every_setting_once_and_no_other() -> None:
    assert sorted(match[1] for match in LISTED) == sorted(name.upper() for name in Settings.model_fields)


def test_every_setting_in_the_example_has_its_words_above_it() -> None:
    above = [comment for comment, line in pairwise(LINES) if SETTING.fullmatch(line)]

    assert [comment for comment in above if not re.fullmatch(r"# .+\.", comment)] == []


@pytest.mark.usefixtures("_no_settings")
def test_the_example_with_every_line_uncommented_changes_nothing(tmp_path: Path) -> None:
    without = Settings()
    (tmp_path / ".env").write_text("\n".join(f"{match[1]}={match[2]}" for match in LISTED), encoding="utf-8")

    assert Settings() == without

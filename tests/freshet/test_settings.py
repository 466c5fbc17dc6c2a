"""The settings: where a value comes from, what is refused, and that the reference page is current."""

import re
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from freshet.cli.settings import page, strangers
from freshet.settings import Settings, SettingsError, get_settings
from freshet.stack.home import ensure_key, write_env

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import os

    for name in [name for name in os.environ if name.startswith("FRESHET_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("FRESHET_HOME", str(tmp_path))


def test_folders_and_stores_follow_home(tmp_path: Path) -> None:
    made = Settings()
    assert made.archive_dir == tmp_path / "archive"
    assert made.mlflow_uri == f"sqlite:///{tmp_path}/mlflow.db"
    assert Settings(archive_dir=Path("/elsewhere")).archive_dir == Path("/elsewhere")


def test_a_relative_home_becomes_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert Settings(home=Path("here")).home == tmp_path / "here"


def test_argument_before_environment_before_file_before_default(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert Settings().partitions == 4
    write_env(Settings(partitions=5))
    assert Settings().partitions == 5
    monkeypatch.setenv("FRESHET_PARTITIONS", "6")
    assert Settings().partitions == 6
    assert Settings(partitions=7).partitions == 7


def test_the_file_keeps_secrets_to_its_owner_and_brings_back_any_text(tmp_path: Path) -> None:
    odd = "a'b\\c #d \"e$f"
    write_env(Settings(api_key=SecretStr(odd)))
    assert (tmp_path / "stack.env").stat().st_mode & 0o077 == 0
    read = Settings().api_key
    assert read is not None
    assert read.get_secret_value() == odd


def test_environment_for_children_gives_the_same_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Settings(
        partitions=3, api_key=SecretStr("k"), instance="w1", redis_url="redis://127.0.0.1:1/2", serve_port=4000
    )
    for name, value in made.as_env().items():
        monkeypatch.setenv(name, value)
    assert Settings().plain() == made.plain()


def test_secrets_are_not_shown() -> None:
    assert "hush" not in repr(Settings(api_key=SecretStr("hush"), bundle_key=SecretStr("hush")))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("dedup_window", 5000),
        ("dedup_window", 0),
        ("kafka", "no-port"),
        ("redis_url", "http://x"),
        ("partitions", 0),
        ("serve_port", 70_000),
        ("log_level", "LOUD"),
    ],
)
def test_a_wrong_value_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(ValidationError, match=field):
        Settings(**{field: value})


def test_a_name_that_is_no_setting_is_refused_as_argument_and_reported_from_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(ValidationError, match="partitons"):
        Settings(partitons=3)
    monkeypatch.setenv("FRESHET_PARTITONS", "3")
    assert strangers() == ["FRESHET_PARTITONS"]


def test_every_setting_is_read_somewhere() -> None:
    rooms = ("bentos", "feature_repo", "freshet", "monitoring", "streams", "training")
    files = [file for room in rooms for kind in ("py", "yaml") for file in (ROOT / room).rglob(f"*.{kind}")]
    text = "".join(file.read_text() for file in files)
    assert [n for n in Settings.model_fields if not re.search(rf"\.{n}\b|{{FRESHET_{n.upper()}}}", text)] == []


def test_without_a_key_nothing_is_signed_and_up_makes_one(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="freshet up"):
        Settings().signing_key()
    ensure_key(tmp_path)
    first = Settings().signing_key()
    ensure_key(tmp_path)
    assert Settings().signing_key() == first
    assert len(first) == 64
    assert (tmp_path / "bundle.key").stat().st_mode & 0o077 == 0


def test_topic_names_carry_the_prefix() -> None:
    assert Settings(topic_prefix="a-").topic("events") == "a-events"


def test_read_once_per_process(monkeypatch: pytest.MonkeyPatch) -> None:
    get_settings.cache_clear()
    first = get_settings()
    monkeypatch.setenv("FRESHET_PARTITIONS", "9")
    assert get_settings() is first
    get_settings.cache_clear()


def test_every_setting_says_what_it_is_for() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


def test_the_reference_page_is_current() -> None:
    assert (ROOT / "docs/reference/settings.md").read_text() == page(), (
        "run: freshet settings --markdown > docs/reference/settings.md"
    )

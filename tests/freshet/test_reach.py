"""Commands ask for their servers as they will use them, and show no password."""

import pytest
from redis import Redis

from freshet.cli.exits import Refusal
from freshet.cli.reach import require
from freshet.settings import Settings, without_password


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("redis://:secret@host:6379/0", "redis://:***@host:6379/0"),
        ("rediss://ada:se:cret@host/0", "rediss://ada:***@host/0"),
        ("postgresql+psycopg://freshet:secret@db:5432/feast", "postgresql+psycopg://freshet:***@db:5432/feast"),
        ("redis://127.0.0.1:6379/0", "redis://127.0.0.1:6379/0"),
        ("/data/registry.db", "/data/registry.db"),
    ],
)
def test_an_address_is_shown_without_its_password(address: str, shown: str) -> None:
    assert without_password(address) == shown


def test_a_redis_with_a_password_is_asked_with_it(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    with Redis.from_url(settings.redis_url) as client:
        client.acl_setuser("guest", enabled=True, passwords=["+right"], commands=["+ping", "+client"])
    place = settings.redis_url.removeprefix("redis://")
    monkeypatch.setenv("FRESHET_REDIS_URL", "is set")
    require(settings.model_copy(update={"redis_url": f"redis://guest:right@{place}"}), "redis")
    with pytest.raises(Refusal, match="redis does not answer") as refusal:
        require(settings.model_copy(update={"redis_url": f"redis://guest:wrong@{place}"}), "redis")
    assert "wrong@" not in str(refusal.value)


def test_a_server_that_is_not_there_is_named_with_its_setting(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FRESHET_SERVE_URL", "is set")
    with pytest.raises(Refusal, match="set FRESHET_SERVE_URL"):
        require(settings.model_copy(update={"serve_url": "http://127.0.0.1:9"}), "serve")

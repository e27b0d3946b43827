"""The two forms of the gate's URL, and whose word counts among Sentinels."""

import runpy
from typing import Any

import pytest
import redis

from fluxgate_site.checks import gate_is_alone
from sales import redis_urls
from sales.sentinels import Watched, _believed, _Word

THREE = "one:26379,two:26380,[::1]:26381"


def test_a_url_of_sentinels_is_read() -> None:
    found = redis_urls.watched(
        f"redis+sentinel://shop:a%40b%2Fc@{THREE}/gate/3?sentinel_user=eye&sentinel_password=d%26e"
    )
    assert found == Watched(
        (("one", 26379), ("two", 26380), ("::1", 26381)),
        "gate",
        {"db": 3, "username": "shop", "password": "a@b/c"},
        {"username": "eye", "password": "d&e"},
    )
    assert redis_urls.watched("redis+sentinel://one/gate") == Watched(
        (("one", 26379),), "gate", {"db": 0}, {}
    ), "what may be left out"
    assert redis_urls.watched("redis://127.0.0.1:6379/0") is None


WRONG = [
    ("redis+sentinel://one:26379", "name of the master"),
    ("redis+sentinel://one:26379/", "name of the master"),
    ("redis+sentinel:///gate", "without a host"),
    ("redis+sentinel://one:26379,/gate", "without a host"),
    ("redis+sentinel://one:port/gate", "Port"),
    ("redis+sentinel://one:99999/gate", "Port"),
    ("redis+sentinel://one:0/gate", "port 0"),
    ("redis+sentinel://one:1,one:1/gate", "twice"),
    ("redis+sentinel://one:26379/gate/first", "not a number"),
    ("redis+sentinel://one:26379/gate/1/2", "not a number"),
    ("redis+sentinel://one:26379/gate?sentinel_pasword=x", "'sentinel_pasword'"),
    ("sentinel://one:26379/gate", "schemes"),
]


@pytest.mark.parametrize(("url", "because"), WRONG)
def test_a_wrong_url_ends_the_start_with_one_sentence(
    monkeypatch: pytest.MonkeyPatch, url: str, because: str
) -> None:
    secret = url.replace("://", "://shop:a-secret@")
    monkeypatch.setenv("FLUXGATE_GATE_URL", secret)
    with pytest.raises(SystemExit) as ended:
        runpy.run_path("fluxgate_site/settings.py")
    [_, line] = str(ended.value).splitlines()
    assert line.startswith("  FLUXGATE_GATE_URL: ")
    assert because in line
    assert "redis+sentinel://[user:password@]host:port" in line
    assert "a-secret" not in line


def test_the_cache_is_not_reached_through_sentinel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLUXGATE_CACHE_URL", "redis+sentinel://one:26379/cache")
    with pytest.raises(SystemExit, match="FLUXGATE_CACHE_URL"):
        runpy.run_path("fluxgate_site/settings.py")


@pytest.mark.parametrize(
    ("gate", "cache", "shared"),
    [
        ("redis://localhost:6379/0", "redis://127.0.0.1/1", True),
        ("redis://127.0.0.1:6379/0", "redis://127.0.0.1:6380/0", False),
        ("unix:///run/redis.sock?db=0", "unix:///run/redis.sock?db=1", True),
        ("redis+sentinel://one:1,two:2/gate", "redis://cache:6379/0", False),
        ("redis+sentinel://one:1,localhost:2/gate", "redis://127.0.0.1:2/0", True),
    ],
)
def test_gate_and_cache_are_held_apart(settings: Any, gate: str, cache: str, shared: bool) -> None:
    settings.FLUXGATE = settings.FLUXGATE.model_copy(update={"gate_url": gate, "cache_url": cache})
    assert [found.id for found in gate_is_alone()] == ["fluxgate.E003"] * shared


def said(port: int, epoch: int) -> _Word:
    return _Word(epoch, ("10.0.0.1", port))


def test_the_newest_word_about_the_master_counts() -> None:
    assert _believed("gate", [said(1, 4), said(2, 5), said(1, 4)], ["a fourth is down"]) == ("10.0.0.1", 2)
    with pytest.raises(redis.ConnectionError, match="'gate': one:1: refused"):
        _believed("gate", [], ["one:1: refused"])

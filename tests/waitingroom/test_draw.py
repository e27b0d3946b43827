"""The draw: everybody gets one place, each is as likely, and nothing can be changed later."""

import random
from collections.abc import Callable
from hashlib import sha256

import pytest

from waitingroom import draw


def _seeds(count: int) -> list[bytes]:
    rng = random.Random(20261122)
    return [draw.seed(rng.randbytes(32), "00" * 32) for _ in range(count)]


@pytest.mark.parametrize("entries", [1, 2, 3, 4, 5, 16, 17, 255, 256, 257, 4097])
def test_everybody_gets_a_place_and_no_two_the_same(entries: int) -> None:
    for seed in _seeds(3):
        assert sorted(draw.place(seed, number, entries) for number in range(entries)) == list(range(entries))


def _is_uniform(entries: int) -> bool:
    """Chi-square over 200 draws at p = 0.001 (Wilson and Hilferty), of the first and the last number and
    some others."""
    rng, bins = random.Random(entries), min(entries, 10)
    counted = [0] * bins
    for seed in _seeds(200):
        for number in {0, entries - 1, *(rng.randrange(entries) for _ in range(20))} if entries > 10 else {0}:
            counted[draw.place(seed, number, entries) * bins // entries] += 1
    widths = [-(-(each + 1) * entries // bins) - -(-each * entries // bins) for each in range(bins)]
    expected = [sum(counted) * width / entries for width in widths]
    found = sum((count - mean) ** 2 / mean for count, mean in zip(counted, expected, strict=True))
    free = bins - 1
    return bool(found < free * (1 - 2 / (9 * free) + 3.09 * (2 / (9 * free)) ** 0.5) ** 3)


@pytest.mark.parametrize("entries", [2, 3, 5, 10, 100, 100_000])
def test_every_place_is_as_likely(entries: int) -> None:
    assert _is_uniform(entries)


def test_a_draw_with_too_few_rounds_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The twin: one round leaves a half of each number where it was."""
    monkeypatch.setattr(draw, "ROUNDS", 1)
    assert not _is_uniform(100_000)


def _mean_places(numbers: Callable[[int], int], entries: int = 10_000) -> tuple[float, float]:
    """The mean place of ten numbers in 200 draws, and its standard error."""
    means = [sum(draw.place(seed, numbers(n), entries) for n in range(10)) / 10 for seed in _seeds(200)]
    mean = sum(means) / 200
    return mean, (sum((each - mean) ** 2 for each in means) / 199 / 200) ** 0.5


def test_coming_first_and_coming_last_is_the_same() -> None:
    """Those who clicked at the first and at the last second before the opening have the same mean place."""
    early, early_error = _mean_places(lambda n: n)
    late, late_error = _mean_places(lambda n: 9_999 - n)
    assert abs(early - late) < 3.3 * (early_error**2 + late_error**2) ** 0.5
    for mean, error in ((early, early_error), (late, late_error)):
        assert abs(mean - 4_999.5) < 3.3 * error


def test_what_is_published_fixes_everything() -> None:
    secret = bytes(range(32))
    listed = draw.listed(draw.tag(b"salt", f"buyer-{n}") for n in range(5))
    assert draw.commitment(secret) == sha256(secret).hexdigest()
    assert draw.commitment(secret[:-1] + b"x") != draw.commitment(secret)
    assert draw.digest(listed) != draw.digest(listed.replace("a", "b", 1))
    seed = draw.seed(secret, draw.digest(listed))
    assert seed != draw.seed(secret, draw.digest(listed), "a beacon")
    assert [draw.place(seed, n, 5) for n in range(5)] == [2, 0, 3, 4, 1]  # draw.js says so too


def test_who_took_no_part_has_no_place() -> None:
    for number in (-1, 5):
        with pytest.raises(ValueError, match="not among 5 entries"):
            draw.place(b"s" * 32, number, 5)

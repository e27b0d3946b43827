"""Turns as arithmetic: for any history of the line's pace, place and time follow from each other."""

from hypothesis import given
from hypothesis import strategies as st

from waitingroom.schedule import Segment, number_at, turn_at, turn_ends_at

START = 1_700_000_000_000
_RATES = st.sampled_from([0, 0, 0.5, 1, 7, 50, 1000])


@st.composite
def histories(draw: st.DrawFn) -> list[Segment]:
    """What the keeper writes: each segment begins where the one before has come to."""
    segments = [Segment(START, 0.0, draw(_RATES))]
    for _ in range(draw(st.integers(0, 5))):
        since = segments[-1].from_time + draw(st.integers(1, 200_000))
        segments.append(Segment(since, number_at(segments, since), draw(_RATES)))
    return segments


@given(histories(), st.integers(0, 100_000))
def test_a_turn_comes_when_the_line_has_come_to_its_place(segments: list[Segment], place: int) -> None:
    begins = turn_at(segments, place)
    if begins is None:
        assert segments[-1].rate == 0
        assert number_at(segments, START + 10**9) <= place
        return
    # Not before the line has come to this place, and as soon as it goes on: no turn begins while it stands.
    assert number_at(segments, begins) >= place - 1e-6
    assert number_at(segments, begins - 2) <= place < number_at(segments, begins + 1)


@given(histories(), st.integers(0, 5_000))
def test_turns_come_in_the_order_of_places(segments: list[Segment], place: int) -> None:
    first, second = turn_at(segments, place), turn_at(segments, place + 1)
    if second is not None:
        assert first is not None
        assert first <= second


@given(histories(), st.integers(0, 5_000), st.integers(10, 300))
def test_a_turn_lasts_as_long_as_the_line_moves(segments: list[Segment], place: int, seconds: int) -> None:
    begins = turn_at(segments, place)
    if begins is None:
        return
    ends = turn_ends_at(segments, begins, seconds)
    horizon = segments[-1].from_time + 400_000 if ends is None else ends
    moving = sum(
        max(0, min(until, horizon) - max(begins, segment.from_time))
        for segment, until in zip(segments, [*(s.from_time for s in segments[1:]), horizon], strict=True)
        if segment.rate
    )
    if ends is None:
        assert segments[-1].rate == 0
        assert moving < seconds * 1000
    else:
        assert moving == seconds * 1000


@given(histories(), st.integers(0, 5_000))
def test_what_is_left_out_at_the_front_changes_no_turn_to_come(segments: list[Segment], place: int) -> None:
    now = segments[-1].from_time
    begins = turn_at(segments, place)
    if begins is None or begins > now:
        assert turn_at(segments[-1:], place) == begins


def test_before_the_opening_nobody_knows() -> None:
    assert turn_at([], 3) is None
    assert number_at([], START) == 0


def test_a_pause_delays_those_behind_it() -> None:
    line = [Segment(START, 0, 10), Segment(START + 1000, 10, 0), Segment(START + 61_000, 10, 5)]
    assert turn_at(line, 9) == START + 900
    assert turn_at(line, 10) == START + 61_000
    assert turn_at(line, 15) == START + 62_000
    assert turn_at(line[:2], 10) is None
    assert turn_ends_at(line, START + 900, 10) == START + 70_900
    assert turn_ends_at(line[:2], START + 900, 10) is None

"""The bench of the line: its page is the shipped one, its people all go home, its targets are judged."""

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from bench import line, line_fill, plot, results, targets
from bench import line_simulation as simulation
from bench.errors import Unbalanced
from bench.line_simulation import Plan, simulate
from bench.line_summary import percentile, summary
from bench.processes import CHECKOUT
from tests.bench.conftest import SMALL

PAGES = CHECKOUT / "waitingroom/static/waitingroom"


def function(script: str, name: str) -> str:
    """The text of a function of a page's module."""
    found = re.search(rf"^export function {name}\(.*?^}}", (PAGES / script).read_text(), re.M | re.S)
    assert found, f"{script} has no {name} any more"
    return found[0]


def constant(script: str, name: str) -> float:
    found = re.search(rf"\b{name} = ([\d._]+);", (PAGES / script).read_text())
    assert found, f"{script} has no {name} any more"
    return float(found[1].replace("_", ""))


def numbers(text: str) -> list[float]:
    return [float(each) for each in re.findall(r"(?<![\w.])\d+(?:\.\d+)?", text)]


# The page


def test_the_simulated_page_looks_as_often_as_the_shipped_one() -> None:
    said = [
        line.strip()
        for line in function("line.js", "secondsToNextLook").splitlines()
        if "return between(" in line
    ]
    minutes, soon = "left > {:g} * MINUTE", simulation.SOON
    assert constant("line.js", "MINUTE") == 60_000
    assert said == [
        'if (state === "closed") return between(30, 60);',
        'if (state === "your_turn") return between({:g}, {:g});'.format(*simulation.IN_TURN),
        'if (state === "paused" || state === "sold_out" || left === null) return between({:g}, {:g});'.format(
            *simulation.STANDS
        ),
        "if ({}) return between({:g}, {:g});".format(
            minutes.format(simulation.FAR[0] / 60), *simulation.FAR[1:]
        ),
        "if ({}) return between({:g}, {:g});".format(
            minutes.format(simulation.MIDDLE[0] / 60), *simulation.MIDDLE[1:]
        ),
    ]
    [last] = [line for line in function("line.js", "secondsToNextLook").splitlines() if " ? between" in line]
    assert numbers(last) == [60 / simulation.NEAR[0], *simulation.NEAR[1:], *soon]


@pytest.mark.parametrize(
    ("left", "least", "most"),
    [
        (None, 4.5, 5.5),
        (600.1, 30, 60),
        (600.0, 10, 15),
        (120.0, 3, 5),
        (30.0, 2, 2.5),
        (-1.0, 2, 2.5),
    ],
)
def test_where_the_rule_changes(left: float | None, least: float, most: float) -> None:
    assert simulation.seconds_to_next_look(left, 0.0) == least
    assert simulation.seconds_to_next_look(left, 1.0) == most


def test_the_rest_of_the_simulated_page_is_the_shipped_one_too() -> None:
    room = (PAGES / "room.js").read_text()
    hidden = f"ms = Math.max(ms, {int(simulation.HIDDEN)}_000)"
    assert f'if (document.visibilityState === "hidden") {hidden};' in room
    assert f"ms = Math.min(ms, next + {1000 * simulation.TOGETHER:.0f} * Math.random())" in room
    assert constant("line.js", "TURN_GRACE_MS") == 1000 * simulation.GRACE
    assert constant("line.js", "MARGIN") == simulation.MARGIN
    most, least, per_second = simulation.SPREAD
    assert numbers(function("line.js", "drawSpread")) == [most, least, per_second]
    grown, share, floor = 1.5, 0.6, 1.25
    delay = function("fluxgate.js", "delayMs")
    assert all(f"{text}" in delay for text in (f"{grown} **", f"grown * {share}", f"least * {floor}"))
    assert (max(1.0, grown * share), max(floor, grown)) == simulation.AGAIN


# The crowd


def test_everybody_who_came_in_has_gone_out() -> None:
    fates = simulate(SMALL).fates
    assert fates["came"] == SMALL.people == fates["bought"] + fates["left"]
    assert fates["missed"] > 0
    assert fates["left"] == pytest.approx(SMALL.leaving * SMALL.people, rel=0.2)


def test_a_day_is_the_same_when_it_is_simulated_again() -> None:
    once, again = simulate(SMALL), simulate(SMALL)
    assert (once.looks, once.tickets, once.said) == (again.looks, again.tickets, again.said)


def test_tickets_are_asked_for_at_the_door_and_in_turn() -> None:
    """Once where both are one; with a draw there is another one between them, or a few."""
    day = simulate(Plan(people=300, every=1, early=0.0, leaving=0.0, missing=0.0, paces=((0, 5.0),)))
    assert 590 <= sum(day.tickets) <= 2 * 300
    drawn = simulate(Plan(people=300, every=1, early=1.0, leaving=0.0, missing=0.0, paces=((0, 5.0),)))
    assert sum(drawn.tickets) >= 3 * 300


def test_a_page_that_nobody_sees_asks_less() -> None:
    seen, hidden = (sum(simulate(Plan(people=2000, every=1, hidden=share)).looks) for share in (0.0, 1.0))
    assert hidden < 0.8 * seen


def test_a_line_that_keeps_its_pace_says_the_truth() -> None:
    day = simulate(Plan(people=3000, every=1, paces=((0, 5.0),)))
    assert day.said
    assert not any(each.changed for each in day.said)
    assert max(abs(each.error) for each in day.said) < 0.001


def test_an_error_is_there_only_where_the_pace_has_changed() -> None:
    slower = simulate(Plan(people=3000, every=1, paces=((0, 5.0), (120, 2.0))))
    late = [each.error for each in slower.said if each.changed]
    assert late
    assert min(late) >= 0
    assert all(abs(each.error) < 0.001 for each in slower.said if not each.changed)
    assert any(each.unheard for each in slower.said)


def test_a_plan_whose_line_never_moves_again_is_refused() -> None:
    with pytest.raises(ValueError, match="the last pace"):
        simulate(Plan(people=100, every=1, paces=((0, 5.0), (10, 0.0))))


# What is made of it


def test_a_cache_asks_once_a_second_whatever_the_crowd() -> None:
    day = simulate(SMALL)
    found = summary(day, wire=1000, look_us=50.0, ticket_us=200.0)
    assert found["with"]["peak"] == 1
    assert found["with"]["bytes_peak"] == 1000
    assert found["without"]["peak"] == max(day.looks)
    assert found["without"]["bytes"] == 1000 * sum(day.looks)
    assert found["without"]["cores"] == pytest.approx(max(day.looks) * 50e-6)
    assert max(found["course"]["without"]) == found["without"]["peak"]
    assert found["eta"]["explained"] > 0.999


def test_those_who_were_followed_stand_for_the_others() -> None:
    whole, sample = (summary(simulate(Plan(people=4000, every=every)), 1000, 50.0, 200.0) for every in (1, 4))
    assert sample["fates"]["came"] == 4000
    assert sample["without"]["mean"] == pytest.approx(whole["without"]["mean"], rel=0.1)


def test_percentiles_of_few_and_of_none() -> None:
    assert [percentile([3.0, 1.0, 2.0], share) for share in (50, 90)] == [2.0, 3.0]
    assert percentile([], 50) == 0.0


def test_memory_is_what_came_with_the_people() -> None:
    assert line_fill.per_person(2_000_000, 9_400_000, 100_000) == 74.0


def test_people_have_ids_of_36_characters_and_are_all_different() -> None:
    names = {line_fill.customer(number) for number in range(1000)}
    assert len(names) == 1000
    assert {len(name) for name in names} == {36}


def test_costs_are_medians_by_what_is_compared() -> None:
    asked = [
        {"people": people, "service_us": us} for people, us in ((10, 3.0), (10, 1.0), (10, 2.0), (99, 5.0))
    ]
    assert line.costs(asked, "people") == {10: 2.0, 99: 5.0}


def test_a_disturbed_round_is_run_again_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line, "_REST_SECONDS", 0.0)

    def run(number: int) -> list[line.Asked]:
        if number in (0, 2):
            raise line.Refused("200 of 6000 requests (look) were refused")
        return [line.Asked(10, "look", number, 60.0, 0.0, 16_000.0, 1, 2)]

    found, disturbed = line.in_rounds(run, rounds=2)
    assert [each.requests for each in found] == [3, 4]  # the first good one is for the caches
    assert disturbed == 2


def test_a_service_that_goes_on_refusing_has_no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line, "_REST_SECONDS", 0.0)

    def run(number: int) -> list[line.Asked]:
        raise line.Refused("all of them")

    with pytest.raises(Unbalanced):
        line.in_rounds(run, rounds=1)


@pytest.mark.parametrize(
    ("requests", "grown", "most"), [(6000, 6000, 6000), (6150, 6000, 6000), (3000, 3190, 6000), (9000, 0, 0)]
)
def test_tickets_and_numbers_go_together(requests: int, grown: int, most: int) -> None:
    line.must_match(requests, grown, most, connections=200)


@pytest.mark.parametrize(
    ("requests", "grown", "most"), [(6201, 6000, 6000), (6000, 6001, 6000), (3000, 10, 6000), (9000, 1, 0)]
)
def test_tickets_that_are_no_numbers_mean_nothing(requests: int, grown: int, most: int) -> None:
    with pytest.raises(Unbalanced):
        line.must_match(requests, grown, most, connections=200)


# Targets, files and picture


@pytest.mark.parametrize(
    ("people", "bytes_each", "us", "asked", "error", "verdicts"),
    [
        (100_000, 199.0, 61.0, 1, 0.0, [True, True, True, True]),
        (100_000, 200.0, 63.0, 2, 1.0, [False, False, False, False]),
        (100_000, 100.0, 37.0, 1, 0.0, [True, False, True, True]),  # cheaper is not the same either
        (10_000, 100.0, 50.0, 1, 0.0, [None, None, True, True]),
    ],
)
def test_the_line_has_targets(
    found: results.Document,
    a_line: dict[str, Any],
    people: int,
    bytes_each: float,
    us: float,
    asked: int,
    error: float,
    verdicts: list[bool | None],
) -> None:
    a_line["sizes"][-1] = {"people": people, "bytes_per_person": bytes_each}
    a_line["looks"] = [
        a_line["looks"][0] | {"people": each, "service_us": cost} for each, cost in ((10, 50.0), (people, us))
    ]
    a_line["simulation"]["with"]["peak"] = asked
    a_line["simulation"]["eta"]["own_p90"] = error
    found["line"] = a_line
    assert [row.met for row in targets.limits(found)] == verdicts


def test_a_bench_of_the_line_is_kept_and_drawn_apart(
    found: results.Document, a_line: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    found |= {"line": a_line, "runs": [], "half_load": [], "durable": [], "growth": None, "whole": False}
    kept = results.save(found)
    assert kept.name == f"{found['at'][:10]}-{found['commit']}-line.json"
    assert results.picture(found).name == "line.svg"
    picture = plot.draw(results.load(kept))
    texts = {element.text for element in ElementTree.fromstring(picture).iter() if element.text}
    assert {"µs of the service per look", "people in line", "no cache", "minutes since the opening"} <= texts
    assert results.newest() is None


def test_the_picture_of_the_line_shows_the_newest_one() -> None:
    kept = [results.load(path) for path in results.FOLDER.glob("*-line.json")]
    picture = results.FOLDER / "line.svg"
    wanted = plot.draw(max(kept, key=lambda each: str(each["at"]))) if kept else None
    assert (picture.read_text() if picture.exists() else None) == wanted

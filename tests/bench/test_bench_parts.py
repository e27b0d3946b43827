"""What a bench computes from what it reads: without servers, without load."""

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench import arrivals, measuring, node, plot, results, targets, wrk
from bench.errors import Unbalanced, Unfit
from bench.figures import Figure, figure
from bench.measuring import ASKED, SCENARIOS, Knobs
from tests.bench.conftest import run

LINE = (
    'FIGURES {"requests":1200,"microseconds":2000000,"p50":900,"p95":2000,"p99":4000,"most":9000,'
    '"refused":7,"broken":0,"late":0}'
)


def figures(requests: int) -> wrk.Figures:
    return wrk.Figures(requests, 1_000_000, 1, 1, 1, 1, 0, 0, 0)


# What wrk prints


def test_the_figures_are_found_between_what_wrk_prints_besides() -> None:
    printed = f"Running 2s test\n  1 threads and 200 connections\n{LINE}\nRequests/sec: 600\n"
    read = wrk.parse(printed)
    assert (read.requests, read.seconds, read.p99, read.refused) == (1200, 2.0, 4000, 7)


@pytest.mark.parametrize("printed", ["Running 2s test\n", f"{LINE}\n{LINE}\n"])
def test_without_one_line_of_figures_there_is_none(printed: str) -> None:
    with pytest.raises(Unfit):
        wrk.parse(printed)


# Medians and percentiles


def test_a_figure_is_the_median_with_its_range() -> None:
    assert figure([30.0, 10.0, 20.0]) == Figure(20.0, 10.0, 30.0)
    assert figure([30.0, 10.0, 20.0]).spread == 1.0
    with pytest.raises(ValueError, match="no runs"):
        figure([])


def test_a_percentile_is_one_of_the_latencies() -> None:
    hundred = [number / 1000 for number in range(1, 101)]
    assert [arrivals.percentile(hundred, share) for share in (50, 99, 100)] == [50_000, 99_000, 100_000]
    assert arrivals.percentile([0.007], 99) == 7000


# Runs that mean nothing


def test_a_run_counts_when_both_ends_have_counted_the_same() -> None:
    measuring.must_be(SCENARIOS["accepted"], figures(1000), {"accepted": 1150}, Knobs())
    admitted = {"turned_away": 990, "accepted": 12}  # by 4 sales, one a second, and 2 s saved up
    measuring.must_be(SCENARIOS["turned away"], figures(1000), admitted, Knobs())


@pytest.mark.parametrize(
    ("scenario", "answers"),
    [
        ("accepted", {"accepted": 999}),  # wrk has read more answers than were given
        ("accepted", {"accepted": 1201}),  # more were given than connections can have in flight
        ("accepted", {"accepted": 1000, "unavailable": 1}),
        ("sold out", {"sold_out": 999, "accepted": 1}),
        ("turned away", {"turned_away": 980, "accepted": 20}),
    ],
)
def test_a_run_with_other_answers_is_refused(scenario: str, answers: dict[str, int]) -> None:
    with pytest.raises(Unbalanced):
        measuring.must_be(SCENARIOS[scenario], figures(1000), answers, Knobs())


# Targets and picture


def test_targets_are_judged_by_medians(found: results.Document) -> None:
    judged = {(row.what, row.against): (row.ratio, row.met) for row in targets.judge(found)}
    assert judged[("accepted", targets.DESIGNED)] == (6.0, True)
    assert judged[("accepted", targets.TUNED)] == (1.5, False)
    assert judged[("durable", "reference, worker")] == (10.0, True)
    ratio, met = judged[("p99 at half load", targets.TUNED)]
    assert ratio == pytest.approx(8 / 9)
    assert not met
    assert ("p99 at half load", targets.DESIGNED) not in judged  # not measured: not claimed


@pytest.mark.parametrize(
    ("refused", "grown", "met"),
    [(1_000_000, 900_000, True), (1_000_000, 1_100_000, False), (999_999, 0, None)],
)
def test_memory_counts_after_a_million_refusals(
    found: results.Document, refused: int, grown: int, met: bool | None
) -> None:
    found["memory"] = {"refused": refused, "before": 2_000_000, "after": 2_000_000 + grown}
    assert [limit.met for limit in targets.limits(found)] == [met]


def test_refusals_that_ask_redis_are_held_against_the_reference_that_always_asks(
    found: results.Document,
) -> None:
    found["runs"].append(run(ASKED.name, targets.OURS, 30_000.0))
    judged = {(row.what, row.against): (row.ratio, row.wanted, row.met) for row in targets.judge(found)}
    assert judged[(ASKED.name, targets.DESIGNED)] == (3.0, 2.0, True)
    assert judged[(ASKED.name, targets.TUNED)] == (0.75, 2.0, False)


def test_another_door_has_a_limit_of_its_own(found: results.Document) -> None:
    found["other_doors"] = [{"door": "health", "p99": 199_999}, {"door": "admin", "p99": 200_000}]
    assert [(limit.what, limit.met) for limit in targets.limits(found)] == [
        ("p99 of health under full load", True),
        ("p99 of admin under full load", False),
    ]


def test_the_picture_is_drawn_from_the_kept_document_alone(
    found: results.Document, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    kept = results.save(found)
    assert kept.name == f"{found['at'][:10]}-{found['commit']}.json"
    picture = plot.draw(results.load(kept))
    texts = [element.text for element in ElementTree.fromstring(picture).iter() if element.text]
    assert {"accepted, requests per CPU-s", "durable, orders per s", "60,000", "10,000"} <= set(texts)
    assert sum(text == "ours, hot" for text in texts) == 4  # three kinds of answers, and half load
    assert results.newest() == kept


# The reference's packages


def test_the_lock_of_the_reference_pins_everything_and_names_no_mirror() -> None:
    text = (node.SOURCE / "package-lock.json").read_text()
    packages = {name: facts for name, facts in json.loads(text)["packages"].items() if name}
    assert len(packages) > 20
    for name, facts in packages.items():
        assert facts["integrity"].startswith("sha512-"), name
        assert facts.get("resolved", "https://registry.npmjs.org/").startswith("https://registry.npmjs.org/")


def test_both_generators_send_the_same_order(tmp_path: Path) -> None:
    buyers = tmp_path / "buyers"
    buyers.write_text("ann token-of-ann\nbob token-of-bob\n")
    order = arrivals.Order("", "ours", str(buyers), ["one", "two"], "k-", 1.0, 1.0, 1, 0)
    heads, tails = arrivals.requests(order)
    text = (heads[1] + b"7" + tails[1]).decode()
    head, _, body = text.partition("\r\n\r\n")
    assert head.splitlines()[0] == "POST /api/v1/sales/two/orders HTTP/1.1"
    assert "Authorization: Bearer token-of-bob" in head.splitlines()
    assert head.splitlines()[-1] == "Idempotency-Key: k-7"
    assert body == '{"quantity":1}'
    names = {line.partition(":")[0] for line in head.splitlines()[1:]}
    script = wrk.SCRIPT.read_text()
    assert all(f"{name}: " in script for name in names)

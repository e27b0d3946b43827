"""The tables of the line."""

from collections.abc import Iterator
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.line import NEW


def show(line: dict[str, Any], console: Console) -> None:
    document = line["document"]
    console.print(_looks(line))
    console.print(_tickets(line))
    console.print(
        f"the line document has {document['body']:,} bytes, {document['wire']:,} with its head, with "
        f"{document['segments']} segments\nlines were filled through join.lua, many tickets in a call; "
        f"rounds run again because requests were refused: {line['disturbed']}\n"
    )
    if simulated := line.get("simulation"):
        console.print(_simulated(simulated))
        for words in _words(simulated):
            console.print(words, soft_wrap=True)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("", no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _looks(line: dict[str, Any]) -> Table:
    table = _table(
        "a look at the line (medians, lowest to highest run)",
        "bytes in Redis each", "µs of the service", "", "per CPU-s", "µs of Redis", "p99 ms",
    )  # fmt: skip
    for size in line["sizes"]:
        runs = [each for each in line["looks"] if each["people"] == size["people"]]
        table.add_row(f"{size['people']:,} people", f"{size['bytes_per_person']:.0f}", *_costs(runs))
    return table


def _tickets(line: dict[str, Any]) -> Table:
    table = _table("a ticket by HTTP", "µs of the service", "", "per CPU-s", "µs of Redis")
    for what in dict.fromkeys(each["what"] for each in line["tickets"]):
        costs = _costs([each for each in line["tickets"] if each["what"] == what])
        table.add_row(what, *list(costs)[:-1])
    return table


def _costs(runs: list[dict[str, Any]]) -> Iterator[str]:
    cpu = [each["service_us"] for each in runs]
    yield f"{median(cpu):.1f}"
    yield f"{min(cpu):.1f}-{max(cpu):.1f}"
    yield f"{median(each['per_cpu_second'] for each in runs):,.0f}"
    yield f"{median(each['gate_us'] for each in runs):.2f}"
    yield f"{median(each['p99'] for each in runs) / 1000:.1f}"


def _simulated(found: dict[str, Any]) -> Table:
    later, minutes = "later", found["seconds"] / 60
    table = _table(
        f"{found['plan']['people']:,} people in {minutes:.0f} minutes of virtual time, at the origin",
        "per s, mean", "worst second", later, "MB/s, worst", later, "cores, worst", later,
    )  # fmt: skip
    for name, key in (("looks, no cache", "without"), ("looks, a 1 s cache", "with"), ("tickets", "tickets")):
        row = found[key]
        wire = found["wire"] / 1e6
        sent = (
            [f"{row[each] * wire:,.3f}" for each in ("peak", "peak_later")] if key != "tickets" else ["", ""]
        )
        table.add_row(
            name, f"{row['mean']:,.0f}", f"{row['peak']:,}", f"{row['peak_later']:,}", *sent,
            f"{row['cores']:,.2f}", f"{row['cores_later']:,.2f}",
        )  # fmt: skip
    return table


def _words(found: dict[str, Any]) -> Iterator[str]:
    plan, fates, eta, each = found["plan"], found["fates"], found["eta"], found["per_person"]
    yield (
        f"later: from a minute after the opening on. Every {plan['every']}th person was followed "
        f"({found['followed']:,}), requests and people are scaled; the cache is one node"
    )
    yield (
        f"a person looks {each['looks']:.0f} times and asks {each['tickets']:.1f} times for a ticket; "
        f"{fates['came']:,} came, {fates['bought']:,} bought, {fates['left']:,} left, "
        f"{fates.get('missed', 0):,} missed a turn and had another"
    )
    yield (
        f"with half of the wait over the page was wrong by {eta['median']:,.0f} s (median), "
        f"{eta['p90']:,.0f} s (90th percentile): {eta['explained']:.1%} of it because the pace was changed "
        f"afterwards, for {eta['changed']:.0%} of the people; for the others by {eta['own_p90']:.3f} s "
        f"(90th percentile), {eta['own_most']:.3f} s at most"
    )
    yield (
        f"{eta['unheard']:.1%} had not heard yet of a change; the turn came within the range that the page "
        f"shows for {eta['in_range']:.0%}; {eta['unknown']:,} were told that nothing is known"
    )


def headline(line: dict[str, Any]) -> str:
    """While it runs."""
    new = [each["service_us"] for each in line["tickets"] if each["what"] == NEW]
    last = line["sizes"][-1]
    return (
        f"{last['people']:,} people in line: {last['bytes_per_person']:.0f} bytes each; "
        f"a new ticket {median(new):.0f} µs"
    )

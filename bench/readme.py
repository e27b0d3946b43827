"""The figures in README.md: a table made of the newest whole bench, between two marks."""

from collections.abc import Iterable
from itertools import groupby

from bench import machine, results, targets
from bench.figures import Figure
from bench.measuring import ASKED
from bench.processes import CHECKOUT
from bench.results import Document
from bench.targets import Limit, Target

README = CHECKOUT / "README.md"
BEGIN, END = "<!-- bench: begin -->", "<!-- bench: end -->"
_ROWS = {
    "accepted": "accepted, per CPU-second",
    "sold out": "sold out, per CPU-second",
    ASKED.name: "sold out, Redis asked every time",
    "turned away": "turned away, per CPU-second",
    targets.P99: "accepted at half load, p99 in ms",
    targets.DURABLE: "written into PostgreSQL, per second; Node: a worker that commits each",
    targets.ORIGINAL: "the original's load: requests answered",
}


def write() -> None:
    """Raises ValueError where README.md has no such marks."""
    README.write_text(replaced(README.read_text(), block()))


def replaced(text: str, between: str) -> str:
    """The text with something else between its marks. Raises ValueError."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"README.md has no {BEGIN} and {END}")
    return f"{before}{begin}\n{between}\n{end}{after}"


def block() -> str:
    """What stands between the marks."""
    source = results.newest()
    if source is None:
        return "Not measured yet: `make bench` writes its figures here."
    pictures = {
        "latest.svg": "What an answer costs, Flux-Gate and Node",
        "growth.svg": "What an order costs as its sale grows",
        "line.svg": "What a person in line costs, and what a million of them ask",
    }
    drawn = [
        f"![{text}](bench/results/{name})"
        for name, text in pictures.items()
        if (results.FOLDER / name).exists()
    ]
    return "\n\n".join([*_said(results.load(source)), *drawn])


def _said(found: Document) -> list[str]:
    """Where it was measured, and the table."""
    judged, limits = targets.judge(found), targets.limits(found)
    verdicts = [row.met for row in judged] + [row.met for row in limits]
    of, changed = found["machine"], " with changes" if found["changed"] else ""
    return [
        f"Measured {found['at'][:10]} at commit `{found['commit']}`{changed}, on {of['cores']} cores of "
        f"{of['processor']}, with Python {machine.python(of)} and Node {of['node']}. Medians of alternating "
        f"runs, in brackets the lowest and the highest; \"5.00 times\" is how much better ours is. "
        f"**{verdicts.count(True)} of {len(verdicts)} targets are met.**",
        "\n".join([
            "| | Flux-Gate | Node, as designed | Node, tuned | target | |",
            "|---|---|---|---|---|---|",
            *(_against(what, list(rows)) for what, rows in groupby(judged, lambda row: row.what)),
            *(_alone(row) for row in limits),
        ]),
    ]  # fmt: skip


def _against(what: str, rows: list[Target]) -> str:
    """One thing, against one or both forms of the reference."""
    tuned = [row for row in rows if row.against == targets.TUNED]
    designed = [row for row in rows if row.against != targets.TUNED]
    wanted = [f"{row.wanted:g} times" for row in rows]
    if what == targets.P99:
        wanted = ["less"]
    elif what == targets.ORIGINAL:
        wanted = ["as many"]
    return _row(
        _ROWS[what],
        _figure(rows[0].ours),
        ", ".join(map(_theirs, designed)),
        ", ".join(map(_theirs, tuned)),
        ", ".join(dict.fromkeys(wanted)),
        _verdict(row.met for row in rows),
    )


def _alone(row: Limit) -> str:
    return _row(row.what, row.found, "", "", row.wanted, _verdict([row.met]))


def _theirs(row: Target) -> str:
    return f"{_figure(row.theirs)}: {row.ratio:.2f} times"


def _figure(value: Figure) -> str:
    digits = 0 if value.high >= 100 else 1
    range_ = f" ({value.low:,.{digits}f}-{value.high:,.{digits}f})" if value.high > value.low else ""
    return f"{value.median:,.{digits}f}{range_}"


def _verdict(met: Iterable[bool | None]) -> str:
    words = {True: "met", False: "**missed**", None: "**not measured to the end**"}
    return ", ".join(dict.fromkeys(words[each] for each in met))


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"

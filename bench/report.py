"""The tables of a bench."""

from rich.console import Console
from rich.table import Table

from bench import line_report, machine, results, targets
from bench.figures import Figure
from bench.measuring import ASKED, SCENARIOS
from bench.results import Document


def show(found: Document, console: Console) -> None:
    """Everything the document has, accepted, durable and refused apart."""
    _head(found, console)
    for scenario in (*SCENARIOS, ASKED.name):
        if names := results.sides(found, "runs", scenario):
            console.print(_answers(found, scenario, names))
    if found["half_load"]:
        console.print(_half_load(found))
    if found["original"]:
        console.print(_original(found))
    if found["durable"]:
        console.print(_durable(found))
    if found["memory"]:
        _memory(found, console)
    if found["other_doors"]:
        console.print(_other_doors(found))
    if found["growth"]:
        console.print(_growth(found))
        console.print(_side_by_side(found))
    if found.get("line"):
        line_report.show(found["line"], console)
    if judged := targets.judge(found):
        console.print(_targets(judged))
    if limits := targets.limits(found):
        console.print(_limits(limits))


def _head(found: Document, console: Console) -> None:
    of = found["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in of["packages"].items())
    changed = " with changes" if found["changed"] else ""
    console.print(f"commit {found['commit']}{changed}, {found['at']}{', quick' if found['quick'] else ''}")
    console.print(f"{of['cores']} cores of {of['processor']}, {of['system']}")
    console.print(f"Python {machine.python(of)}, {versions}; Node {of['node']}, {of['wrk']}", soft_wrap=True)


def _answers(found: Document, scenario: str, names: list[str]) -> Table:
    table = _table(
        f"{scenario} (requests; median, lowest to highest run)",
        "per CPU-s of the service", "", "per s", "core used", "p50 ms", "p95 ms", "p99 ms", "runs",
    )  # fmt: skip
    for side in names:
        get = {
            name: results.of(found, "runs", side, name, scenario)
            for name in ("per_cpu_second", "per_second", "busy", "p50", "p95", "p99")
        }
        runs = sum(1 for run in found["runs"] if (run["side"], run["scenario"]) == (side, scenario))
        cpu = get["per_cpu_second"]
        table.add_row(
            side, _count(cpu), _range(cpu), _count(get["per_second"]), _share(get["busy"]),
            _ms(get["p50"]), _ms(get["p95"]), _ms(get["p99"]), str(runs),
        )  # fmt: skip
    return table


def _half_load(found: Document) -> Table:
    table = _table(
        "accepted at half of the saturating rate (random arrivals, from their intended start)",
        "per s", "core used", "p50 ms", "p95 ms", "p99 ms", "", "client late p99",
    )  # fmt: skip
    for side in results.sides(found, "half_load"):
        get = {
            name: results.of(found, "half_load", side, name)
            for name in ("rate", "busy", "p50", "p95", "p99", "client_late_p99")
        }
        p99 = get["p99"]
        table.add_row(
            side, _count(get["rate"]), _share(get["busy"]), _ms(get["p50"]), _ms(get["p95"]), _ms(p99),
            f"{p99.low / 1000:.1f}-{p99.high / 1000:.1f}" if p99 else "", _ms(get["client_late_p99"]),
        )  # fmt: skip
    return table


def _original(found: Document) -> Table:
    table = _table(
        "the original's load: a ramp to 100 users, 100 units, 50 admissions a second",
        "answered", "per CPU-s", "worst p99 ms", "sold",
    )  # fmt: skip
    for run in found["original"]:
        per_cpu = run["answered"] / run["cpu"]
        table.add_row(
            run["side"],
            f"{run['answered']:,}",
            f"{per_cpu:,.0f}",
            f"{run['p99'] / 1000:.1f}",
            str(run["sold"]),
        )
    return table


def _durable(found: Document) -> Table:
    table = _table("durable (orders into PostgreSQL, default fsync)", "per s", "", "per CPU-s", "core used")
    for side in results.sides(found, "durable"):
        rate, cpu, busy = (
            results.of(found, "durable", side, name) for name in ("per_second", "per_cpu_second", "busy")
        )
        table.add_row(side, _count(rate), _range(rate), _count(cpu), _share(busy))
    return table


def _memory(found: Document, console: Console) -> None:
    memory = found["memory"]
    grown = (memory["after"] - memory["before"]) / 1000
    console.print(
        f"memory      {memory['refused']:,} requests refused in {memory['seconds']:.0f} s, Redis holds "
        f"{grown:+,.0f} kB of {memory['before'] / 1000:,.0f} kB more"
    )


def _other_doors(found: Document) -> Table:
    table = _table("while orders saturate the process", "asked", "p50 ms", "p99 ms")
    for row in found["other_doors"]:
        table.add_row(
            row["door"], f"{row['asked']:,}", f"{row['p50'] / 1000:.1f}", f"{row['p99'] / 1000:.1f}"
        )
    return table


def _growth(found: Document) -> Table:
    table = _table(
        "as a sale grows", "µs of the service", "µs of the gate", "bytes in Redis", "p99 ms", "written/s"
    )
    for row in found["growth"]["sizes"]:
        table.add_row(
            f"{row['orders']:,} orders", f"{row['service_us']:.1f}", f"{row['gate_us']:.1f}",
            f"{row['bytes_per_order']:.0f}", f"{row['p99'] / 1000:.1f}", f"{row['written_per_second']:,.0f}",
        )  # fmt: skip
    return table


def _side_by_side(found: Document) -> Table:
    table = _table("sales side by side", "per CPU-s", "µs of the gate", "p99 ms")
    for row in found["growth"]["side_by_side"]:
        table.add_row(
            f"{row['sales']} sales", f"{row['per_cpu_second']:,.0f}", f"{row['gate_us']:.1f}",
            f"{row['p99'] / 1000:.1f}",
        )  # fmt: skip
    return table


def _targets(judged: list[targets.Target]) -> Table:
    table = _table("targets", "against", "ours", "theirs", "ratio", "wanted", "")
    for row in judged:
        digits = 1 if row.unit == "ms" else 0
        table.add_row(
            row.what, row.against, f"{row.ours.median:,.{digits}f} {row.unit}",
            f"{row.theirs.median:,.{digits}f}",
            f"{row.ratio:.1f}", f"{'more than' if row.unit == 'ms' else 'at least'} {row.wanted:g}",
            "[green]pass" if row.met else "[red]FAIL",
        )  # fmt: skip
    return table


def _limits(limits: list[targets.Limit]) -> Table:
    table = _table("limits", "ours", "wanted", "")
    for row in limits:
        met = "too few to judge" if row.met is None else "[green]pass" if row.met else "[red]FAIL"
        table.add_row(row.what, row.found, row.wanted, met)
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("", no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _count(value: Figure | None) -> str:
    return f"{value.median:,.0f}" if value else ""


def _range(value: Figure | None) -> str:
    return f"{value.low:,.0f}-{value.high:,.0f}" if value else ""


def _ms(value: Figure | None) -> str:
    return f"{value.median / 1000:.1f}" if value else ""


def _share(value: Figure | None) -> str:
    return f"{value.median:.0%}" if value else ""

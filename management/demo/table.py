"""The report as people read it."""

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from management.demo.report import Latency, Report


def render(report: Report) -> RenderableType:
    style = "green" if report.balanced else "red"
    last = Text(f"{report.verdict}: {report.balance.book.sold:,} sold", style=f"bold {style}")
    last.append(f", {report.oversold} oversold, {report.lost} lost")
    lines = [Text(f"  {line}", style="red") for line in report.wrong]
    title = f"{report.buyers:,} buyers, {report.units:,} units, {report.clicks:,} clicks"
    return Panel.fit(
        Group(_answers(report), Text(), _books(report), Text(), last, *lines), title=title, border_style=style
    )


def _answers(report: Report) -> Table:
    table = Table("last answer", box=None, pad_edge=False, header_style="dim")
    for column in ("clicks", "p50", "p95", "p99", "max"):
        table.add_column(column, justify="right")
    for kind, latency in report.kinds.items():
        table.add_row(kind.replace("-", " "), *_figures(latency))
    table.add_section()
    table.add_row("all accepted", *_figures(report.accepted), style="bold")
    table.add_row("all refused", *_figures(report.refused), style="bold")
    table.add_row("all first answers", *_figures(report.first_answers), style="bold")
    return table


def _books(report: Report) -> Table:
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    book, written = report.balance.book, report.written
    if report.came_back:
        kinds = ", ".join(f"{count:,} {kind.replace('-', ' ')}" for kind, count in report.came_back.items())
        table.add_row("asked to come back", f"{kinds} (a last answer includes the wait)")
    whole = "sold out" if book.sold >= book.allotment else "last unit granted"
    table.add_row("from the opening", f"{whole} after {_seconds(written.last_grant_after)}, "
                  f"last row in PostgreSQL after {_seconds(written.last_row_after)}")  # fmt: skip
    image = report.balance.gate
    names = ("loaded", "remaining", "held", "queued", "settled")
    table.add_row(
        "gate", ", ".join(f"{getattr(image, name):,} {name}" for name in names) if image else "holds nothing"
    )
    log = report.balance.log
    unread = "? unread" if log.unread is None else f"{log.unread:,} unread"
    table.add_row("log", f"{report.records:,} records appended, {unread}, {log.parked:,} parked")
    table.add_row("order book", f"{book.confirmed_orders:,} confirmed, {book.refused_orders:,} refused, "
                  f"{book.cancelled_orders:,} cancelled")  # fmt: skip
    promised = f"{report.accepted.count:,} answers 202 for {report.orders_accepted:,} orders"
    table.add_row("accepted, durable", f"{promised}, {len(written.confirmed):,} of them in PostgreSQL")
    table.add_row(
        "double clicks", f"{report.double_clicks:,}, {report.double_clicks_apart:,} with two answers"
    )
    table.add_row("above the limit", f"{book.customers_above_limit:,} customers")
    if kill := report.kill:
        gap = "none was missing any more"
        if kill.standstill is not None:
            gap = f"then none for {kill.standstill:.1f} s"
        table.add_row(
            "kill -9", f"{kill.consumer}, {kill.after:.2f} s after the opening, at {kill.rows:,} rows; {gap}"
        )
    table.add_row(
        "the crowd itself", f"was at most {_milliseconds(report.crowd_late)} late; seed {report.seed}"
    )
    return table


def _figures(latency: Latency) -> list[str]:
    if not latency.count:
        return ["0", "", "", "", ""]
    return [
        f"{latency.count:,}",
        *map(_milliseconds, (latency.p50, latency.p95, latency.p99, latency.longest)),
    ]


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:,.0f} ms"


def _seconds(seconds: float | None) -> str:
    return "?" if seconds is None else f"{seconds:.2f} s"

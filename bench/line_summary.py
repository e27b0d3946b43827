"""What a simulated day means for the origin, and for those who believed their page."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from bench.line_simulation import MARGIN, Day, Said

PIECE_SECONDS = 30  # of the course that is kept and drawn
CROWDED_SECONDS = 60  # after the opening: the draw's crowd has its places by then


def summary(day: Day, wire: int, look_us: float, ticket_us: float) -> dict[str, Any]:
    """To be kept. `wire` is bytes of an answer to a look, the others µs of a web process for each request.

    Requests are of all people. A cache in front asks the origin once in a second in which anybody looks,
    since the document says max-age=1.
    """
    every = day.plan.every
    looks, tickets = [each * every for each in day.looks], [each * every for each in day.tickets]
    cached = [min(1, each) for each in looks]
    later = CROWDED_SECONDS - day.begins
    return {
        "plan": asdict(day.plan),
        "followed": day.fates["came"],
        "fates": {name: count * every for name, count in day.fates.items()},
        "seconds": len(looks),
        "per_person": {"looks": sum(looks) / day.plan.people, "tickets": sum(tickets) / day.plan.people},
        "without": _load(looks, later, look_us)
        | {"bytes_peak": wire * max(looks), "bytes": wire * sum(looks)},
        "with": _load(cached, later, look_us)
        | {"bytes_peak": wire * max(cached), "bytes": wire * sum(cached)},
        "tickets": _load(tickets, later, ticket_us),
        "wire": wire,
        "course": {
            "seconds": PIECE_SECONDS,
            "begins": day.begins,
            "without": _peaks(looks),
            "with": _peaks(cached),
            "tickets": _peaks(tickets),
        },
        "eta": _eta(day.said) | {"unknown": day.unknown * every},
    }


def _load(requests: Sequence[int], later: int, each_us: float) -> dict[str, Any]:
    """`later` on it is only the line that moves. `cores` are of web processes, in the worst second."""
    peak = max(requests)
    return {
        "mean": sum(requests) / len(requests),
        "peak": peak,
        "peak_later": max(requests[later:], default=0),
        "cores": peak * each_us / 1e6,
        "cores_later": max(requests[later:], default=0) * each_us / 1e6,
    }


def _peaks(requests: Sequence[int]) -> list[int]:
    return [max(requests[at : at + PIECE_SECONDS]) for at in range(0, len(requests), PIECE_SECONDS)]


def _eta(said: Sequence[Said]) -> dict[str, Any]:
    """Errors in seconds, either way. `explained` is the share of all seconds of error that belongs to people
    for whom the pace has changed since their page had looked; what is left is the page's own."""
    errors = [abs(each.error) for each in said]
    own = [abs(each.error) for each in said if not each.changed]
    changed = [abs(each.error) for each in said if each.changed]
    whole = sum(errors)
    return {
        "told": len(said),
        "median": percentile(errors, 50),
        "p90": percentile(errors, 90),
        "changed": len(changed) / len(said) if said else 0.0,
        "changed_median": percentile(changed, 50),
        "changed_p90": percentile(changed, 90),
        "unheard": sum(each.unheard for each in said) / len(said) if said else 0.0,
        "explained": sum(changed) / whole if whole else 1.0,
        "own_p90": percentile(own, 90),
        "own_most": max(own, default=0.0),
        "in_range": sum(abs(each.error) <= MARGIN * (each.left - each.error) for each in said) / len(said)
        if said
        else 1.0,
    }


def percentile(values: Sequence[float], share: int) -> float:
    """The smallest one that `share` percent do not exceed; 0 of none."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * share // 100) - 1)] if ordered else 0.0

"""What the web processes of one gunicorn have counted, read back: for `/metrics`, and for the live page."""

import math
import os

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector

Buckets = list[tuple[float | None, int]]


def registry() -> CollectorRegistry:
    """Of all its workers, added up; of this process alone where it is the only one."""
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return REGISTRY
    added_up = CollectorRegistry()
    MultiProcessCollector(added_up)
    return added_up


def read() -> dict[str, Metric]:
    """Every metric by its name; that of a counter is without `_total`. Reads a few small files per worker."""
    return {metric.name: metric for metric in registry().collect()}


def counts(metric: Metric | None, label: str) -> dict[str, int]:
    """A counter with one label: how many by its values. Nothing has been counted where it is missing."""
    samples = metric.samples if metric else []
    return {each.labels[label]: int(each.value) for each in samples if each.name.endswith("_total")}


def buckets(metric: Metric | None) -> Buckets | None:
    """A histogram without labels: how many took at most so many seconds (None: any time), rising.

    None where nobody observes it.
    """
    found = [
        (float(each.labels["le"]), int(each.value))
        for each in (metric.samples if metric else [])
        if each.name.endswith("_bucket")
    ]
    return [(None if math.isinf(most) else most, count) for most, count in sorted(found)] or None

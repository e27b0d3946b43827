"""Metrics of every process, and of a web process' way to the gate."""

from prometheus_client import Gauge, Histogram

RELEASE = "0.1.0"  # the image has no pyproject.toml; a test holds the two together

gate_call_seconds = Histogram(
    "fluxgate_gate_call_seconds",
    "One call to the gate with the attempts that left together, answered or given up.",
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
)
build_info = Gauge(
    "fluxgate_build_info", "1; the release is its label.", ["version"], multiprocess_mode="livemax"
)
build_info.labels(RELEASE).set(1)

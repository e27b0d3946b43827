"""The fixtures of the log's tests serve the contract of its twin as well."""

from tests.orders.conftest import kafka_log, own_topic

__all__ = ["kafka_log", "own_topic"]

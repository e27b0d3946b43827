"""The rows, by what is killed. Importing this registers them all."""

from tests.chaos.rows import brokers, consumer, database, failover, gate, gatekeeper, log, operators, web

__all__ = ["brokers", "consumer", "database", "failover", "gate", "gatekeeper", "log", "operators", "web"]

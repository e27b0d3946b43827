"""A deterministic simulator of the shipped code: `python -m tests.simulation --help`.

The production order service, cancelling, order status, sweeper, gatekeeper, consumer and Lua run
unchanged in one thread on virtual time. Only what touches a wire is a twin: Redis, PostgreSQL,
Kafka and the network between them, each under a contract test against the real server
(test_twins.py). A seed decides the workload, every delay and every fault, so a seed is a history.
"""

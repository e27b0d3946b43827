"""Kill tests on the real stack: `make chaos`, or `python -m tests.chaos --list`.

Real PostgreSQL, Valkey and Kafka processes, real gunicorn, consumers and gatekeeper; buyers press on
meanwhile, and something dies. Each row is one line of the table "What must survive"; afterwards the
invariants I1 to I8 are checked from what the buyers saw and from the three books. Each broken twin
is a row once more with one guard taken out: it must fail.
"""

"""`make test-compose`: builds our image, brings docker-compose.yml up as it is, and sells out a sale in it.

Needs root on a Debian machine, and Debian's packages; no image is pulled. Ends with
`N passed, N failed` and exit code 0 or 1, or with one line and exit code 2 where the proof cannot run at all.
"""

import contextlib
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator

import crowd
import engine as engines
import images
from compose import PROJECT, CommandFailed, Composition, service
from machine import CannotRun, install_what_is_missing

SALE = "proof"
ALLOTMENT = 300
BUYERS = 900

# What an operator does in the admin, by the same functions.
SET_UP = f"""
from datetime import timedelta
from django.utils import timezone
from sales import arming
from sales.models import Product, Sale
now = timezone.now()
product = Product.objects.create(sku="PROOF-1", name="Proof", stock={ALLOTMENT + 50})
sale = Sale.objects.create(
    slug="{SALE}", name="Proof", product=product, opens_at=now, closes_at=now + timedelta(hours=1),
    allotment={ALLOTMENT}, unit_price="19.90", limit_per_customer=1, admission_rate=20000, burst=20000,
)
arming.arm(sale, actor="compose-test", reason="proof")
arming.open_sale(sale, actor="compose-test", reason="proof")
"""


class Checks:
    def __init__(self) -> None:
        self.passed = self.failed = 0

    def that(self, claim: str, holds: bool, seen: object = "") -> None:
        self.passed, self.failed = self.passed + holds, self.failed + (not holds)
        say(f"  {'ok  ' if holds else 'FAIL'} {claim}" + (f"  [{seen}]" if seen != "" and not holds else ""))


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> int:
    began = time.monotonic()
    checks = Checks()
    try:
        install_what_is_missing(say)
        before = engines.state_of_the_machine()
        with engines.Engine() as engine:
            with step("images"):
                images.make_all(engine, say)
            composition = Composition(engine)
            try:
                with engine.network():
                    prove(composition, checks)
            except (CommandFailed, OSError) as error:
                checks.that("the proof ran to its end", False, error)
            if checks.failed:
                say(composition.last_words())
            with step("down"):
                composition.down()
            left = engine.left_behind(PROJECT)
            checks.that("down leaves no container, network or volume", not left, left)
        checks.that(
            "the machine's network and mounts are as before", engines.state_of_the_machine() == before
        )
        checks.that(
            "no folder or control group of the engine is left", not engines.traces(), engines.traces()
        )
    except (CannotRun, engines.EngineError, images.ImageError, CommandFailed) as error:
        say(f"test-compose: {error}")
        return 2
    except KeyboardInterrupt:
        say("test-compose: interrupted, everything it had started is gone")
        return 130
    say(f"\n{time.monotonic() - began:.0f} s")
    say(f"{checks.passed} passed, {checks.failed} failed")
    return 1 if checks.failed else 0


def prove(composition: Composition, checks: Checks) -> None:
    with step("the file"):
        try:
            refusal = composition("config", variables=composition.no_variables)
        except CommandFailed as error:
            refusal = str(error)
        checks.that("without secrets the file is refused", "is not set, see the head of" in refusal, refusal)
    with step("build"):
        composition.build()
    with step("up"):
        composition.up()
        waiting = composition.wait_until_healthy(120)
        checks.that("every service is healthy, every one-shot is done", not waiting, waiting)
    with step("containers"):
        look_at_the_containers(composition, checks)
        status, _, _ = crowd.request("GET", "/readyz")
        checks.that("/readyz answers 200 on the published port", status == 200, status)
        status, _, _ = crowd.request("GET", "/")
        checks.that("the store front is served", status == 200, status)
        status, _, _ = crowd.request("GET", "/static/waitingroom/room.html")
        checks.that("the waiting room is served", status == 200, status)
    with step(f"sale: {BUYERS} buyers, {ALLOTMENT} units"):
        sell_out(composition, checks)
    with step("stop"):
        composition("stop", "web", "fulfillment", "gatekeeper")
        codes = {service(c): c["State"]["ExitCode"] for c in composition.containers()}
        ended = {codes["web"], codes["fulfillment"], codes["gatekeeper"]}
        checks.that("web, fulfillment and gatekeeper end cleanly on SIGTERM", ended == {0}, codes)


def look_at_the_containers(composition: Composition, checks: Checks) -> None:
    lasting = [c for c in composition.containers() if c["State"]["Running"]]
    root = [service(c) for c in lasting if composition("exec", "-T", service(c), "id", "-u").strip() == "0"]
    checks.that("no container runs as root", not root, root)
    writable = {service(c) for c in lasting if not c["HostConfig"]["ReadonlyRootfs"]}
    checks.that("every root file system but Kafka's is read-only", writable == {"kafka"}, writable)
    published = {
        (service(c), binding["HostIp"])
        for c in lasting
        for bindings in (c["NetworkSettings"]["Ports"] or {}).values()
        for binding in bindings or []
    }
    checks.that("only web is published, on 127.0.0.1", published == {("web", "127.0.0.1")}, published)
    consumers = sum(service(c) == "fulfillment" for c in lasting)
    checks.that("two consumers run", consumers == 2, consumers)
    policies = [
        composition("exec", "-T", name, "redis-cli", "config", "get", "maxmemory-policy").split()[-1]
        for name in ("gate", "cache")
    ]
    checks.that("the gate evicts nothing, the cache may", policies == ["noeviction", "allkeys-lru"], policies)


def sell_out(composition: Composition, checks: Checks) -> None:
    composition.manage("shell", "-c", SET_UP)
    buyers = crowd.Crowd(SALE, composition.token_key)
    # Half of the stock goes while consumers run, the rest while they are dead.
    answers = buyers.buy(crowd.attempts(0, ALLOTMENT // 2))
    composition("kill", "-s", "KILL", "fulfillment")
    answers += buyers.buy(crowd.attempts(ALLOTMENT // 2, BUYERS))
    composition("start", "fulfillment")

    say("    " + ", ".join(f"{n} × {kind}" for kind, n in sorted(Counter(a.kind for a in answers).items())))
    accepted = {a.order_id for a in answers if a.status == 202}
    by_key: dict[tuple[str, str], set[str]] = {}
    for answer in answers:
        by_key.setdefault((answer.customer, answer.key), set()).add(answer.order_id)
    strange = {a.kind.removesuffix(" again") for a in answers} - {
        "queued",
        "held",
        "sold-out",
        "limit-reached",
    }
    checks.that("every answer is queued, held, sold-out or limit-reached", not strange, strange)
    again = sum(a.kind.endswith(" again") for a in answers)
    checks.that(
        "every unit is promised once, other answers with its id are replays",
        sum(a.status == 202 for a in answers) == ALLOTMENT + again,
        again,
    )
    checks.that("exactly the allotment is promised", len(accepted) == ALLOTMENT, len(accepted))
    checks.that(
        "one key names one order, however often it is sent", all(len(ids) == 1 for ids in by_key.values())
    )

    deadline = time.monotonic() + 60
    sold = "select count(*) from orders_order where state = 'confirmed'"
    while int(composition.sql(sold)[0][0]) < ALLOTMENT and time.monotonic() < deadline:
        time.sleep(0.5)
    rows = composition.sql("select id, customer, state from orders_order")
    confirmed = {row[0] for row in rows if row[2] == "confirmed"}
    checks.that(
        "PostgreSQL has exactly the promised orders, confirmed", confirmed == accepted, len(confirmed)
    )
    checks.that("and no other order", len(rows) == ALLOTMENT, len(rows))
    most = max(Counter(row[1] for row in rows).values(), default=0)
    checks.that("nobody has more than the limit", most == 1, most)
    books = composition.sql(
        "select s.sold, p.stock from sales_sale s join sales_product p on p.id = s.product_id"
    )
    checks.that(
        "the sale's own count agrees, the stock is less by the allotment",
        books == [[str(ALLOTMENT), "50"]],
        books,
    )
    winner = next(a for a in answers if a.status == 202)
    seen = buyers.order(winner)
    checks.that("the buyer sees the order confirmed", seen.get("state") == "confirmed", seen)
    try:
        say("    " + "\n    ".join(composition.manage("reconcile").splitlines()))
        balanced = True
    except CommandFailed as error:
        say(str(error))
        balanced = False
    checks.that("reconcile says balanced", balanced)
    waiting = composition.wait_until_healthy(60)
    checks.that("after the killed consumers are back, every service is healthy", not waiting, waiting)


@contextlib.contextmanager
def step(name: str) -> Iterator[None]:
    began = time.monotonic()
    say(f"{name}:")
    yield
    say(f"  {'':4} {time.monotonic() - began:.1f} s")


def leave(*_: object) -> None:
    sys.exit(143)  # as an exception: the engine's exit runs


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, leave)
    sys.exit(main())

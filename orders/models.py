"""The order book: what became of every claim, and how far the log has been read.

`Position` lives beside the rows it produced, so that both commit or roll back together: a
redelivered batch, a zombie consumer and a restored backup all meet the same compare-and-set.
"""

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from sales.models import Sale


class OrderState(models.TextChoices):
    CONFIRMED = "confirmed"
    REFUSED = "refused"
    CANCELLED = "cancelled"


class Order(models.Model):
    """One claim's outcome. `id` is uuid5(sale, customer, Idempotency-Key): a retry meets its own row.

    No row is ever deleted, by a trigger.
    """

    id = models.UUIDField(primary_key=True, editable=False)
    # Without an index of its own: order_sale_state begins with it, and each index costs every order. So does
    # a foreign key, 5 of 40 µs; a sale that was armed has events, and their foreign key keeps it.
    sale = models.ForeignKey(
        Sale, on_delete=models.PROTECT, related_name="orders", db_index=False, db_constraint=False
    )
    customer = models.CharField(max_length=255)
    quantity = models.PositiveIntegerField()
    unit_price = models.DecimalField(max_digits=12, decimal_places=2)
    currency = models.CharField(max_length=3)
    state = models.CharField(max_length=16, choices=OrderState)
    reason = models.CharField(max_length=32, blank=True)
    pool = models.PositiveSmallIntegerField(default=0)
    epoch = models.BigIntegerField()
    claimed_at = models.DateTimeField()
    written_at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ["-claimed_at"]
        indexes = [
            models.Index(fields=["sale", "state"], name="order_sale_state"),
            models.Index(fields=["customer", "sale"], name="order_customer_sale"),
        ]
        constraints = [
            models.CheckConstraint(condition=Q(quantity__gt=0), name="order_quantity_positive"),
            models.CheckConstraint(condition=Q(state__in=OrderState.values), name="order_state_known"),
        ]

    def __str__(self) -> str:
        return str(self.id)


class OrderEvent(models.Model):
    """Each change of an order, written in the same transaction. Append-only, by a trigger."""

    # Without the check of a foreign key, 10 of 40 µs an order: no order is ever deleted.
    order = models.ForeignKey(Order, on_delete=models.PROTECT, related_name="events", db_constraint=False)
    at = models.DateTimeField(db_default=Now())
    state = models.CharField(max_length=16, choices=OrderState)
    reason = models.CharField(max_length=32, blank=True)

    class Meta:
        ordering = ["id"]

    def __str__(self) -> str:
        return f"{self.order_id} {self.state}"


class Position(models.Model):
    """The next offset to fulfill of one partition. Moved only from the expected value.

    `incarnation` is the broker's id of the topic: a topic made anew starts its own positions, or
    its first claims would count as written.
    """

    topic = models.CharField(max_length=249)
    incarnation = models.CharField(max_length=64, default="")
    partition = models.PositiveIntegerField()
    next_offset = models.BigIntegerField(default=0)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["topic", "incarnation", "partition"], name="position_of_partition"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}@{self.next_offset}"


class ParkedState(models.TextChoices):
    """Only `orders.parking` moves a parked record along; replayed and dropped are final."""

    PARKED = "parked"
    REPLAYED = "replayed"
    DROPPED = "dropped"


class Barrier(models.Model):
    """The last barrier of a pool that fulfillment has passed: claims of earlier epochs come too late."""

    sale = models.ForeignKey(Sale, on_delete=models.PROTECT, related_name="barriers")
    pool = models.PositiveSmallIntegerField(default=0)
    epoch = models.BigIntegerField()
    passed_at = models.DateTimeField(db_default=Now())

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["sale", "pool"], name="barrier_of_pool"),
        ]

    def __str__(self) -> str:
        return f"{self.sale_id}:{self.pool} in epoch {self.epoch}"


class ParkedRecord(models.Model):
    """A record fulfillment could not use, kept whole: nothing read from the log is ever dropped.

    What the log said of it (where it stood, key, value, headers) never changes, and no row is ever
    deleted, by a trigger. `cause` is the last one; earlier ones stand in its events.
    """

    topic = models.CharField(max_length=249)
    incarnation = models.CharField(max_length=64, default="")
    partition = models.PositiveIntegerField()
    offset = models.BigIntegerField()
    key = models.BinaryField(default=bytes)
    value = models.BinaryField(default=bytes)
    headers = models.JSONField(default=list)
    cause = models.CharField(max_length=500)
    parked_at = models.DateTimeField(db_default=Now())
    state = models.CharField(max_length=16, choices=ParkedState, db_default=ParkedState.PARKED)
    attempts = models.PositiveIntegerField(db_default=1)  # how often somebody tried to fulfill it
    tried_at = models.DateTimeField("last tried at", db_default=Now())

    class Meta:
        ordering = ["-parked_at"]
        constraints = [
            models.UniqueConstraint(
                fields=["topic", "incarnation", "partition", "offset"], name="parked_record_once"
            ),
            models.CheckConstraint(
                condition=Q(state__in=ParkedState.values), name="parked_record_state_known"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}@{self.offset}"


class ParkedStep(models.TextChoices):
    """What somebody did with a parked record. `tried` is a replay after which it is still parked."""

    TRIED = "tried"
    REPLAYED = "replayed"
    DROPPED = "dropped"


class ParkedRecordEvent(models.Model):
    """Each step, in the transaction of the step: by whom, when, why. Append-only, by a trigger."""

    record = models.ForeignKey(ParkedRecord, on_delete=models.PROTECT, related_name="events")
    at = models.DateTimeField(db_default=Now())
    step = models.CharField(max_length=16, choices=ParkedStep)
    actor = models.CharField(max_length=150)
    reason = models.CharField(max_length=500, blank=True)
    outcome = models.CharField(max_length=500, blank=True)  # of a replay: what the order book says now

    class Meta:
        ordering = ["id"]

    def __str__(self) -> str:
        return f"{self.record_id} {self.step}"

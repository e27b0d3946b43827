"""What is sold and when: products, sale windows, and who changed them.

The invariants stand in the database as CHECK constraints, so that no code path, and no
operator with psql, can break them. I1 (`sold <= allotment`) is the last line of defence
against overselling, whatever Redis and Kafka do.
"""

import uuid
from decimal import Decimal

from django.core.exceptions import ValidationError
from django.core.validators import MinValueValidator, RegexValidator
from django.db import models
from django.db.models import F, Q


class Product(models.Model):
    """What is sold. Owns the stock, in units, that no sale has taken."""

    sku = models.CharField("SKU", max_length=64, unique=True)
    name = models.CharField(max_length=200)
    description = models.TextField(blank=True)
    stock = models.PositiveIntegerField(
        default=0, help_text="Units that no sale has taken. Changed by deltas only."
    )
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ["name"]
        permissions = [("change_stock", "Can change the stock of a product")]
        constraints = [
            models.CheckConstraint(condition=Q(stock__gte=0), name="product_stock_not_negative"),
        ]

    def __str__(self) -> str:
        return f"{self.name} ({self.sku})"


class SaleState(models.TextChoices):
    """Only `sales.arming` moves a sale along: see docs/architecture.md, "State machines"."""

    DRAFT = "draft"  # being written; nobody sees it
    SCHEDULED = "scheduled"  # public, not armed: its facts may still change
    ARMING = "arming"  # the allotment has left the product; the gate is being loaded
    ARMED = "armed"  # the gate stands, and refuses until an operator opens it
    OPEN = "open"  # sells while the window is open: it takes the state AND the window
    PAUSED = "paused"
    CLOSING = "closing"  # the gate is shut; claims are still being written down
    CLOSED = "closed"
    SETTLED = "settled"  # unsold units are back in the product; the gate is gone


class Sale(models.Model):
    """A sale window: one product, one window, one allotment, one price, one limit, one rate.

    Times are UTC and the window is half open, `opens_at <= now < closes_at`, measured on the
    gate's clock. `allotment` and `sold` are units; `admission_rate` is attempts per second.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    slug = models.SlugField(
        "key", max_length=64, unique=True, help_text="Names the sale in URLs and in the API."
    )
    product = models.ForeignKey(Product, on_delete=models.PROTECT, related_name="sales")
    name = models.CharField(max_length=200)
    opens_at = models.DateTimeField()
    closes_at = models.DateTimeField()
    allotment = models.PositiveIntegerField(
        validators=[MinValueValidator(1)], help_text="Units this sale takes out of the product when armed."
    )
    sold = models.PositiveIntegerField(default=0, editable=False)
    returned = models.PositiveIntegerField(
        default=0,
        db_default=0,
        editable=False,
        help_text="Units that went back into the product's stock when settled.",
    )
    unit_price = models.DecimalField(
        max_digits=12, decimal_places=2, validators=[MinValueValidator(Decimal(0))]
    )
    currency = models.CharField(
        max_length=3,
        default="EUR",
        validators=[RegexValidator(r"^[A-Z]{3}$", "Three capital letters (ISO 4217).")],
    )
    limit_per_customer = models.PositiveSmallIntegerField(default=1, validators=[MinValueValidator(1)])
    admission_rate = models.PositiveIntegerField(
        default=2000,
        validators=[MinValueValidator(1)],
        help_text="Attempts per second that reach the units; the rest is sent to the waiting room.",
    )
    burst = models.PositiveIntegerField(
        default=4000,
        validators=[MinValueValidator(1)],
        help_text="Attempts let in at once after a quiet moment.",
    )
    admission_required = models.BooleanField(
        "waiting room is on",
        default=False,
        help_text="Buyers stand in line, and reach the units when their turn has come.",
    )
    state = models.CharField(max_length=16, choices=SaleState, default=SaleState.DRAFT, editable=False)
    epoch = models.BigIntegerField(default=0, editable=False, help_text="Of the last arming.")
    armed_at = models.DateTimeField(null=True, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ["-opens_at"]
        verbose_name = "sale window"
        # One a step, so that somebody may pause a sale without being able to change or to close it.
        permissions = [
            ("schedule_sale", "Can schedule a sale window"),
            ("arm_sale", "Can arm a sale window"),
            ("open_sale", "Can open a sale window"),
            ("pause_sale", "Can pause a sale window"),
            ("resume_sale", "Can resume a sale window"),
            ("close_sale", "Can close a sale window"),
            ("settle_sale", "Can settle a sale window"),
        ]
        constraints = [
            models.CheckConstraint(
                condition=Q(closes_at__gt=F("opens_at")), name="sale_closes_after_opening"
            ),
            models.CheckConstraint(condition=Q(allotment__gt=0), name="sale_allotment_positive"),
            models.CheckConstraint(
                condition=Q(sold__gte=0, returned__gte=0, sold__lte=F("allotment") - F("returned")),
                name="sale_never_oversold",
            ),
            models.CheckConstraint(condition=Q(unit_price__gte=0), name="sale_price_not_negative"),
            models.CheckConstraint(condition=Q(limit_per_customer__gt=0), name="sale_limit_positive"),
            models.CheckConstraint(
                condition=Q(admission_rate__gt=0, burst__gt=0), name="sale_admission_positive"
            ),
            models.CheckConstraint(condition=Q(state__in=SaleState.values), name="sale_state_known"),
        ]

    def __str__(self) -> str:
        return self.name

    def clean(self) -> None:
        """Tell the operator early what the database and the arming would refuse later."""
        if self.opens_at and self.closes_at and self.closes_at <= self.opens_at:
            raise ValidationError({"closes_at": "The window must close after it opens."})
        if self.product_id and self.allotment and self.is_draft and self.allotment > self.product.stock:
            raise ValidationError(
                {"allotment": f"The product has {self.product.stock} units that no sale has taken."}
            )

    @property
    def unsold(self) -> int:
        """Units of the allotment that are neither sold nor back in the product."""
        return self.allotment - self.sold - self.returned

    @property
    def is_draft(self) -> bool:
        """Not armed yet: its facts may still change."""
        return self.state in (SaleState.DRAFT, SaleState.SCHEDULED)


class SaleEvent(models.Model):
    """Who did what to a sale or to a product's stock, when and why. Append-only, by a trigger."""

    sale = models.ForeignKey(Sale, on_delete=models.PROTECT, null=True, related_name="events")
    product = models.ForeignKey(Product, on_delete=models.PROTECT, null=True, related_name="events")
    at = models.DateTimeField(auto_now_add=True)
    actor = models.CharField(max_length=150)
    action = models.CharField(max_length=32)
    reason = models.CharField(max_length=500, blank=True)
    detail = models.JSONField(default=dict)

    class Meta:
        ordering = ["-at", "-id"]
        indexes = [models.Index(fields=["sale", "-at"], name="saleevent_sale_at")]

    def __str__(self) -> str:
        return f"{self.action} by {self.actor}"

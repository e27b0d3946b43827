"""What an operator may type, and what is told to them when it cannot be right."""

import uuid
from typing import Any

from django import forms
from django.utils import timezone
from unfold.widgets import (
    UnfoldAdminIntegerFieldWidget,
    UnfoldAdminTextareaWidget,
    UnfoldAdminTextInputWidget,
)

from sales.models import Product, Sale

MAX_UNITS = 2**31 - 1  # PostgreSQL's integer, in which stock and allotments are kept


class ReasonForm(forms.Form):
    """One line for the event log. Asked of every action, because nobody remembers a week later."""

    reason = forms.CharField(
        max_length=500,
        widget=UnfoldAdminTextInputWidget(attrs={"autofocus": True, "autocomplete": "off"}),
        help_text="Kept in the event log beside your name.",
        error_messages={"required": "Say why, in a few words: it goes into the event log."},
    )


class StockChangeForm(ReasonForm):
    """A change of a product's stock, in units, up or down. Never an absolute number."""

    delta = forms.IntegerField(
        label="Change stock by",
        min_value=-MAX_UNITS,
        max_value=MAX_UNITS,
        widget=UnfoldAdminIntegerFieldWidget(attrs={"autofocus": True, "placeholder": "+100 or -5"}),
        help_text="Units to add, or to take away with a minus sign. Changes of two operators add up.",
    )
    # Names this page view: the same form sent twice (a double click) changes the stock once.
    once = forms.UUIDField(widget=forms.HiddenInput, initial=uuid.uuid4)
    field_order = ("delta", "reason", "once")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["reason"].widget.attrs.pop("autofocus", None)

    def clean_delta(self) -> int:
        delta: int = self.cleaned_data["delta"]
        if delta == 0:
            raise forms.ValidationError("A change of 0 units changes nothing.")
        return delta


class ProductForm(forms.ModelForm):
    """An existing product. Its stock is shown beside the form and never typed."""

    class Meta:
        model = Product
        fields = ("sku", "name", "description", "stock")
        widgets = {"description": UnfoldAdminTextareaWidget(attrs={"rows": 3})}


class NewProductForm(ProductForm):
    """A new product, with the stock it starts with."""

    class Meta(ProductForm.Meta):
        labels = {"stock": "Initial stock"}
        help_texts = {"stock": "Units. Changed later by deltas only."}


class SaleForm(forms.ModelForm):
    """A sale window as long as it is not armed. `Sale.clean` holds the rules that need no clock."""

    class Meta:
        model = Sale
        fields = (
            "name",
            "slug",
            "product",
            "opens_at",
            "closes_at",
            "allotment",
            "unit_price",
            "currency",
            "limit_per_customer",
            "admission_rate",
            "burst",
            "admission_required",
        )

    def clean_closes_at(self) -> Any:
        closes_at = self.cleaned_data["closes_at"]
        if closes_at <= timezone.now() and "closes_at" in self.changed_data:
            raise forms.ValidationError("This moment has passed: the sale could never open.")
        return closes_at

    def clean_currency(self) -> str:
        return str(self.cleaned_data["currency"]).upper()

    def clean(self) -> dict[str, Any] | None:
        cleaned = super().clean()
        limit, units = self.cleaned_data.get("limit_per_customer"), self.cleaned_data.get("allotment")
        if limit and units and limit > units:
            self.add_error("limit_per_customer", f"More than the {units} units of the sale.")
        return cleaned

"""The steps of a sale day, as pages: a GET says what will happen, a POST with a reason does it.

A step is offered in the states where it makes sense; whether it is taken is decided by
`sales.arming` alone, so a page that has gone stale, or a button pressed twice, harms nothing.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.timesince import timeuntil
from unfold.admin import ModelAdmin
from unfold.decorators import action
from unfold.enums import ActionVariant

from sales import arming
from sales.admin.live import live
from sales.admin.moments import moment
from sales.forms import ReasonForm
from sales.models import Product, Sale, SaleState


class Perform(Protocol):
    def __call__(self, sale: Sale, *, actor: str, reason: str) -> None: ...


class Explanation(NamedTuple):
    """What a confirmation page says: sentences, numbers (label, value), and what speaks against it."""

    sentences: list[str]
    numbers: list[tuple[str, Any]]
    warnings: list[str] = []


class Step(NamedTuple):
    verb: str  # in the URL, on the button, in the event log
    icon: str
    variant: ActionVariant
    offered_in: frozenset[SaleState]
    perform: Perform
    explain: Callable[[Sale], Explanation]

    @property
    def permission(self) -> str:
        return f"sales.{self.verb}_sale"


def _units_in_flight(sale: Sale) -> list[tuple[str, Any]]:
    now = live(sale)
    if not now["reachable"]:
        return [("Sold", sale.sold), ("Gate", "unreachable")]
    gate = now["gate"] or {"remaining": "–", "held": "–", "queued": "–"}
    return [
        ("Remaining", gate["remaining"]),
        ("Held", gate["held"]),
        ("Queued", gate["queued"]),
        ("Sold", sale.sold),
    ]


def _unreachable(numbers: list[tuple[str, Any]]) -> list[str]:
    if ("Gate", "unreachable") in numbers:
        return ["The gate does not answer: this will be refused until it is back."]
    return []


def _explain_schedule(sale: Sale) -> Explanation:
    return Explanation(
        [
            f"The sale becomes public: the store front counts down to {moment(sale.opens_at)}.",
            "Its key and its product are fixed from now on; everything else can change until it is armed.",
            "No units leave the product yet, and nothing is sold.",
        ],
        [("Units", sale.allotment), ("Stock of the product", sale.product.stock)],
    )


def _explain_arm(sale: Sale) -> Explanation:
    if sale.state == SaleState.ARMING:
        return Explanation(
            [
                "An earlier arming did not finish. This finishes it: the gate is loaded under a new epoch.",
                "The units have left the product already and are not taken again.",
            ],
            [("Units", sale.allotment)],
        )
    stock, after = sale.product.stock, sale.product.stock - sale.allotment
    warnings = []
    if after < 0:
        warnings.append(f"{-after} units are missing: this will be refused.")
    if sale.closes_at <= timezone.now():
        warnings.append("The window is over already: this will be refused.")
    return Explanation(
        [
            f"{sale.allotment} units leave the product and are loaded into the gate under a new epoch.",
            "Window, price, limit and units cannot be changed afterwards.",
            "Nothing is sold until you open the sale.",
        ],
        [("Units", sale.allotment), ("Stock now", stock), ("Stock afterwards", after)],
        warnings,
    )


def _explain_open(sale: Sale) -> Explanation:
    now = timezone.now()
    if now < sale.opens_at:
        wait = timeuntil(sale.opens_at, now, depth=2)
        when = f"Selling starts by itself at {moment(sale.opens_at)}, in {wait}."
    else:
        when = "The window is open: selling starts at once."
    numbers = _units_in_flight(sale)
    warnings = _unreachable(numbers)
    if sale.closes_at <= now:
        warnings.append("The window is over already: nobody will be able to buy.")
    return Explanation([when, f"It ends at {moment(sale.closes_at)}."], numbers, warnings)


def _explain_pause(sale: Sale) -> Explanation:
    numbers = _units_in_flight(sale)
    return Explanation(
        [
            "No new claim is granted from the moment this is done. Buyers are told that the sale is paused.",
            "Claims that were granted before are still written down. You can resume at any time.",
        ],
        numbers,
        _unreachable(numbers),
    )


def _explain_resume(sale: Sale) -> Explanation:
    numbers = _units_in_flight(sale)
    return Explanation(
        [f"The gate grants units again at once, until {moment(sale.closes_at)}."],
        numbers,
        _unreachable(numbers),
    )


def _explain_close(sale: Sale) -> Explanation:
    numbers = _units_in_flight(sale)
    if sale.state == SaleState.CLOSING:
        sentences = ["The gate is shut. The sale is closed as soon as its last claims are written down."]
    else:
        sentences = [
            "The sale ends for good: it cannot be opened again.",
            "Claims that were granted before are still written down.",
        ]
    return Explanation(sentences, numbers, _unreachable(numbers))


def _explain_settle(sale: Sale) -> Explanation:
    stock = Product.objects.values_list("stock", flat=True).get(pk=sale.product_id)
    return Explanation(
        [
            "The units nobody bought go back into the product, for other sales.",
            "The gate and the line of this sale are removed. Its orders stay, and can still be cancelled: "
            "such units go back into the product too.",
            "A draw can be checked only until then.",
        ],
        [
            ("Sold", sale.sold),
            ("Unsold", sale.unsold),
            ("Stock now", stock),
            ("Stock afterwards", stock + sale.unsold),
        ],
        [],
    )


_BEFORE_ARMING = {SaleState.DRAFT, SaleState.SCHEDULED, SaleState.ARMING}
_STANDING = {SaleState.ARMED, SaleState.OPEN, SaleState.PAUSED, SaleState.CLOSING}

STEPS = {
    step.verb: step
    for step in (
        Step(
            "schedule",
            "event",
            ActionVariant.PRIMARY,
            frozenset({SaleState.DRAFT}),
            arming.schedule,
            _explain_schedule,
        ),
        Step("arm", "shield", ActionVariant.PRIMARY, frozenset(_BEFORE_ARMING), arming.arm, _explain_arm),
        Step(
            "open",
            "play_arrow",
            ActionVariant.SUCCESS,
            frozenset({SaleState.ARMED}),
            arming.open_sale,
            _explain_open,
        ),
        Step(
            "pause",
            "pause",
            ActionVariant.WARNING,
            frozenset({SaleState.OPEN}),
            arming.pause,
            _explain_pause,
        ),
        Step(
            "resume",
            "play_arrow",
            ActionVariant.SUCCESS,
            frozenset({SaleState.PAUSED}),
            arming.resume,
            _explain_resume,
        ),
        Step("close", "stop", ActionVariant.DANGER, frozenset(_STANDING), arming.close, _explain_close),
        Step(
            "settle",
            "inventory",
            ActionVariant.PRIMARY,
            frozenset({SaleState.CLOSED}),
            arming.settle,
            _explain_settle,
        ),
    )
}


def offered(state: str) -> list[Step]:
    """The steps that make sense in this state, in the order of a sale day."""
    return [step for step in STEPS.values() if state in step.offered_in]


def permitted(user: Any) -> list[Step]:
    """The steps that this person may take, whatever the state."""
    return [step for step in STEPS.values() if user.has_perm(step.permission)]


def step_url(sale: Sale, step: Step) -> str:
    return reverse(f"admin:sales_sale_{step.verb}_step", args=[sale.pk])


def step_action(verb: str) -> Any:
    """The unfold action of one step: a button on the sale's page and the URL `<sale>/<verb>/`."""
    step = STEPS[verb]

    def view(self: ModelAdmin, request: HttpRequest, object_id: str) -> HttpResponse:
        return _confirm(self, request, object_id, step)

    # Unfold finds out by this name that the action belongs to one sale.
    view.__name__ = f"{verb}_step"
    return action(
        # Unfold has a button “Close” of its own on this page, which only leaves it.
        description="Close sale" if verb == "close" else verb.capitalize(),
        url_path=verb,
        icon=step.icon,
        variant=step.variant,
        permissions=[verb],  # `may_take`; a dotted name would make unfold's system check ask the database
    )(view)


def may_take(verb: str) -> Any:
    """The method `has_<verb>_permission` that unfold asks before it shows the step or takes it."""
    step = STEPS[verb]

    def allowed(self: ModelAdmin, request: HttpRequest, object_id: Any = None) -> bool:
        return request.user.has_perm(step.permission)

    return allowed


def _confirm(admin: ModelAdmin, request: HttpRequest, object_id: str, step: Step) -> HttpResponse:
    sale = admin.get_object(request, object_id)
    if sale is None:
        return admin._get_obj_does_not_exist_redirect(request, admin.opts, object_id)
    # A step that was begun on the live page leads back to it.
    origin = "orders_live" if request.GET.get("from") == "live" else "sales_sale_change"
    back = reverse(f"admin:{origin}", args=[sale.pk])
    form = ReasonForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            step.perform(sale, actor=request.user.get_username(), reason=form.cleaned_data["reason"])
        except arming.Refused as refusal:
            messages.error(request, str(refusal))
        else:
            sale.refresh_from_db()
            messages.success(request, f"“{sale.name}” is {sale.get_state_display().lower()} now.")
        return HttpResponseRedirect(back)
    if request.method != "POST" and sale.state not in step.offered_in:
        messages.warning(
            request,
            f"“{sale.name}” is {sale.get_state_display().lower()}: “{step.verb}” is not possible now.",
        )
        return HttpResponseRedirect(back)
    explanation = step.explain(sale)
    return TemplateResponse(
        request,
        "admin/sales/confirm.html",
        {
            **admin.admin_site.each_context(request),
            "title": f"{step.verb.capitalize()} “{sale.name}”?",
            "opts": admin.opts,
            "original": sale,
            "explanation": explanation,
            "facts": [
                ("Product", sale.product),
                ("Window", f"{moment(sale.opens_at)} – {moment(sale.closes_at)}"),
                ("Price", f"{sale.unit_price} {sale.currency}, {sale.limit_per_customer} per customer"),
                ("State", sale.get_state_display()),
            ],
            "form": form,
            "button": f"{step.verb.capitalize()} this sale",
            "danger": step.variant == ActionVariant.DANGER,
            "back": back,
        },
    )

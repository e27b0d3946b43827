"""The second factor at the admin's door: a code from a phone after the password (TOTP, RFC 6238).

With `FLUXGATE_SECOND_FACTOR=required` no page of the admin answers a member of staff whose session
has not shown a code. Who has no device enrols one, at the first sign-in; ten recovery codes stand in
for a lost one. `manage.py reset_second_factor` takes all of it away, and the next sign-in enrols anew.
"""

import time
from typing import Any

import django_otp
import segno
import structlog
from django import forms
from django.conf import settings
from django.contrib import admin
from django.contrib.auth.views import redirect_to_login
from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone
from django.utils.deprecation import MiddlewareMixin
from django.utils.http import url_has_allowed_host_and_scheme, urlencode
from django.utils.safestring import mark_safe
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django_otp.oath import TOTP
from django_otp.plugins.otp_static.models import StaticDevice, StaticToken
from django_otp.plugins.otp_totp.models import TOTPDevice
from django_otp.util import random_hex
from unfold.widgets import UnfoldAdminTextInputWidget

logger = structlog.get_logger(__name__)

RECOVERY_CODES = 10
# In the session, not in a row: a key that somebody else has been shown must not become mine.
_KEY = "second_factor_key"


def _required() -> bool:
    return bool(settings.FLUXGATE.second_factor == "required")


class SecondFactorMiddleware(MiddlewareMixin):
    """Leads staff without a code from every page of the admin to `page`; others are Django's to judge."""

    def process_view(self, request: Any, view: Any, args: Any, kwargs: Any) -> HttpResponse | None:
        match = request.resolver_match
        if not _required() or match.namespace != "admin" or match.url_name in ("login", "logout"):
            return None
        user = request.user
        if not user.is_authenticated or not user.is_staff or user.is_verified():
            return None
        asked = request.get_full_path() if request.method == "GET" else reverse("admin:index")
        return HttpResponseRedirect(f"{reverse('second-factor')}?{urlencode({'next': asked})}")


class CodeForm(forms.Form):
    """Six digits from the authenticator, or a recovery code."""

    code = forms.CharField(
        max_length=32,
        widget=UnfoldAdminTextInputWidget(
            attrs={"autofocus": True, "autocomplete": "one-time-code", "autocapitalize": "off"}
        ),
    )

    def clean_code(self) -> str:
        return "".join(self.cleaned_data["code"].split()).lower()


@sensitive_post_parameters("code")
@never_cache
def page(request: HttpRequest) -> HttpResponse:
    """Asks for a code, or enrols; then leads to `next`. 404 where no second factor is required."""
    user: Any = request.user
    if not _required():
        raise Http404
    if not (user.is_authenticated and user.is_staff):
        return redirect_to_login(request.get_full_path(), reverse("admin:login"))
    after = request.GET.get("next", "")
    if not url_has_allowed_host_and_scheme(after, {request.get_host()}, require_https=request.is_secure()):
        after = reverse("admin:index")
    if user.is_verified():
        return HttpResponseRedirect(after)
    form = CodeForm(request.POST or None)
    if TOTPDevice.objects.devices_for_user(user, confirmed=True).exists():
        return _ask(request, user, form, after)
    return _enrol(request, user, form, after)


def _ask(request: HttpRequest, user: Any, form: CodeForm, after: str) -> HttpResponse:
    if form.is_valid():
        code = form.cleaned_data["code"]
        # A code is tried on the devices of its kind only: a wrong one slows the next try on each of them.
        kind = TOTPDevice if len(code) == 6 and code.isdecimal() else StaticDevice
        for device in kind.objects.devices_for_user(user, confirmed=True):
            allowed, why = device.verify_is_allowed()
            if not allowed:
                wait = why["locked_until"] - timezone.now()
                form.add_error(
                    "code", f"Too soon after a wrong code: wait {int(wait.total_seconds()) + 1} s."
                )
            elif django_otp.verify_token(user, device.persistent_id, code):
                _let_in(request, device)
                return HttpResponseRedirect(after)
        if not form.errors:
            form.add_error("code", "This code is not right, or was used already. Wait for the next one.")
        logger.warning("second factor refused", user=user.get_username())
    return _shown(request, "Your code", form=form)


def _enrol(request: HttpRequest, user: Any, form: CodeForm, after: str) -> HttpResponse:
    key = request.session.setdefault(_KEY, random_hex(20))
    device = TOTPDevice(user=user, name="authenticator", key=key)
    if form.is_valid():
        totp = TOTP(device.bin_key)
        totp.time = time.time()
        code = form.cleaned_data["code"]
        if code.isdecimal() and totp.verify(int(code), device.tolerance):
            device.last_t, device.drift = totp.t(), totp.drift
            codes = _keep(device)
            del request.session[_KEY]
            _let_in(request, device)
            logger.info("second factor enrolled", user=user.get_username())
            return _shown(request, "Your recovery codes", codes=codes, after=after)
        form.add_error("code", "This code is not right. Is the clock of your phone?")
    address = device.config_url
    # Drawn here: a picture from elsewhere would tell somebody the secret.
    drawing = segno.make(address, error="m").svg_inline(scale=4, border=4, dark="#000", light="#fff")
    return _shown(
        request,
        "Set up your second factor",
        form=form,
        drawing=mark_safe(drawing),  # noqa: S308  # segno's own, and it holds squares only
        secret=_in_fours(address.partition("secret=")[2].partition("&")[0]),
        address=address,
    )


@transaction.atomic
def _keep(device: TOTPDevice) -> list[str]:
    """Keeps the device with new recovery codes, which it returns: this is the one time to show them."""
    device.save()
    static = StaticDevice.objects.create(user=device.user, name="recovery codes")
    codes = [StaticToken.random_token() for _ in range(RECOVERY_CODES)]
    StaticToken.objects.bulk_create(StaticToken(device=static, token=code) for code in codes)
    return codes


def _let_in(request: HttpRequest, device: Any) -> None:
    django_otp.login(request, device)
    request.session.cycle_key()  # whoever knew the session before the code does not have it now


def _in_fours(secret: str) -> str:
    return " ".join(secret[start : start + 4] for start in range(0, len(secret), 4))


def _shown(request: HttpRequest, title: str, **context: Any) -> HttpResponse:
    base = admin.site.each_context(request)
    return render(request, "admin/second_factor.html", {**base, "title": title, **context})

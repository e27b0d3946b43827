"""Outside production only: the store front's buyers need a token, and there is no shop to issue one."""

import uuid

from django.core import signing
from django.http import HttpRequest, JsonResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from sales.identity import mint

_COOKIE = "fluxgate-demo-buyer"


@csrf_exempt
@require_POST
def token(request: HttpRequest) -> JsonResponse:
    """A token for this browser; a signed cookie remembers its customer, so a reload is the same buyer."""
    try:
        customer = str(request.get_signed_cookie(_COOKIE))
    except (KeyError, signing.BadSignature):
        customer = f"browser-{uuid.uuid4().hex[:12]}"
    response = JsonResponse({"token": mint(customer)})
    response.set_signed_cookie(_COOKIE, customer, httponly=True, samesite="Lax", max_age=86_400)
    return response

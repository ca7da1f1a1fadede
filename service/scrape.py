"""``GET /metrics`` on the service's own port, where the metrics have none of theirs.

Who is next to the service may read it, and whoever brings a key. A request that a proxy passed on is not next to it,
even when the proxy is: it says so in a header, and a proxy that does not must not pass this path on.
"""

from __future__ import annotations

import ipaddress

from fastapi import APIRouter, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

from service.routes import Service
from service.telemetry import Telemetry

PATH = "/metrics"
_PASSED_ON = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")

router = APIRouter()


@router.get(PATH, include_in_schema=False)
async def metrics(request: Request) -> Response:
    """What Prometheus reads.

    Raises:
        HTTPException: 404, as if nothing were here: it is served elsewhere, or the caller is far and there are no keys.
        Unauthorized: the caller is far and brings no key.
    """
    service: Service = request.app.state.service
    telemetry: Telemetry = request.app.state.telemetry
    if service.settings.metrics_port is not None:
        raise HTTPException(404)
    if not _is_next_to_us(request):
        if service.keys is None:
            raise HTTPException(404)
        service.keys.require(request.headers)
    body, content_type = telemetry.metrics.page(request.headers.get("accept", ""))
    return Response(body, headers={"Content-Type": content_type})


def _is_next_to_us(request: Request) -> bool:
    if request.client is None or any(name in request.headers for name in _PASSED_ON):
        return False
    try:
        return ipaddress.ip_address(request.client.host).is_loopback
    except ValueError:
        return False

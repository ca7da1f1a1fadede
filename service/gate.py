"""Whether a request comes in, decided from its head before a byte of its body is read: key, quota, place.

Pure ASGI, in front of everything that reads a body: a dependency of the framework runs only after the whole upload has
been parsed and spooled, and whoever is refused has had the disk and the bandwidth by then.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from service import problems
from service.admission import Admission
from service.errors import InvalidField, WinnowError
from service.keys import KeyRing
from service.quota import Quota
from service.settings import Settings
from service.transfer import Pace, Transfer
from service.usage import Usage

# Answered to anyone, at any time: probes, and the contract, which says nothing of anybody.
# /metrics is watched by its own route (service.scrape).
OPEN_PATHS = frozenset({"/healthz", "/readyz", "/docs", "/openapi.json", "/metrics"})
# Methods that bring work; the others ask, and neither count against a quota nor need a place.
_WORK = frozenset({"POST", "PUT", "PATCH"})
PATIENCE_HEADER = "x-request-timeout"
CUT = "winnow.cut"


class Gate:
    """The middleware behind the envelope.

    Leaves in ``scope["state"]``: ``caller`` (the key's id, or None), ``patience_s`` (seconds from the end of the upload
    until nobody wants the answer), and ``problem`` (the kind of a refusal).
    """

    def __init__(
        self, app: ASGIApp, settings: Settings, admission: Admission, keys: KeyRing | None, form_bytes: int
    ) -> None:
        """Put it in front of ``app``; a body may be a file of the greatest size and ``form_bytes`` around it."""
        self.app = app
        self.admission = admission
        self.usage = Usage()
        self.keys = keys
        self._address_quota = Quota.parse(settings.address_quota)
        self._deadline_s = settings.deadline_s
        self._pace = Pace(settings.max_upload_bytes + form_bytes, settings.stall_s, settings.min_rate)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in or say why not."""
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS:
            await self.app(scope, receive, send)
            return
        leave: list[Callable[[], None]] = []

        def gone() -> None:
            while leave:
                leave.pop()()

        cut = scope.get("extensions", {}).get(CUT, {}).get("call")
        transfer = Transfer(receive, send, self._pace, gone, cut)
        try:
            self._admit(scope, transfer, leave)
            await self.app(scope, transfer.receive, transfer.send)
        except WinnowError as error:
            if transfer.answering:
                raise
            gone()
            problem = problems.problem_of(error)
            scope["state"]["problem"] = problem.kind
            await problems.response(problem, scope["state"]["request_id"])(scope, receive, send)
        finally:
            gone()

    def _admit(self, scope: Scope, transfer: Transfer, leave: list[Callable[[], None]]) -> None:
        """Check the head; ``leave`` takes what must be undone when the request ends.

        Raises:
            WinnowError: it does not come in.
        """
        headers = Headers(scope=scope)
        state = scope["state"]
        caller, quota = self._identify(scope, headers)
        if scope["method"] not in _WORK:
            return
        state["patience_s"] = self._patience_s(headers)
        self.usage.enter(caller, quota)
        leave.append(lambda: self.usage.leave(caller))
        transfer.check_stated_length(headers.get("content-length", ""))
        visit = self.admission.enter(state["patience_s"])
        visit.transfer = transfer
        leave.append(visit.leave)

    def _identify(self, scope: Scope, headers: Headers) -> tuple[str, Quota | None]:
        if self.keys is None:
            scope["state"]["caller"] = None
            client = scope.get("client")
            return f"address {client[0] if client else '-'}", self._address_quota
        key = self.keys.require(headers)
        scope["state"]["caller"] = key.id
        return f"key {key.id}", key.quota

    def _patience_s(self, headers: Headers) -> float:
        values = headers.getlist(PATIENCE_HEADER)
        if not values:
            return self._deadline_s
        try:
            (patience_s,) = map(float, values)
        except ValueError:
            patience_s = math.nan
        if not 0 < patience_s < math.inf:
            raise InvalidField("X-Request-Timeout is seconds", field="X-Request-Timeout", limit=self._deadline_s)
        return min(patience_s, self._deadline_s)

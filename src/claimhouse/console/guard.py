"""Who may talk to the console: this machine's user, from the console's own pages.

The address that is printed carries a random token. The first visit trades it for a cookie (HttpOnly, SameSite=Strict)
and the token leaves the address. The Host header must be one that the console was told (a page elsewhere cannot have
its name resolved to this machine), a POST must come from the console's own origin, and every answer carries a policy
under which the browser loads nothing from elsewhere and runs no script or style that stands in a page.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Collection
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

POLICY = "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def new_token() -> str:
    """256 random bits that fit into an address."""
    return secrets.token_urlsafe(32)


@dataclass(frozen=True)
class Access:
    """The token, and the host names under which the console may be called; `port` names the cookie."""

    token: str = field(default_factory=new_token, repr=False)
    cookie: str = field(default_factory=new_token, repr=False)
    port: int = 0
    hosts: Collection[str] = _LOOPBACK

    @property
    def cookie_name(self) -> str:
        return f"claimhouse_{self.port}"


class Guard:
    """ASGI middleware: lets through what `Access` allows, and signs every answer with the policy."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self.app, self.access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return

        async def signed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(raw=message["headers"])
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
                message["headers"] = headers.raw
            await send(message)

        answer = self._refusal(scope)
        await (answer or self.app)(scope, receive, signed)

    def _refusal(self, scope: Scope) -> Response | None:
        """What is answered instead of the page, None where it may be seen."""
        headers = Headers(scope=scope)
        if _host(headers.get("host", "")) not in self.access.hosts:
            return _told(421, "This console does not answer to that name", "Open the address that it printed.")
        if scope["method"] not in ("GET", "HEAD") and not _same_origin(headers):
            return _told(403, "That request came from another site", "Send it from the console's own page.")
        if scope["path"].startswith("/static/"):
            return None
        return self._entrance(scope, headers)

    def _entrance(self, scope: Scope, headers: Headers) -> Response | None:
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        given = [value for name, value in query if name == "token"]
        if given and _equal(given[0], self.access.token):
            rest = urlencode([pair for pair in query if pair[0] != "token"])
            answer = RedirectResponse(_path(scope) + (f"?{rest}" if rest else ""), 303)
            answer.set_cookie(self.access.cookie_name, self.access.cookie, httponly=True, samesite="strict", path="/")
            return answer
        bearer = headers.get("authorization", "").removeprefix("Bearer ")
        if _equal(self._cookie(headers), self.access.cookie) or _equal(bearer, self.access.token):
            return None
        return _told(
            401,
            "This console needs its token",
            "Open the address that claimhouse console printed: it ends in ?token=…",
        )

    def _cookie(self, headers: Headers) -> str:
        try:
            found = SimpleCookie(headers.get("cookie", "")).get(self.access.cookie_name)
        except CookieError:
            return ""
        return found.value if found else ""


def _path(scope: Scope) -> str:
    """The path as it was asked; two slashes at its start would lead elsewhere."""
    raw = scope.get("raw_path") or scope["path"].encode()
    return "/" + raw.decode("latin-1").partition("?")[0].lstrip("/")


def _host(value: str) -> str:
    """The name in a Host header, without its port."""
    try:
        return (urlsplit(f"//{value}").hostname or "").lower()
    except ValueError:
        return ""


def _same_origin(headers: Headers) -> bool:
    """Whether a changing request comes from the console's own page, or from no browser at all."""
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is not None and site != "same-origin":
        return False
    if origin is None:
        return True
    try:
        return urlsplit(origin).netloc.lower() == headers.get("host", "").lower()
    except ValueError:
        return False


def _equal(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode(), wanted.encode())


def _told(status: int, title: str, text: str) -> Response:
    return HTMLResponse(
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        f'<link rel="stylesheet" href="/static/console.css"><main class="alone"><h1>{title}</h1><p>{text}</p></main>',
        status,
    )

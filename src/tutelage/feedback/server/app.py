"""The application: one gate through which every request passes, and the routes behind it.

request ──host──> same origin, JSON ──> session ──CSRF──> role ──> handler ──> answer + headers

A route that does not say who may call it cannot be written down. Every request that changes
something is JSON from our own script: a form on another page cannot make one.
"""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from tutelage.errors import DataError, MissingExtraError, TutelageError
from tutelage.feedback.server import account_pages, admin_pages, annotator_pages, review_pages
from tutelage.feedback.server.auth import Session
from tutelage.feedback.server.web import (
    Answer,
    Call,
    Data,
    Download,
    NotFoundError,
    Page,
    Redirect,
    Route,
    Site,
)

if TYPE_CHECKING:
    from fastapi import FastAPI, Request, Response

__all__ = ["CONTENT_SECURITY_POLICY", "ROUTES", "application", "environment"]

ROUTES: tuple[Route, ...] = (
    *account_pages.ROUTES,
    *annotator_pages.ROUTES,
    *review_pages.ROUTES,
    *admin_pages.ROUTES,
)
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-store",
}
_FOLDER = Path(__file__).parent
_STATIC = {
    "page.css": "text/css",
    "theme.js": "text/javascript",
    "page.js": "text/javascript",
    "task.js": "text/javascript",
}
_LARGEST_SAYING = 2 << 20
_LARGEST_IMPORT = 64 << 20
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]", "::1")


class _RefusedError(Exception):
    """A request that is turned away before it is read."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


def environment() -> Environment:
    """Jinja2 as the pages use it: whatever is put into a page is text."""
    return Environment(
        loader=FileSystemLoader(_FOLDER / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def application(site: Site, *, close: Callable[[], None] = lambda: None) -> "FastAPI":
    """The application on a site.

    Args:
        site: what it is about; its `url` tells where people reach it, on loopback it may be
            empty.
        close: called when the server ends.

    Raises:
        MissingExtraError: FastAPI is not installed.
    """
    if find_spec("fastapi") is None:
        raise MissingExtraError("fastapi", "annotate")
    from fastapi import FastAPI
    from starlette.responses import FileResponse
    from starlette.routing import Route as Path_

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        close()

    gate = _Gate(site)

    async def static(request: "Request") -> "Response":
        name = request.path_params["name"]
        if name not in _STATIC or not gate.host_is_ours(request):
            return gate.failure(request, None, 404, "There is nothing here.")
        headers = {**_HEADERS, "Cache-Control": "no-cache"}
        return FileResponse(_FOLDER / "static" / name, media_type=_STATIC[name], headers=headers)

    async def nowhere(request: "Request", error: Exception) -> "Response":
        status = getattr(error, "status_code", 404)
        return gate.failure(request, None, status, "There is nothing here.")

    routes: list[Any] = [Path_("/static/{name}", static, methods=["GET"])]
    for route in ROUTES:
        routes.append(Path_(route.path, gate.endpoint(route), methods=[route.method]))
    return FastAPI(
        routes=routes,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        exception_handlers={404: nowhere, 405: nowhere},
    )


class _Gate:
    """Everything that is the same for all routes."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._templates = environment()
        url = urlsplit(site.url)
        self._secure = url.scheme == "https"
        self._hosts = (url.hostname,) if url.hostname else _LOOPBACK

    def endpoint(self, route: Route) -> Callable[..., Any]:
        """The function that the framework calls for a route."""
        from starlette.concurrency import run_in_threadpool

        async def endpoint(request: "Request") -> "Response":
            session: Session | None = None
            try:
                self._refuse_strangers(request, route)
                cookie = request.cookies.get(self._cookie(request), "")
                if cookie:
                    session = await run_in_threadpool(self._site.accounts.session, cookie)
                self._refuse_unentitled(request, route, session)
                body = await _body(request, route) if route.method == "POST" else {}
                call = self._call(request, session, body)
                answer = await run_in_threadpool(route.handler, call)
                if isinstance(answer, Data) and answer.session == "":
                    await run_in_threadpool(self._site.accounts.end, cookie)
                return self._respond(request, session, answer)
            except _RefusedError as refused:
                if refused.status == 401 and route.method == "GET":
                    return self._respond(request, None, Redirect("/login"))
                return self.failure(request, session, refused.status, str(refused))
            except NotFoundError:
                return self.failure(request, session, 404, "There is nothing here.")
            except TutelageError as error:
                status = 500 if isinstance(error, DataError) else 422
                return self.failure(request, session, status, str(error))

        return endpoint

    def host_is_ours(self, request: "Request") -> bool:
        """Whether the browser believes to speak with us, and not with a name made to point here."""
        return urlsplit(f"//{request.headers.get('host', '')}").hostname in self._hosts

    def failure(
        self, request: "Request", session: Session | None, status: int, message: str
    ) -> "Response":
        """What went wrong, as a page or for the script."""
        if request.url.path.startswith("/api/"):
            return self._respond(request, session, Data({"error": message}, status))
        page = Page("error.html.jinja", {"message": message}, status)
        return self._respond(request, session, page)

    def _refuse_strangers(self, request: "Request", route: Route) -> None:
        if not self.host_is_ours(request):
            raise _RefusedError(421, "This server has another name.")
        if route.method == "GET":
            return
        if request.headers.get("origin") != self._origin(request):
            raise _RefusedError(403, "This request comes from another page.")
        if request.headers.get("sec-fetch-site", "same-origin") != "same-origin":
            raise _RefusedError(403, "This request comes from another page.")
        if request.headers.get("content-type", "").split(";")[0] != "application/json":
            raise _RefusedError(403, "This request is not JSON.")

    def _refuse_unentitled(self, request: "Request", route: Route, session: Session | None) -> None:
        if route.role is None:
            return
        if session is None:
            raise _RefusedError(401, "Log in first.")
        if route.method != "GET" and not session.owns(request.headers.get("x-csrf-token", "")):
            raise _RefusedError(403, "This page is old: load it again.")
        if not session.person.may(route.role):
            raise _RefusedError(403, "This is for others.")

    def _call(self, request: "Request", session: Session | None, body: dict[str, Any]) -> Call:
        return Call(
            site=self._site,
            person=session.person if session else None,
            path=request.path_params,
            body=body,
            address=request.client.host if request.client else "",
            origin=self._origin(request),
        )

    def _origin(self, request: "Request") -> str:
        return self._site.url or f"http://{request.headers.get('host', '')}"

    def _cookie(self, request: "Request") -> str:
        """Browsers tell ports of one machine not apart, so that the name has to."""
        return "__Host-tutelage" if self._secure else f"tutelage-{request.url.port or 80}"

    def _respond(self, request: "Request", session: Session | None, answer: Answer) -> "Response":
        from starlette.responses import HTMLResponse, Response, StreamingResponse

        response: Response
        if isinstance(answer, Page):
            common = {"me": session and session.person, "csrf": session.csrf if session else ""}
            template = self._templates.get_template(answer.template)
            response = HTMLResponse(template.render({**common, **answer.content}), answer.status)
        elif isinstance(answer, Redirect):
            response = Response(status_code=303, headers={"Location": answer.to})
        elif isinstance(answer, Download):
            response = StreamingResponse(_blocks(answer.lines), media_type=answer.media_type)
            response.headers["Content-Disposition"] = f'attachment; filename="{answer.name}"'
        else:
            text = json.dumps(answer.value, allow_nan=False)
            response = Response(text, answer.status, media_type="application/json")
            self._set_cookie(request, response, answer.session)
        response.headers.update(_HEADERS)
        return response

    def _set_cookie(self, request: "Request", response: "Response", session: str | None) -> None:
        if session is None:
            return
        response.set_cookie(
            self._cookie(request),
            session,
            max_age=None if session else 0,
            path="/",
            secure=self._secure,
            httponly=True,
            samesite="lax",
        )


def _blocks(lines: Any) -> Any:
    """Lines joined to blocks, which cost less to send."""
    block: list[str] = []
    size = 0
    for line in lines:
        block.append(line)
        size += len(line)
        if size > 1 << 16:
            yield "".join(block)
            block, size = [], 0
    yield "".join(block)


async def _body(request: "Request", route: Route) -> dict[str, Any]:
    longest = _LARGEST_IMPORT if route.path.endswith("/tasks") else _LARGEST_SAYING
    raw = bytearray()
    async for chunk in request.stream():
        raw += chunk
        if len(raw) > longest:
            raise _RefusedError(413, f"This is too long: at most {longest >> 20} MiB.")
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        raise _RefusedError(422, "This request is not JSON.") from None
    if not isinstance(body, dict):
        raise _RefusedError(422, "This request is no object.")
    return body

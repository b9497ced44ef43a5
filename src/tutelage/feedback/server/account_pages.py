"""Pages of whoever is not logged in: login and invitation."""

from tutelage.feedback.server.auth import TooManyAttemptsError
from tutelage.feedback.server.web import Answer, Call, Data, NotFoundError, Page, Redirect, Route

__all__ = ["ROUTES"]


def _login_page(call: Call) -> Answer:
    return Redirect("/") if call.person else Page("login.html.jinja")


def _login(call: Call) -> Answer:
    try:
        name, password = call.text("name"), call.text("password")
        person = call.site.accounts.login(name, password, call.address)
    except TooManyAttemptsError:
        message = "Too many attempts. Wait a quarter of an hour, or ask an admin."
        return Data({"error": message}, 429)
    if person is None:
        return Data({"error": "The name or the password is wrong."}, 401)
    return Data({"to": "/"}, session=call.site.accounts.begin(person))


def _invitation_page(call: Call) -> Answer:
    role = call.site.accounts.invitation(call.path["secret"])
    if role is None:
        raise NotFoundError
    return Page("invite.html.jinja", {"role": role, "secret": call.path["secret"]})


def _accept(call: Call) -> Answer:
    name, password = call.text("name"), call.text("password")
    person = call.site.accounts.accept(call.path["secret"], name, password)
    if person is None:
        raise NotFoundError
    return Data({"to": "/"}, session=call.site.accounts.begin(person))


def _health(call: Call) -> Answer:
    return Data({"status": "ok"})


ROUTES = (
    Route("GET", "/health", None, _health),
    Route("GET", "/login", None, _login_page),
    Route("POST", "/api/login", None, _login),
    Route("GET", "/invite/{secret}", None, _invitation_page),
    Route("POST", "/api/invite/{secret}", None, _accept),
)

"""What a page's function receives and returns, without a word of any web framework.

    Route(method, path, role, handler)      handler: Call -> Page | Data | Download | Redirect

Who may call what is said beside each handler, in one table, and enforced in one place (`app`).
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tutelage.errors import ConfigError
from tutelage.feedback.server.auth import Accounts, Person, Role
from tutelage.feedback.server.database import Database
from tutelage.feedback.server.labels import Labels
from tutelage.feedback.server.projects import Project, Projects
from tutelage.feedback.server.tasks import Tasks

__all__ = [
    "Answer",
    "Call",
    "Data",
    "Download",
    "NotFoundError",
    "Page",
    "Redirect",
    "Route",
    "Site",
]


class NotFoundError(Exception):
    """There is nothing here, or nothing that this person may see: both look alike."""


@dataclass(frozen=True)
class Site:
    """Everything that the pages are about."""

    database: Database
    accounts: Accounts
    projects: Projects
    tasks: Tasks
    labels: Labels
    url: str
    """Where people reach the page, without a slash at the end; empty until it is known."""


@dataclass(frozen=True)
class Call:
    """A request, after everything that can be refused without looking at it was refused."""

    site: Site
    person: Person | None
    path: Mapping[str, str]
    """The parts of the path that the route names."""
    body: Mapping[str, Any]
    address: str
    origin: str
    """Scheme, host and port as the browser knows them."""

    @property
    def me(self) -> Person:
        """Who calls; only for routes that need a role."""
        assert self.person is not None
        return self.person

    @property
    def project(self) -> Project:
        """The project that the path names.

        Raises:
            NotFoundError: there is none, or it is closed and the person is an annotator.
        """
        project = self.site.projects.find(self.number("project"))
        if project is None or not (project.settings.open or self.me.may("reviewer")):
            raise NotFoundError
        return project

    def number(self, name: str) -> int:
        """A part of the path that is a number."""
        text = self.path[name]
        if not text.isdecimal() or len(text) > 15:
            raise NotFoundError
        return int(text)

    def text(self, name: str, default: str = "") -> str:
        """A text in the body.

        Raises:
            ConfigError: it is no text.
        """
        value = self.body.get(name, default)
        if not isinstance(value, str):
            raise ConfigError(f"{name} is a text, found {type(value).__name__}")
        return value

    def integer(self, name: str, default: int) -> int:
        """A number in the body.

        Raises:
            ConfigError: it is no whole number.
        """
        value = self.body.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or abs(value) > 1 << 53:
            raise ConfigError(f"{name} is a whole number, found {value!r:.40}")
        return value


@dataclass(frozen=True)
class Page:
    """A template with its content."""

    template: str
    content: Mapping[str, Any] = field(default_factory=dict)
    status: int = 200


@dataclass(frozen=True)
class Data:
    """JSON for the page's script."""

    value: Mapping[str, Any]
    status: int = 200
    session: str | None = None
    """A new session's secret for the cookie; empty to remove it."""


@dataclass(frozen=True)
class Download:
    """A file, written while it is read."""

    name: str
    media_type: str
    lines: Iterable[str]


@dataclass(frozen=True)
class Redirect:
    """Another page."""

    to: str


Answer = Page | Data | Download | Redirect


@dataclass(frozen=True)
class Route:
    """A path, who may call it, and what answers."""

    method: str
    path: str
    role: Role | None
    """The lowest role that may; None for everybody."""
    handler: Callable[[Call], Answer]

"""Who is there: people, invitations, sessions, and how often a password may be tried.

    invitation (one use, expires) ──name, password──> person ──login──> session (cookie, CSRF)

Nobody registers without an invitation. The first one is printed by `tutelage annotate`.
"""

import hmac
import re
import sqlite3
from dataclasses import dataclass
from typing import Literal

from tutelage.errors import ConfigError
from tutelage.feedback.server import clock
from tutelage.feedback.server.audit import note
from tutelage.feedback.server.database import Database
from tutelage.feedback.server.passwords import (
    DUMMY,
    fingerprint,
    hash_password,
    new_secret,
    verify_password,
)

__all__ = [
    "ROLES",
    "Accounts",
    "LoginLimits",
    "Person",
    "Role",
    "Session",
    "TooManyAttemptsError",
]

Role = Literal["annotator", "reviewer", "admin"]
ROLES: tuple[Role, ...] = ("annotator", "reviewer", "admin")
"""Each may do what those before it may."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,39}")
_DAY = 86_400.0
_IDLE = 12 * 3600.0
_LONGEST = 7 * _DAY
_INVITATION = 7 * _DAY


class TooManyAttemptsError(Exception):
    """A name or an address has tried too many passwords."""


@dataclass(frozen=True)
class Person:
    """Somebody who has logged in."""

    name: str
    role: Role

    def may(self, role: Role) -> bool:
        """Whether the person's role is `role` or above."""
        return ROLES.index(self.role) >= ROLES.index(role)


@dataclass(frozen=True)
class Session:
    """A person's login in one browser."""

    person: Person
    csrf: str

    def owns(self, csrf: str) -> bool:
        """Whether a request with this token comes from the session's own pages."""
        return hmac.compare_digest(self.csrf.encode(), csrf.encode())


@dataclass(frozen=True)
class LoginLimits:
    """How many passwords may be wrong within a time."""

    of_a_name: int = 5
    of_an_address: int = 30
    seconds: float = 900.0


@dataclass(frozen=True)
class Accounts:
    """People and their sessions in a database."""

    database: Database
    limits: LoginLimits = LoginLimits()

    def invite(self, role: Role, made_by: str) -> str:
        """The secret of a link with which one person may choose a name and a password."""
        secret = new_secret()
        with self.database.writing() as db:
            row = (fingerprint(secret), role, made_by, clock.now() + _INVITATION)
            db.execute("INSERT INTO page_invites VALUES (?, ?, ?, ?, NULL)", row)
            note(db, made_by, "invite", role)
        return secret

    def first_invitation(self) -> str | None:
        """An invitation for the first admin; None where there is one already.

        Earlier ones for the first admin stop working.
        """
        with self.database.writing() as db:
            if db.execute("SELECT 1 FROM page_people WHERE role = 'admin' AND active").fetchone():
                return None
            db.execute("DELETE FROM page_invites WHERE made_by = '' AND used_by IS NULL")
        return self.invite("admin", "")

    def invitation(self, secret: str) -> Role | None:
        """The role that an unused invitation gives; None where there is no such invitation."""
        with self.database.reading() as db:
            return _open_invitation(db, secret)

    def accept(self, secret: str, name: str, password: str) -> Person | None:
        """Makes the person that an invitation is for; None where it is used, old or unknown.

        Raises:
            ConfigError: the name is taken or no name, or the password too short. The invitation
                can be used again.
        """
        if not _NAME.fullmatch(name):
            raise ConfigError(
                "a name has 2 to 40 letters, digits, dots, hyphens or underscores, and begins "
                "with a letter or digit"
            )
        hashed = hash_password(password)
        with self.database.writing() as db:
            role = _open_invitation(db, secret)
            if role is None:
                return None
            taken = "SELECT 1 FROM page_people WHERE lower(name) = lower(?)"
            if db.execute(taken, (name,)).fetchone():
                raise ConfigError(f"the name {name} is taken: choose another one")
            db.execute(
                "INSERT INTO page_people (name, role, password, created) VALUES (?, ?, ?, ?)",
                (name, role, hashed, clock.now()),
            )
            used = "UPDATE page_invites SET used_by = ? WHERE secret = ?"
            db.execute(used, (name, fingerprint(secret)))
            note(db, name, "join", role)
        return Person(name, role)

    def login(self, name: str, password: str, address: str) -> Person | None:
        """The person with this name and password, or None; both take as long.

        Raises:
            TooManyAttemptsError: the name or the address has failed too often, whether or not
                anybody has that name.
        """
        keys = [(f"name {name.lower()[:80]}", self.limits.of_a_name)]
        keys.append((f"address {address}", self.limits.of_an_address))
        # Counted before it is tried, so that many attempts at once count, too.
        with self.database.writing() as db:
            db.execute(
                "DELETE FROM page_attempts WHERE at < ?", (clock.now() - self.limits.seconds,)
            )
            for key, most in keys:
                count = "SELECT count(*) FROM page_attempts WHERE key = ?"
                if db.execute(count, (key,)).fetchone()[0] >= most:
                    raise TooManyAttemptsError
            db.executemany(
                "INSERT INTO page_attempts VALUES (?, ?)", [(key, clock.now()) for key, _ in keys]
            )
            find = "SELECT * FROM page_people WHERE lower(name) = lower(?) AND active"
            row = db.execute(find, (name,)).fetchone()
        if not verify_password(password, row["password"] if row else DUMMY) or not row:
            return None
        with self.database.writing() as db:
            db.execute("DELETE FROM page_attempts WHERE key = ?", (keys[0][0],))
            note(db, row["name"], "login", "")
        return Person(row["name"], row["role"])

    def begin(self, person: Person) -> str:
        """A new session's secret, for the cookie. Each login has a session of its own."""
        secret, time = new_secret(), clock.now()
        with self.database.writing() as db:
            db.execute("DELETE FROM page_sessions WHERE expires < ? OR ends < ?", (time, time))
            row = (fingerprint(secret), person.name, new_secret(), time + _IDLE, time + _LONGEST)
            db.execute("INSERT INTO page_sessions VALUES (?, ?, ?, ?, ?)", row)
        return secret

    def session(self, secret: str) -> Session | None:
        """The session of a cookie, kept alive; None where it is over or its person is locked."""
        time, key = clock.now(), fingerprint(secret)
        query = """SELECT name, role, csrf, expires FROM page_sessions
            JOIN page_people ON person = name
            WHERE secret = ? AND expires > ? AND ends > ? AND active"""
        with self.database.reading() as db:
            row = db.execute(query, (key, time, time)).fetchone()
        if row is None:
            return None
        # Once in an hour is often enough: a write for every page would cost more than the page.
        if row["expires"] < time + _IDLE - 3600:
            with self.database.writing() as db:
                renew = "UPDATE page_sessions SET expires = ? WHERE secret = ?"
                db.execute(renew, (time + _IDLE, key))
        return Session(Person(row["name"], row["role"]), row["csrf"])

    def end(self, secret: str) -> None:
        """Logs out."""
        with self.database.writing() as db:
            db.execute("DELETE FROM page_sessions WHERE secret = ?", (fingerprint(secret),))

    def people(self) -> list[sqlite3.Row]:
        """Name, role, and whether active, of everybody."""
        query = "SELECT name, role, active, created FROM page_people ORDER BY lower(name)"
        with self.database.reading() as db:
            return db.execute(query).fetchall()

    def change(self, name: str, role: Role, active: bool, changed_by: str) -> None:
        """Gives a person another role, or locks and unlocks the account.

        Raises:
            ConfigError: no such person, or no active admin would be left.
        """
        with self.database.writing() as db:
            change = "UPDATE page_people SET role = ?, active = ? WHERE name = ?"
            if not db.execute(change, (role, active, name)).rowcount:
                raise ConfigError(f"there is nobody called {name}")
            left = "SELECT 1 FROM page_people WHERE role = 'admin' AND active"
            if not db.execute(left).fetchone():
                raise ConfigError(f"{name} is the last admin: make somebody else admin first")
            # Whoever is logged in has to log in again.
            db.execute("DELETE FROM page_sessions WHERE person = ?", (name,))
            note(db, changed_by, "person", f"{name}: {role}, {'active' if active else 'locked'}")


def _open_invitation(db: sqlite3.Connection, secret: str) -> Role | None:
    query = "SELECT role FROM page_invites WHERE secret = ? AND used_by IS NULL AND expires > ?"
    row = db.execute(query, (fingerprint(secret), clock.now())).fetchone()
    return row["role"] if row else None

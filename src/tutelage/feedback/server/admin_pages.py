"""Pages of admins: projects, people, invitations, import, export, audit trail."""

import hashlib
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from tutelage.data.jsonl import read_jsonl
from tutelage.errors import ConfigError
from tutelage.feedback.server import clock
from tutelage.feedback.server.audit import note, trail
from tutelage.feedback.server.auth import ROLES, Role
from tutelage.feedback.server.export import csv_rows, demonstrations, json_lines, preferences
from tutelage.feedback.server.projects import CRITERIA, ProjectSettings, Scale
from tutelage.feedback.server.web import (
    Answer,
    Call,
    Data,
    Download,
    NotFoundError,
    Page,
    Route,
)

__all__ = ["ROUTES"]

_FILES: Mapping[str, tuple[str, Callable[..., Iterator[str]]]] = {
    "preferences.jsonl": ("application/jsonl", lambda db, p: json_lines(preferences(db, p))),
    "preferences.csv": ("text/csv", lambda db, p: csv_rows(preferences(db, p))),
    "demonstrations.jsonl": ("application/jsonl", lambda db, p: json_lines(demonstrations(db, p))),
}


def _admin(call: Call) -> Answer:
    projects = [(each, call.site.projects.progress(each.id)) for each in call.site.projects.all()]
    people = [
        {**dict(row), "created": clock.iso(row["created"])[:10]}
        for row in call.site.accounts.people()
    ]
    return Page("admin.html.jinja", {"projects": projects, "people": people, "roles": ROLES})


def _create(call: Call) -> Answer:
    project = call.site.projects.create(call.text("name"), _settings(call), call.me.name)
    return Data({"to": f"/admin/project/{project.id}"})


def _settings(call: Call, before: ProjectSettings | None = None) -> ProjectSettings:
    start = before or ProjectSettings()
    criteria = call.text("criteria", ", ".join(start.criteria))
    opened = call.body.get("open", start.open)
    return ProjectSettings(
        guidelines=call.text("guidelines", start.guidelines),
        scale=cast(Scale, call.text("scale", start.scale)),
        criteria=tuple(dict.fromkeys(c.strip() for c in criteria.split(",") if c.strip())),
        quota=call.integer("quota", start.quota),
        gold_every=call.integer("gold_every", start.gold_every),
        lease_seconds=60.0 * call.integer("lease_minutes", round(start.lease_seconds / 60)),
        open=bool(opened),
    )


def _project(call: Call) -> Answer:
    project = call.project
    content = {
        "project": project,
        "progress": call.site.projects.progress(project.id),
        "known_criteria": CRITERIA,
        "files": tuple(_FILES),
    }
    return Page("admin_project.html.jinja", content)


def _change(call: Call) -> Answer:
    project = call.project
    settings = _settings(call, project.settings)
    if settings.scale != project.settings.scale and call.site.projects.progress(project.id).labels:
        raise ConfigError("the scale cannot change once there are labels: make another project")
    call.site.projects.change(project.id, settings, call.me.name)
    return Data({"to": f"/admin/project/{project.id}"})


def _import(call: Call) -> Answer:
    project = call.project
    with tempfile.TemporaryDirectory() as folder:
        # Read as a file, so that a fault is named as `tutelage validate` would.
        path = Path(folder) / "tasks.jsonl"
        path.write_text(call.text("tasks"), encoding="utf-8", errors="surrogatepass", newline="")
        try:
            rows = (row for _, row in read_jsonl(path))
            added = call.site.projects.add(project.id, rows, call.me.name)
        except ValueError as error:
            raise ConfigError(str(error).replace(str(path), "tasks")) from error
    return Data({"added": added, "to": f"/admin/project/{project.id}"})


def _invite(call: Call) -> Answer:
    secret = call.site.accounts.invite(_role(call), call.me.name)
    return Data({"link": f"{call.origin}/invite/{secret}"})


def _role(call: Call) -> Role:
    role = call.text("role")
    if role not in ROLES:
        raise ConfigError(f"the role is one of {', '.join(ROLES)}")
    return role


def _person(call: Call) -> Answer:
    active = call.body.get("active", True)
    call.site.accounts.change(call.path["name"], _role(call), active is True, call.me.name)
    return Data({"to": "/admin"})


def _audit(call: Call) -> Answer:
    with call.site.database.reading() as db:
        lines = [{**dict(row), "at": clock.iso(row["at"])} for row in trail(db)]
    return Page("audit.html.jinja", {"lines": lines})


def _export(call: Call) -> Answer:
    project, name = call.project, call.path["file"]
    if name not in _FILES:
        raise NotFoundError
    media_type, write = _FILES[name]
    slug = re.sub(r"[^a-z0-9]+", "-", project.name.lower()).strip("-") or "project"
    return Download(f"{slug}-{name}", media_type, _exported(call, project.id, name, write))


def _exported(
    call: Call, project: int, name: str, write: Callable[[Any, int], Iterator[str]]
) -> Iterator[str]:
    """The lines of a file from one snapshot; the audit trail then says how many and which."""
    number, digest = 0, hashlib.sha256()
    with call.site.database.reading() as db:
        for line in write(db, project):
            number += 1
            digest.update(line.encode())
            yield line
    with call.site.database.writing() as db:
        told = f"project {project}: {name}, {number} lines, sha256 {digest.hexdigest()}"
        note(db, call.me.name, "export", told)


ROUTES = (
    Route("GET", "/admin", "admin", _admin),
    Route("POST", "/api/admin/projects", "admin", _create),
    Route("GET", "/admin/project/{project}", "admin", _project),
    Route("POST", "/api/admin/project/{project}", "admin", _change),
    Route("POST", "/api/admin/project/{project}/tasks", "admin", _import),
    Route("POST", "/api/admin/invitations", "admin", _invite),
    Route("POST", "/api/admin/person/{name}", "admin", _person),
    Route("GET", "/admin/audit", "admin", _audit),
    Route("GET", "/export/{project}/{file}", "admin", _export),
)

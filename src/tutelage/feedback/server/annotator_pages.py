"""Pages of annotators: projects, the task itself, what they have done, guidelines."""

import json
from collections.abc import Mapping
from statistics import median
from typing import Any, cast, get_args

from tutelage.errors import ConfigError
from tutelage.feedback.server import clock
from tutelage.feedback.server.labels import (
    Action,
    ConflictError,
    NotAssignedError,
    Submission,
)
from tutelage.feedback.server.markdown import render
from tutelage.feedback.server.projects import ProjectSettings
from tutelage.feedback.server.tasks import Assignment
from tutelage.feedback.server.web import Answer, Call, Data, NotFoundError, Page, Route

__all__ = ["ROUTES", "choices", "own_statistics", "say", "stored", "submission"]

_BREAK = 1800.0
"""Seconds without a label that end a session of work."""
_SEVEN = (
    "A is much better",
    "A is better",
    "A is slightly better",
    "About the same",
    "B is slightly better",
    "B is better",
    "B is much better",
)
_THREE = ("A is better", "About the same", "B is better")


def choices(settings: ProjectSettings) -> tuple[str, ...]:
    """What each number of the scale means."""
    return _SEVEN if settings.scale == "seven" else _THREE


def own_statistics(call: Call, project: int) -> dict[str, Any]:
    """A person's labels in all, and the number and pace of those since the last long break."""
    query = """SELECT e.created, e.seconds FROM page_events AS e
        JOIN page_tasks AS t ON t.id = e.task
        WHERE e.annotator = ? AND t.project = ? AND e.version = 0 AND e.action != 'settle'
        ORDER BY e.sequence DESC"""
    with call.site.database.reading() as db:
        rows = db.execute(query, (call.me.name, project)).fetchall()
    session = []
    before = clock.now()
    for row in rows:
        if before - row["created"] > _BREAK:
            break
        session.append(row)
        before = row["created"]
    seconds = [row["seconds"] for row in session if row["seconds"] is not None]
    return {
        "done": len(rows),
        "session": len(session),
        "seconds": median(seconds) if seconds else None,
    }


def _home(call: Call) -> Answer:
    rows = []
    for project in call.site.projects.all():
        if project.settings.open or call.me.may("reviewer"):
            progress = call.site.projects.progress(project.id)
            rows.append(
                {"project": project, "progress": progress, "mine": own_statistics(call, project.id)}
            )
    return Page("home.html.jinja", {"rows": rows})


def _project(call: Call) -> Answer:
    project = call.project
    content = {
        "project": project,
        "progress": call.site.projects.progress(project.id),
        "mine": own_statistics(call, project.id),
    }
    return Page("project.html.jinja", content)


def _next(call: Call) -> Answer:
    return Data({"to": _next_url(call, call.project.id)})


def _next_url(call: Call, project: int, leave: int = 0) -> str:
    task = call.site.tasks.claim(project, call.me.name, leave=leave)
    return f"/project/{project}" if task is None else f"/project/{project}/task/{task}"


def _task(call: Call) -> Answer:
    project = call.project
    shown = call.site.tasks.shown(call.number("task"), call.me.name)
    # A review is another page: there the votes of others are shown.
    if shown is None or shown.project != project.id:
        raise NotFoundError
    content = {
        "project": project,
        "shown": shown,
        "messages": [(m.role, render(m.content)) for m in shown.prompt.messages],
        "left": render(shown.left) if shown.comparison else "",
        "right": render(shown.right) if shown.comparison else "",
        "choices": choices(shown.settings),
        "stored": stored(shown.event, shown.a_left),
        "progress": call.site.projects.progress(project.id),
        "mine": own_statistics(call, project.id),
        "previous": next(
            (
                r["task"]
                for r in call.site.tasks.history(project.id, call.me.name, 2)
                if r["task"] != shown.task
            ),
            None,
        ),
    }
    return Page("task.html.jinja", content)


def stored(event: Mapping[str, Any] | None, a_left: bool) -> dict[str, Any]:
    """The latest of what a person has said about a task, in the terms of the page."""
    if event is None:
        return {"action": "", "choice": None, "criteria": {}, "rationale": "", "answer": ""}
    marks = json.loads(event["criteria"])
    names = {1.0: "left", 0.5: "tie", 0.0: "right"}
    turned = {name: names[p_a if a_left else 1.0 - p_a] for name, p_a in marks.items()}
    said = {name: event[name] for name in ("action", "choice", "rationale", "answer")}
    return {**said, "criteria": turned}


def submission(call: Call) -> Submission:
    """What the body says.

    Raises:
        ConfigError: it is no submission.
    """
    action = call.text("action")
    if action not in get_args(Action):
        raise ConfigError("the action is label, answer, skip, flag or settle")
    criteria = call.body.get("criteria") or {}
    if not isinstance(criteria, dict) or not all(isinstance(v, str) for v in criteria.values()):
        raise ConfigError("criteria is an object of texts")
    return Submission(
        action=cast(Action, action),
        key=call.text("key"),
        expected=call.integer("expected", 0),
        choice=None if call.body.get("choice") is None else call.integer("choice", 0),
        criteria=criteria,
        rationale=call.text("rationale"),
        answer=call.text("answer"),
    )


def _say(call: Call) -> Answer:
    said = submission(call)
    if said.action == "settle":
        raise NotFoundError
    task = call.number("task")
    shown = call.site.tasks.shown(task, call.me.name)
    if shown is None:
        raise NotFoundError
    return say(call, shown, said, to_next=True)


def say(call: Call, shown: Assignment, said: Submission, *, to_next: bool) -> Data:
    """Records a submission and tells the script what came of it and where to go."""
    try:
        receipt = call.site.labels.record(shown.task, call.me.name, said)
    except NotAssignedError:
        raise NotFoundError from None
    except ConflictError as conflict:
        told = stored(conflict.stored, shown.a_left)
        body = {"error": f"Not stored: {conflict}.", "stored": told, "version": conflict.version}
        return Data(body, 409)
    told = {"version": receipt.version, "again": receipt.again}
    if to_next:
        told["to"] = _next_url(call, shown.project, leave=shown.task)
    return Data(told)


def _history(call: Call) -> Answer:
    project = call.project
    rows = [
        {
            "task": row["task"],
            "action": row["action"],
            "choice": row["choice"],
            "at": clock.iso(row["created"]),
            "prompt": _beginning(row["record"]),
        }
        for row in call.site.tasks.history(project.id, call.me.name)
    ]
    meanings = choices(project.settings)
    return Page("history.html.jinja", {"project": project, "rows": rows, "choices": meanings})


def _beginning(record: str) -> str:
    messages = json.loads(record)["prompt"]
    return " ".join(str(messages[-1]["content"])[:400].split())[:140]


def _guidelines(call: Call) -> Answer:
    project = call.project
    html = render(project.settings.guidelines)
    return Page("guidelines.html.jinja", {"project": project, "html": html})


def _logout(call: Call) -> Answer:
    return Data({"to": "/login"}, session="")


ROUTES = (
    Route("GET", "/", "annotator", _home),
    Route("POST", "/api/logout", "annotator", _logout),
    Route("GET", "/project/{project}", "annotator", _project),
    Route("POST", "/api/project/{project}/next", "annotator", _next),
    Route("GET", "/project/{project}/task/{task}", "annotator", _task),
    Route("POST", "/api/task/{task}", "annotator", _say),
    Route("GET", "/project/{project}/history", "annotator", _history),
    Route("GET", "/project/{project}/guidelines", "annotator", _guidelines),
)

"""Pages of reviewers: how far people agree, and what they do not agree about."""

from tutelage.feedback.server.annotator_pages import choices, say, stored, submission
from tutelage.feedback.server.labels import Submission
from tutelage.feedback.server.markdown import render
from tutelage.feedback.server.quality import Conflict, conflicts, quality
from tutelage.feedback.server.tasks import Assignment, as_reviewer
from tutelage.feedback.server.web import Answer, Call, Data, NotFoundError, Page, Route

__all__ = ["ROUTES"]


def _project(call: Call) -> Answer:
    project = call.project
    with call.site.database.reading() as db:
        content = {
            "project": project,
            "quality": quality(db, project.id),
            "conflicts": conflicts(db, project.id),
        }
    content["progress"] = call.site.projects.progress(project.id)
    return Page("review.html.jinja", content)


def _task(call: Call) -> Answer:
    project = call.project
    shown = _shown(call)
    if shown.project != project.id:
        raise NotFoundError
    assert shown.comparison is not None
    with call.site.database.reading() as db:
        found = {conflict.task: conflict for conflict in conflicts(db, project.id)}
    conflict = found.get(shown.task) or Conflict(shown.task, (), (), False)
    largest = shown.settings.largest
    votes = [
        (who, round((1.0 - p_a if shown.a_left else p_a) * (largest - 1)) + 1)
        for who, p_a in conflict.votes
    ]
    content = {
        "project": project,
        "shown": shown,
        "messages": [(m.role, render(m.content)) for m in shown.prompt.messages],
        "left": render(shown.left),
        "right": render(shown.right),
        "choices": choices(shown.settings),
        "stored": stored(shown.event, shown.a_left),
        "votes": votes,
        "conflict": conflict,
    }
    return Page("review_task.html.jinja", content)


def _shown(call: Call) -> Assignment:
    with call.site.database.reading() as db:
        shown = as_reviewer(db, call.number("task"), call.me.name)
    if shown is None:
        raise NotFoundError
    return shown


def _settle(call: Call) -> Answer:
    said: Submission = submission(call)
    if said.action != "settle":
        raise NotFoundError
    answer = say(call, _shown(call), said, to_next=False)
    if answer.status != 200:
        return answer
    return Data({**answer.value, "to": f"/review/{_shown(call).project}"})


ROUTES = (
    Route("GET", "/review/{project}", "reviewer", _project),
    Route("GET", "/review/{project}/task/{task}", "reviewer", _task),
    Route("POST", "/api/review/task/{task}", "reviewer", _settle),
)

"""Asks people: puts comparisons on the annotation page and waits for their labels.

    comparisons ──> project of the page ──wait: all labels, or the deadline──> preferences

The page runs on its own (`tutelage annotate DB`), on this machine, before, while or after the run
waits. What people have said is in the page's database: a run that was interrupted finds it there.
"""

import time
from collections.abc import Sequence
from pathlib import Path

from tutelage.config import HumansConfig
from tutelage.errors import ConfigError, DataError
from tutelage.feedback.gather import Agreement
from tutelage.feedback.server import clock
from tutelage.feedback.server.export import preferences
from tutelage.feedback.server.projects import Project, ProjectSettings
from tutelage.feedback.server.quality import agreement_of_people
from tutelage.feedback.server.serve import open_site
from tutelage.feedback.server.web import Site
from tutelage.pipeline.context import StageContext
from tutelage.records import Comparison, Preference

__all__ = ["ask_people"]

_NAME = "pipeline"


def ask_people(
    config: HumansConfig, comparisons: Sequence[Comparison], context: StageContext
) -> tuple[list[Preference], Agreement | None]:
    """The preferences of people about these comparisons, and how far they agree.

    Nothing is known of the latter where no comparison was judged twice.

    Raises:
        DataError: the deadline has passed and there are too few labels, or the comparisons'
            ids belong to other texts in the database.
    """
    with open_site(config.database) as site:
        project = site.projects.named(config.project) or _create(site, config)
        site.projects.add(project.id, (each.to_json() for each in comparisons), _NAME)
        _wait(site, project, config, context)
        asked = {each.id for each in comparisons}
        with site.database.reading() as db:
            found = [p for p in preferences(db, project.id) if p.comparison.id in asked]
    if len(found) < config.minimum:
        raise DataError(
            f"the deadline has passed with {len(found)} labels, expected {config.minimum} or more: "
            f"raise humans.deadline_hours, or label on: tutelage annotate {config.database}"
        )
    return found, agreement_of_people(found)


def _create(site: Site, config: HumansConfig) -> Project:
    guidelines = ""
    if config.guidelines is not None:
        try:
            guidelines = Path(config.guidelines).read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"cannot read {config.guidelines}: {error}") from error
    settings = ProjectSettings(guidelines=guidelines, quota=config.quota)
    return site.projects.create(config.project, settings, _NAME)


def _wait(site: Site, project: Project, config: HumansConfig, context: StageContext) -> None:
    """Returns when all labels are there, or the deadline has passed."""
    context.progress.message(
        f"waits for people: tutelage annotate {config.database} serves project {project.name}"
    )
    hours = config.deadline_hours
    end = None if hours is None else site.projects.created(project.id) + 3600.0 * hours
    while True:
        progress = site.projects.progress(project.id)
        # Each look is a sign of life for the watchdog.
        context.progress.step(progress.labels, progress.wanted)
        if progress.labels >= progress.wanted:
            return
        left = config.poll_seconds if end is None else end - clock.now()
        if left <= 0.0:
            return
        time.sleep(min(config.poll_seconds, left))

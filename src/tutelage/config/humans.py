"""Where people are asked, and how long a run waits for them."""

from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt

from tutelage.config.base import Section

__all__ = ["HumansConfig"]


class HumansConfig(Section):
    """A project of the annotation page (`tutelage annotate DB`)."""

    database: str = "labels.sqlite"
    """SQLite file that the annotation page serves; relative to where the run is started."""
    project: str = "labels"
    """The page's project; it is made, and the comparisons are added to it, where they are not
    there yet."""
    quota: PositiveInt = 2
    """People who judge each comparison, in a project that is made."""
    guidelines: str | None = None
    """Markdown file with what people are asked to look at, in a project that is made."""
    deadline_hours: NonNegativeFloat | None = None
    """Hours since the project was made after which the labels that are there are taken; 0 takes
    them at once. Unset waits for all."""
    minimum: PositiveInt = 1
    """Labels without which the stage fails at the deadline."""
    poll_seconds: PositiveFloat = 10.0
    """Between two looks at the database."""

"""`tutelage annotate`: the web page on which people compare answers."""

from pathlib import Path

from tutelage.errors import ConfigError

__all__ = ["annotate"]


def annotate(
    database: Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8700,
    url: str = "",
    project: str = "",
    tasks: Path | None = None,
    quota: int = 2,
    guidelines: Path | None = None,
) -> None:
    """Serves the annotation page on a preference store. Ends on Ctrl-C or SIGTERM.

    Prints a link for the first admin, who invites the others. Nobody can register without a link.

    Example: tutelage annotate runs/labels.sqlite --project helpdesk --tasks comparisons.jsonl

    Parameters
    ----------
    database
        SQLite file with the preferences and the page's own tables; created where it is missing.
    host
        Where to listen. Addresses that other machines can reach need --url.
    port
        0 takes a free one.
    url
        The address that people use, such as https://label.example.org.
    project
        A project to create, or to add --tasks to.
    tasks
        JSON Lines of comparisons (id, prompt, a, b), gold items (gold as well) or prompts.
    quota
        People who judge each task of a new project.
    guidelines
        Markdown file with what people are asked to look at, of a new project.
    """
    from tutelage.data.jsonl import read_jsonl
    from tutelage.feedback.server.projects import ProjectSettings
    from tutelage.feedback.server.serve import open_site, require_safe_url, serve

    if port not in range(1 << 16):
        raise ConfigError("--port is a number up to 65535")
    if tasks and not project:
        raise ConfigError("--tasks need the --project that they belong to")
    require_safe_url(host, url.rstrip("/"))
    with open_site(database, url.rstrip("/")) as site:
        if project:
            found = site.projects.named(project)
            if found is None:
                text = _read(guidelines) if guidelines else ""
                settings = ProjectSettings(guidelines=text, quota=quota)
                found = site.projects.create(project, settings, "command line")
            if tasks:
                rows = (row for _, row in read_jsonl(tasks))
                added = site.projects.add(found.id, rows, "command line")
                print(f"{added} new tasks in {project}", flush=True)

        def announce(address: str) -> None:
            print(f"annotation page at {address}", flush=True)
            if (secret := site.accounts.first_invitation()) is not None:
                print(f"the first admin joins here, once: {address}/invite/{secret}", flush=True)

        serve(site, host, port, announce)


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the guidelines {path}: {error}") from error

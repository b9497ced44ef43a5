"""Opens a database for the annotation page and answers requests about it.

Loopback unless told otherwise: whoever can reach the page can try passwords, and over plain HTTP
whoever stands between can read them.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

from tutelage.errors import ConfigError, MissingExtraError
from tutelage.feedback.server.app import application
from tutelage.feedback.server.auth import Accounts
from tutelage.feedback.server.database import Database
from tutelage.feedback.server.labels import Labels
from tutelage.feedback.server.projects import Projects
from tutelage.feedback.server.tasks import Tasks
from tutelage.feedback.server.web import Site
from tutelage.feedback.store import PreferenceStore
from tutelage.network import is_loopback, serve_until_told

__all__ = ["open_site", "require_safe_url", "serve"]

_GRACE_SECONDS = 10
"""For requests under way when the page is to end."""


@contextmanager
def open_site(path: str | Path, url: str = "") -> Iterator[Site]:
    """The site on a database, which is created where it is missing.

    What an earlier process has stored and not published, because it was killed, is published.

    Raises:
        ConfigError: the location is a URL: the page keeps its tables in an SQLite file.
        DataError: the file cannot be used.
    """
    if "://" in str(path):
        raise ConfigError(
            f"the annotation page keeps its tables in an SQLite file, found {path}: name a file, "
            "and import its export into the other store"
        )
    with PreferenceStore(path) as store, Database(Path(path)) as database:
        labels = Labels(database, store)
        labels.publish_all()
        yield Site(database, Accounts(database), Projects(database), Tasks(database), labels, url)


def require_safe_url(host: str, url: str) -> None:
    """Refuses to listen to other machines unless the address that people will use is given.

    Args:
        host: to listen at.
        url: as given; empty where it was not.

    Raises:
        ConfigError: the address is not this machine's own and no URL is given, or it is none.
    """
    parts = urlsplit(url)
    if url and (parts.scheme not in ("http", "https") or not parts.hostname or parts.path):
        raise ConfigError(f"--url is like https://label.example.org, found {url}")
    if not url and not is_loopback(host):
        raise ConfigError(
            f"host {host} can be reached from other machines: give --url, the address that people "
            "will use, best an https one of a proxy in front of this server; or listen at "
            "127.0.0.1"
        )


def serve(site: Site, host: str, port: int, announce: Callable[[str], None]) -> None:
    """Answers until SIGTERM or Ctrl-C; requests under way are finished first.

    Args:
        site: what the pages are about.
        host, port: to listen at; port 0 takes a free one.
        announce: told the URL once connections are taken.

    Raises:
        ConfigError: the address cannot be listened at.
        MissingExtraError: FastAPI, uvicorn or markdown-it-py is not installed.
    """
    for name, package in (("uvicorn", "uvicorn"), ("markdown_it", "markdown-it-py")):
        if find_spec(name) is None:
            raise MissingExtraError(package, "annotate")
    serve_until_told(
        application(site),
        host,
        port,
        lambda listening: announce(site.url or listening),
        grace=_GRACE_SECONDS,
    )

"""Where a store is kept: a file of SQLite, and PostgreSQL where a server is named."""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url, text

_VARIABLE = "TUTELAGE_TEST_POSTGRESQL"


@pytest.fixture(params=["sqlite", "postgresql"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty place for a store; of PostgreSQL a schema of its own, dropped afterwards."""
    if request.param == "sqlite":
        yield str(tmp_path / "store.db")
        return
    address = os.environ.get(_VARIABLE)
    if not address:
        pytest.skip(f"{_VARIABLE} names no server, such as postgresql://user@localhost/name")
    schema = f"tutelage_{uuid.uuid4().hex[:12]}"
    url = make_url(address).set(drivername="postgresql+psycopg")
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE SCHEMA {schema}"))
    own = url.set(drivername="postgresql").update_query_dict({"options": f"-csearch_path={schema}"})
    try:
        yield own.render_as_string(hide_password=False)
    finally:
        with engine.connect() as connection:
            connection.execute(text(f"DROP SCHEMA {schema} CASCADE"))
        engine.dispose()

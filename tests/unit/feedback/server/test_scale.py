"""R-AN-12: an export of very many labels, and what fifty people at work wait for."""

import json
import time

import psutil
import pytest

from tutelage.feedback.server.export import json_lines, preferences
from tutelage.feedback.server.projects import ProjectSettings


def fill(site, labels):
    """A project of 400-character texts with two labels per task, written in one go."""
    number = site.projects.create("large", ProjectSettings(), "x").id
    with site.database.writing() as db:
        for n in range(labels // 2):
            prompt = [{"role": "user", "content": f"question {n} " + "q" * 120}]
            row = {"id": f"c{n}", "prompt": prompt, "a": "a" * 140, "b": "b" * 140}
            db.execute(
                "INSERT INTO page_tasks (id, project, comparison, record, kind) "
                "VALUES (?, ?, ?, ?, 'compare')",
                (n + 1, number, f"c{n}", json.dumps(row)),
            )
            for slot, who in enumerate(("ada", "bob")):
                db.execute(
                    "INSERT INTO page_events (task, annotator, version, action, slot, round, p_a, "
                    "a_left, key, created) VALUES (?, ?, 0, 'label', ?, 0, 1.0, 1, ?, 0)",
                    (n + 1, who, slot, f"{who}/{n}"),
                )
    return number


@pytest.mark.parametrize("labels", [2_000, pytest.param(1_000_000, marks=pytest.mark.soak)])
def test_export_streams(site, labels, capsys):
    number = fill(site, labels)
    process = psutil.Process()
    before = most = process.memory_info().rss
    begun = time.perf_counter()
    first = None
    lines = size = 0
    with site.database.reading() as db:
        for line in json_lines(preferences(db, number)):
            first = first or time.perf_counter() - begun
            lines += 1
            size += len(line)
            if lines % 1000 == 0:
                most = max(most, process.memory_info().rss)
    assert lines == labels
    grown = (most - before) / 2**20
    with capsys.disabled():
        print(
            f"\n{lines} labels, {size / 2**20:.0f} MiB in {time.perf_counter() - begun:.1f} s, "
            f"the first after {first:.2f} s; memory grew by {grown:.0f} MiB"
        )
    # Far below the size of the file, and the same for any number of labels.
    assert grown < 100

"""Verifiers against files of real rows: `TUTELAGE_VERIFIABLE=FOLDER pytest ...`."""

import os
from pathlib import Path

import pytest
from check_verifiers import check

from tutelage.rewards.verifiers.choice import Choice
from tutelage.rewards.verifiers.constraints import Constraints
from tutelage.rewards.verifiers.exact import Exact
from tutelage.rewards.verifiers.number import FinalNumber

FOLDER = Path(os.environ.get("TUTELAGE_VERIFIABLE", "none"))


@pytest.mark.skipif(not FOLDER.is_dir(), reason="TUTELAGE_VERIFIABLE names no folder of rows")
@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.jsonl.gz")), ids=lambda path: path.name)
def test_every_reference_is_accepted_and_every_planted_answer_rejected(path):
    verifiers = {"final_number": FinalNumber(), "choice": Choice(), "exact": Exact()}
    if "ifeval" in path.name:
        pytest.importorskip("py3langid")
        verifiers["constraints"] = Constraints()
    counts, faults = check(path, verifiers, code=False)
    assert not faults
    assert counts or "mbpp" in path.name or "humaneval" in path.name

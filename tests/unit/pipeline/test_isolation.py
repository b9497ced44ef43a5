import subprocess
import sys

import grimp
import pytest

from tutelage.pipeline.isolation import GOLD, MAY_SEE_GOLD
from tutelage.pipeline.registry import STAGES

BLIND = sorted(set(STAGES.modules) - MAY_SEE_GOLD)
PRELUDE = "from tutelage.pipeline.isolation import GOLD, forbid_gold, gold_calls\n"


def run_python(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PRELUDE + program], capture_output=True, text=True, timeout=60
    )


@pytest.fixture(scope="module")
def imports() -> grimp.ImportGraph:
    return grimp.build_graph("tutelage")


def test_gold_is_where_the_guard_looks_for_it(imports):
    assert GOLD in imports.modules


@pytest.mark.parametrize("kind", BLIND)
def test_no_import_leads_from_a_stage_that_trains_or_labels_to_gold(imports, kind):
    chain = imports.find_shortest_chain(STAGES.modules[kind], GOLD)
    assert chain is None, " -> ".join(chain or ())


@pytest.mark.parametrize("module", [name for name in STAGES.preload if name.startswith("tutelage")])
def test_no_import_leads_from_what_children_share_to_gold(imports, module):
    assert imports.find_shortest_chain(module, GOLD) is None


def test_supervising_process_imports_neither_gold_nor_torch():
    done = run_python(
        "import sys, tutelage.pipeline, tutelage.cli\n"
        "assert GOLD not in sys.modules and 'torch' not in sys.modules, sorted(sys.modules)\n"
    )
    assert done.returncode == 0, done.stderr


def test_guard_refuses_the_import_however_it_is_written():
    done = run_python(
        "import importlib\n"
        "forbid_gold('sft')\n"
        "ways = [lambda: importlib.import_module(GOLD),\n"
        "        lambda: __import__(GOLD),\n"
        "        lambda: exec('from tutelage.worlds.helpdesk import gold')]\n"
        "for way in ways:\n"
        "    try:\n"
        "        way()\n"
        "    except ImportError as error:\n"
        "        assert 'stage sft tried to import' in str(error), error\n"
        "    else:\n"
        "        raise AssertionError('imported')\n"
        "import tutelage.worlds.helpdesk.judge\n"
        "assert gold_calls() == 0\n"
    )
    assert done.returncode == 0, done.stderr


def test_guard_refuses_a_process_that_has_gold_already():
    done = run_python(
        "import tutelage.worlds.helpdesk.gold\n"
        "try:\n"
        "    forbid_gold('sft')\n"
        "except ImportError as error:\n"
        "    print(error)\n"
    )
    assert "was loaded before stage sft started" in done.stdout, done.stderr

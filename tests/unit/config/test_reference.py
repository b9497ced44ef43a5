from pathlib import Path

from tutelage.config import Recipe
from tutelage.config.reference import configuration_reference
from tutelage.config.schema import field_help, stage_kinds

PAGE = Path(__file__).resolve().parents[3] / "docs" / "configuration.md"


def test_page_is_what_the_models_say():
    assert PAGE.read_text("utf-8") == configuration_reference(), (
        "docs/configuration.md is out of date: tutelage config --reference > docs/configuration.md"
    )


def test_every_key_of_every_section_is_explained():
    page = configuration_reference()
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    assert all(row.rstrip(" |").count("|") >= 4 for row in rows), "a key has no meaning"
    for section in (Recipe, *stage_kinds().values()):
        for name, field in section.model_fields.items():
            assert any(row.startswith(f"| `{name}` |") for row in rows)
            assert field_help(field).replace("|", "\\|") in page


def test_default_of_a_section_shows_what_differs_from_its_own():
    page = configuration_reference()
    sft = page.partition("### sft\n")[2].partition("###")[0]
    assert "`learning_rate: 2e-05`, `floor: 0.3`, `warmup: 0.03`" in sft

import pytest
from huggingface_hub import ModelCard as HubCard

from tutelage.tracking.card import ModelCard, render_model_card, write_model_card
from tutelage.tracking.example_run import HOSTILE, example_evaluation


@pytest.fixture
def card():
    return ModelCard(
        name="helpdesk-guarded",
        description="Answers billing questions of a made-up phone company.",
        license="apache-2.0",
        datasets=["helpdesk"],
        tags=["rlhf"],
        training={"SFT": "300 steps", "PPO": "40 steps, KL 0.05"},
        limitations=["Knows one made-up company only."],
        evaluation=example_evaluation(),
        model="guarded",
    )


def test_the_hub_reads_the_head_back(card, tmp_path):
    path = write_model_card(tmp_path, card)
    assert path == tmp_path / "README.md"
    data = HubCard.load(path).data
    assert data.license == "apache-2.0"
    assert data.tags == ["tutelage", "rlhf"]
    assert data.library_name == "transformers"
    assert data.pipeline_tag == "text-generation"


def test_the_body_says_how_it_was_made_how_good_it_is_and_where_it_fails(card):
    text = render_model_card(card)
    assert "# helpdesk-guarded" in text
    assert "1. **SFT**: 300 steps\n2. **PPO**: 40 steps, KL 0.05" in text
    assert "| Gold score | 0.23 [0.17, 0.29] | -1.62 [-1.69, -1.55] | 0.61 [0.55, 0.67] |" in text
    assert "**A real gain.** Proxy reward rose by 1.3 \u03c3" in text
    assert "Reward hacking" not in text
    assert "- Knows one made-up company only." in text


def test_a_card_with_only_a_name_has_no_empty_sections():
    text = render_model_card(ModelCard("tiny", "A tiny model."))
    assert "## Use" in text
    assert "## Training" not in text
    assert "## Evaluation" not in text
    assert "## Limitations" not in text
    assert "null" not in text


def test_a_label_cannot_break_the_table(card):
    evaluation = example_evaluation()
    evaluation["models"][0]["label"] = "a|b\nc " + HOSTILE
    lines = render_model_card(ModelCard("x", "y", evaluation=evaluation)).splitlines()
    head = next(line for line in lines if "A\\|b c" in line)
    assert head.replace("\\|", "").count("|") == 5

"""The reward stage: several models, what it writes about them, any backbone, and the gate."""

import json
import random
from pathlib import Path

import pytest
import reward_transfer
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

from tutelage.config import RewardConfig, RewardStage, build_section
from tutelage.config.ensemble import GateConfig
from tutelage.errors import ConfigError, DataError, RewardError
from tutelage.feedback import PreferenceStore
from tutelage.feedback.exchange import import_preferences
from tutelage.models import RewardModel
from tutelage.pipeline.reward_tools import evaluate_reward, load_pairs, score_samples
from tutelage.pipeline.stages.reward import run
from tutelage.pipeline.stages.reward_ensemble import load_members, model_reward
from tutelage.pipeline.stages.reward_gate import check_gate
from tutelage.records import Completion, Message, Prompt, StopReason
from tutelage.rewards import EnsembleReward

SMALL = {"minibatch": 8, "microbatch_tokens": 2048}


def rows(count: int, seed: int = 0) -> list[dict]:
    """The better answer says 'yes', at either length; a fifth of the pairs are of the source b."""
    source = random.Random(seed)
    made = []
    for i in range(count):
        good, bad = "yes" + " a" * source.randint(0, 3), "no" + " b" * source.randint(0, 3)
        prompt = [{"role": "user", "content": f"is {i} there"}]
        origin = "b" if i % 5 == 0 else "a"
        made.append(
            {"id": str(i), "prompt": prompt, "chosen": good, "rejected": bad, "source": origin}
        )
    return made


@pytest.fixture
def stage(tmp_path, write_rows, tiny_causal_lm, tiny_tokenizer):
    """`stage(ensemble={...})`: a reward stage on 40 pairs, a second of training."""
    tiny_causal_lm().save_pretrained(tmp_path / "lm")
    tiny_tokenizer.save_pretrained(tmp_path / "lm")

    def build(count: int = 40, **options) -> RewardStage:
        phase = {
            "preferences": [write_rows("pairs.jsonl", rows(count))],
            "epochs": 2,
            "optimizer": {"learning_rate": 1e-2},
        }
        settings = {
            "model": str(tmp_path / "lm"),
            "phases": [phase],
            "held_out": 0.3,
            "batch": SMALL,
            "max_length": 64,
        }
        return build_section(RewardStage, settings | options)

    return build


def read(context) -> dict:
    return json.loads((context.folder / "reward.json").read_text())


def test_one_model_is_measured_from_all_sides(stage, context):
    place = context()
    metrics = run(stage(), place)
    record = read(place)
    held_out = record["held_out"]
    assert metrics["held_out_accuracy"] == record["held_out_accuracy"]["mean"]
    assert held_out["accuracy"]["n"] == 12
    # Nothing was there to measure them on.
    assert {"length_slope", "length_correlation"}.isdisjoint(metrics)
    assert set(held_out["baselines"]) == {"length", "words"}
    assert held_out["temperature"]["temperature"] > 0
    assert {"folds", "members", "learning_curve", "phases"}.isdisjoint(record)
    assert not (place.folder / "members").exists()


def judged_by_several(count: int) -> list[dict]:
    """Three who know and one who tosses a coin, on every comparison of `rows`."""
    coin = random.Random(1)
    said = []
    for row in rows(count):
        texts = {"a": row["chosen"], "b": row["rejected"], "prompt_id": row["id"]}
        for who in ("ann", "bob", "eve", "coin"):
            p_a = float(coin.random() < 0.5) if who == "coin" else 1.0
            judgement = {"id": row["id"], "prompt": row["prompt"], "p_a": p_a, "annotator": who}
            said.append(judgement | texts)
    return said


@pytest.mark.parametrize("model", ["agreement", "dawid-skene"])
def test_random_annotators_count_little_where_reliability_is_asked_for(
    stage, context, write_rows, tmp_path, model
):
    path = write_rows("judged.jsonl", judged_by_several(24))
    with PreferenceStore(tmp_path / "labels.db") as store:
        import_preferences(store, [path])
    place = context()
    phase = {"preferences": [str(tmp_path / "labels.db")], "epochs": 1}
    run(stage(phases=[phase], reliability=model), place)
    found = read(place)["annotators"]
    assert set(found) == {"ann", "bob", "eve", "coin"}
    assert found["coin"]["weight"] < 0.5 < 1.0 < found["ann"]["weight"]
    # Prompts are held out whole, and their judgements say nothing of the annotators.
    assert {row["judgements"] for row in found.values()} == {17}


def test_nobody_is_weighed_where_nobody_asks(stage, context):
    place = context()
    run(stage(), place)
    assert "annotators" not in read(place)


def test_cross_validation_judges_every_training_pair_once(stage, context):
    place = context()
    run(stage(folds=3, learning_curve=[8, 1000]), place)
    record = read(place)
    assert record["folds"]["out_of_fold"]["accuracy"]["n"] == 28
    assert record["folds"]["agreement"]["models"] == 3
    assert [row["pairs"] for row in record["learning_curve"]] == [8, 28]
    assert not (place.folder / "folds").exists()


def test_each_phase_is_measured_on_the_pairs_held_out_and_its_gain_is_told(
    stage, context, write_rows
):
    """Phase 1 learns the opposite: it is as often wrong as it is right of its own pairs."""
    opposite = [r | {"chosen": r["rejected"], "rejected": r["chosen"]} for r in rows(40)]
    first = {
        "preferences": [write_rows("opposite.jsonl", opposite)],
        "epochs": 2,
        "optimizer": {"learning_rate": 1e-2},
    }
    second = first | {"preferences": [write_rows("pairs.jsonl", rows(40))], "epochs": 4}
    alone, both = context(), context()
    run(stage(phases=[first]), alone)
    run(stage(phases=[first, second]), both)
    before, after = read(both)["phases"]
    assert before["accuracy"]["mean"] == 1 - read(alone)["held_out"]["accuracy"]["mean"]
    assert "gain" not in before
    assert after["accuracy"] == read(both)["held_out"]["accuracy"]
    difference = after["accuracy"]["mean"] - before["accuracy"]["mean"]
    assert difference > 0.5
    assert after["gain"]["mean"] == pytest.approx(difference)
    assert after["gain"]["n"] == 12


def test_members_that_leave_out_folds_differ_and_judge_each_others(stage, context):
    place = context()
    run(stage(ensemble={"members": 2, "data": "folds"}), place)
    record = read(place)
    first, second = (RewardModel.load(place.folder / "members" / str(i)) for i in (0, 1))
    assert record["folds"]["out_of_fold"]["accuracy"]["n"] == 28
    assert len(record["members"]["accuracies"]) == 2
    asked, answers = [Prompt("p", (Message("user", "is 7 there"),))] * 2, ["yes a", "no b"]
    assert first.score(asked, answers) != second.score(asked, answers)
    model = RewardModel.load(place.folder / "model")
    assert model.score(asked, answers) == first.score(asked, answers)


def test_averaged_weights_are_the_mean_of_members_with_one_first_head(stage, context):
    place = context()
    options = {"members": 2, "combine": "weights"}
    run(stage(ensemble=options), place)
    folders = [place.folder / "members" / str(i) for i in (0, 1)]
    members = [dict(RewardModel.load(folder).model.named_parameters()) for folder in folders]
    for name, weight in RewardModel.load(place.folder / "model").model.named_parameters():
        expected = (members[0][name] + members[1][name]) / 2
        torch.testing.assert_close(weight, expected, rtol=0, atol=1e-7)
    # Heads drawn apart would be nearly orthogonal; a few steps do not turn one that was shared.
    heads = [member["score.weight"].flatten() for member in members]
    assert torch.cosine_similarity(*heads, dim=0) > 0.8


def test_members_score_together_where_a_policy_is_trained(stage, context):
    place = context()
    run(stage(ensemble={"members": 2}), place)
    config = RewardConfig.model_validate(
        {"model": str(place.folder / "model"), "ensemble": {"combine": "min"}}
    )
    members = load_members(config, place, torch.float32)
    reward = model_reward(config, members[0], members, None)
    assert isinstance(reward, EnsembleReward)
    asked = Prompt("p", (Message("user", "is 7 there"),))
    answer = Completion("p", (1,), (-1.0,), "yes a", StopReason.STOP_TOKEN)
    (score,) = reward([asked], [answer])
    alone = [member.score([asked], ["yes a"])[0] for member in members]
    assert score.value == pytest.approx(min(alone))
    assert score.measures["disagreement"] == pytest.approx(abs(alone[0] - alone[1]) / 2, abs=1e-6)


def test_an_ensemble_without_members_is_refused(stage, context):
    place = context()
    run(stage(), place)
    config = RewardConfig.model_validate({"model": str(place.folder / "model"), "ensemble": {}})
    with pytest.raises(ConfigError, match="no folder `members`"):
        load_members(config, place, torch.float32)


def test_more_folds_than_prompts_are_refused(stage, context):
    with pytest.raises(DataError, match="fewer folds"):
        run(stage(count=2, held_out=0.5, folds=2), context())


def test_gate_refuses_warns_and_lets_pass(tmp_path):
    lead = {"mean": 0.2, "low": 0.1, "high": 0.3}
    accuracy = {"mean": 0.7, "low": 0.6, "high": 0.8, "n": 50}
    baseline = {"accuracy": accuracy, "lead": lead, "better": True}
    record = {"held_out": {"accuracy": accuracy, "baselines": {"length": baseline}}}
    (tmp_path / "reward.json").write_text(json.dumps(record))
    model, heard = tmp_path / "model", []
    model.mkdir()
    check_gate(None, model, "rm", heard.append)
    check_gate(GateConfig(accuracy=0.65), model, "rm", heard.append)
    assert heard == []
    with pytest.raises(RewardError, match=r"'rm' does not pass.*at least 80.0% is asked for"):
        check_gate(GateConfig(accuracy=0.8), model, "rm", heard.append)
    check_gate(GateConfig(accuracy=0.8, action="warn"), model, "rm", heard.append)
    assert len(heard) == 1
    (tmp_path / "reward.json").unlink()
    with pytest.raises(RewardError, match="tutelage reward evaluate"):
        check_gate(GateConfig(), model, "rm", heard.append)


def encoder_folder(path, architecture: str, pair_tokenizer) -> str:
    sizes = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 128,
    }
    if architecture == "deberta-v2":
        # As DeBERTa-v3 has it.
        sizes |= {
            "relative_attention": True,
            "position_buckets": 16,
            "norm_rel_ebd": "layer_norm",
            "share_att_key": True,
            "pos_att_type": "p2c|c2p",
            "position_biased_input": False,
            "type_vocab_size": 0,
        }
    config = AutoConfig.for_model(
        architecture, vocab_size=len(pair_tokenizer), pad_token_id=0, num_labels=1, **sizes
    )
    torch.manual_seed(0)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(path)
    pair_tokenizer.save_pretrained(path)
    return str(path)


@pytest.mark.parametrize("architecture", ["bert", "deberta-v2"])
def test_encoders_are_trained_saved_and_measured(
    architecture, stage, context, tmp_path, pair_tokenizer, write_rows
):
    """The same stage on a BERT-like and a DeBERTa-v3-like folder learns what the label follows."""
    place = context()
    backbone = encoder_folder(tmp_path / architecture, architecture, pair_tokenizer)
    run(stage(model=backbone), place)
    model = RewardModel.load(place.folder / "model")
    assert not model.causal
    pairs = load_pairs([tmp_path / "pairs.jsonl"])
    record = evaluate_reward(model.eval(), pairs)
    assert record["held_out"]["accuracy"]["n"] == 40
    assert record["held_out"]["accuracy"]["mean"] > 0.9


def test_scores_are_added_to_rows_of_every_form(tmp_path, tiny_scorer, tiny_tokenizer, write_rows):
    model = RewardModel(tiny_scorer, tiny_tokenizer, max_length=32).eval()
    asked = {"id": "1", "prompt": [{"role": "user", "content": "hi"}]}
    source = write_rows(
        "answers.jsonl",
        [
            {**asked, "completions": ["yes", {"text": "no"}, "x" * 60]},
            {**asked, "chosen": "yes", "rejected": "no"},
        ],
    )
    target = tmp_path / "scored.jsonl"

    assert score_samples(model, Path(source), target) == 5
    first, second = (json.loads(line)["scores"] for line in target.read_text().splitlines())
    prompt = Prompt("1", (Message("user", "hi"),))
    expected = model.score([prompt] * 2, ["yes", "no"])
    assert first[:2] == pytest.approx(expected, abs=1e-5)
    assert first[2] is None
    assert second == pytest.approx(expected, abs=1e-5)
    with pytest.raises(DataError, match="no answers to score"):
        score_samples(model, Path(write_rows("bad.jsonl", [asked])), target)


def test_the_table_of_other_files_has_models_and_baselines(stage, context, write_rows, capsys):
    place = context()
    run(stage(folds=3), place)
    training = write_rows("pairs.jsonl", rows(40))
    others = write_rows("others.jsonl", rows(30, seed=1))
    reward_transfer.main([training, str(place.folder), "--test", others, "--limit", "20"])
    printed = capsys.readouterr().out.splitlines()
    cells = {line.split(" | ")[0].strip("| "): line.strip("| ").split(" | ") for line in printed}
    assert cells["by"][1:] == ["held out", "cross-validated", "others"]
    counts = ["of 12", "of 28", "of 20"]
    for name in (place.folder.name, "length", "words"):
        assert [cell[-5:] for cell in cells[name][1:]] == counts
    record = read(place)
    accuracy = record["folds"]["out_of_fold"]["accuracy"]["mean"]
    assert cells[place.folder.name][2].startswith(f"{100 * accuracy:.1f} [")
    measured = evaluate_reward(
        RewardModel.load(place.folder / "model"), load_pairs([others], 20), load_pairs([training])
    )
    words = measured["held_out"]["baselines"]["words"]["accuracy"]["mean"]
    assert cells["words"][3].startswith(f"{100 * words:.1f} [")

"""What one does with a reward model that is trained: measure it on files, score files.

model folders, pairs ──evaluate_reward──> a record like reward.json for each
model folder, samples ──score_samples───> the same rows with scores
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tutelage.data.jsonl import read_jsonl, write_jsonl
from tutelage.data.judged_pairs import load_judged_pairs
from tutelage.distributed import cores_for
from tutelage.errors import DataError
from tutelage.evaluation.reward_bench import section_scores
from tutelage.evaluation.reward_quality import quality
from tutelage.evaluation.reward_report import measure_pairs
from tutelage.evaluation.scored_pairs import ScoredPairs
from tutelage.models import RewardModel
from tutelage.pipeline.graph import available_cores
from tutelage.records import Preference, Prompt
from tutelage.tracking.manifest import MANIFEST
from tutelage.trainers.reward import preference_margins

__all__ = ["answers_of", "evaluate_reward", "load_pairs", "load_reward", "score_samples"]


def load_reward(source: str, max_length: int | None = None) -> RewardModel:
    """A reward model's folder, that of the stage that trained it, or a name on a model hub."""
    folder = Path(source)
    model = folder / "model" if (folder / MANIFEST).is_file() else source
    return RewardModel.load(model, max_length=max_length).eval().requires_grad_(False)


def load_pairs(files: Sequence[Path], limit: int | None = None) -> list[Preference]:
    """The pairs of all files, the first `limit` of each."""
    return [row for file in files for row in load_judged_pairs(file, limit)]


def evaluate_reward(
    model: RewardModel,
    pairs: Sequence[Preference],
    training: Sequence[Preference] = (),
    *,
    seed: int = 0,
) -> dict[str, Any]:
    """Everything that is known of a reward model from these pairs, in the form of `reward.json`.

    Args:
        model: the reward model.
        pairs: none of which it was trained on.
        training: what the baselines learn from; without, they are cross-validated on the pairs.
        seed: of the bootstrap.
    """
    margins = preference_margins(model, pairs, cores=cores_for(model, available_cores()))
    scored = ScoredPairs.of(pairs, margins)
    measured = quality(scored.margins.tolist(), scored.labels.tolist(), seed=seed)
    record = measured.to_json() | {"held_out": measure_pairs(scored, training, seed=seed)}
    record["unscored"] = len(pairs) - len(scored)
    sections = section_scores(scored)
    return record | ({"reward_bench": sections} if sections else {})


def score_samples(model: RewardModel, source: Path, target: Path) -> int:
    """Copies rows of a prompt with completions, or with an answer, and adds `scores`.

    Scores are in the model's sigmas, null for a text that is too long.

    Returns:
        The number of texts scored.

    Raises:
        DataError: a row has neither completions, a and b, nor chosen and rejected.
    """
    rows = [(line, row) for line, row in read_jsonl(source)]
    texts = [answers_of(row, f"{source}:{line}") for line, row in rows]
    prompts = [Prompt.from_json(row) for _, row in rows]
    flat = [(p, text) for p, each in zip(prompts, texts, strict=True) for text in each]
    found = model.score(
        [prompt for prompt, _ in flat],
        [text for _, text in flat],
        cores=cores_for(model, available_cores()),
    )
    scores = iter(found)
    scored = (
        {**row, "scores": [next(scores) for _ in each]}
        for (_, row), each in zip(rows, texts, strict=True)
    )
    write_jsonl(target, scored)
    return len(flat)


def answers_of(row: Mapping[str, Any], where: str) -> list[str]:
    """The texts of a row that answer its prompt; `where` is the row's place, for messages."""
    if "completions" in row:
        return [item["text"] if isinstance(item, dict) else item for item in row["completions"]]
    for keys in (("a", "b"), ("chosen", "rejected")):
        if all(key in row for key in keys):
            return [row[key] for key in keys]
    raise DataError(
        f"{where} has no answers to score: expected completions, a and b, or chosen and rejected"
    )

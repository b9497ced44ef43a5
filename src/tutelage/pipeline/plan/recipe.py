"""The plan of a recipe: each of its stages, and which of them run at the same time."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tutelage.config import (
    ChooseStage,
    DPOStage,
    EvaluateStage,
    PreferStage,
    PretrainStage,
    Recipe,
    ReviseStage,
    RewardStage,
    SampleStage,
    SelectStage,
    SFTStage,
    Stage,
    TrainStage,
    referenced_name,
)
from tutelage.errors import ConfigError
from tutelage.pipeline.graph import needed_stages
from tutelage.pipeline.plan.parts import Place, StagePlan
from tutelage.pipeline.plan.reinforcement import RewardSizes, plan_train
from tutelage.pipeline.plan.rows import Rows, answer_of, rows_of
from tutelage.pipeline.plan.sampling import (
    plan_choose,
    plan_evaluate,
    plan_sample,
    plan_select,
    plan_writing,
)
from tutelage.pipeline.plan.sizes import ModelSize, count_model, size_of_shape
from tutelage.pipeline.plan.training import plan_dpo, plan_pretrain, plan_reward, plan_sft
from tutelage.pipeline.references import MEMBERS, MODEL, References

__all__ = [
    "ALONE",
    "MODEL_KINDS",
    "RecipePlan",
    "model_sizes",
    "per_device",
    "plan_recipe",
    "recipe_references",
    "side_by_side",
]

MODEL_KINDS = frozenset(
    {
        "pretrain",
        "sft",
        "sample",
        "choose",
        "revise",
        "prefer",
        "reward",
        "dpo",
        "select",
        "train",
        "evaluate",
    }
)
"""Kinds of stages that may load a model."""

ALONE = "this stage"
"""Name of a stage that is run by itself: no reference can be taken for it."""


@dataclass(frozen=True)
class RecipePlan:
    """What the stages of a recipe need, alone and together."""

    stages: tuple[StagePlan, ...]
    together: tuple[str, ...]
    """Stages that may run at the same time and need the most then."""

    @property
    def peak(self) -> int:
        """Highest bytes at any time of the run."""
        return sum(stage.peak for stage in self.stages if stage.name in self.together)


def recipe_references(recipe: Recipe) -> References:
    """The references of a recipe that is not run: to its inputs, but to no stage's files."""
    given = {name: value for name, value in recipe.inputs.items() if value is not None}
    return References(
        {},
        {n: tuple(map(Path, [v] if isinstance(v, str) else v)) for n, v in given.items()},
    )


def model_sizes(
    recipe: Recipe, references: References, names: Iterable[str]
) -> dict[str, ModelSize]:
    """The size of every model that the named stages refer to, by its reference.

    A member of the ensemble beside a reward model has the reference `<reward model>/members/0`.

    Raises:
        ConfigError: a reference leads to no model.
        DataError: it names nothing that exists.
        ModelError: the configuration of a model cannot be read.
    """
    found: dict[str, ModelSize] = {}
    counted: dict[str, ModelSize] = {}
    for name in names:
        stage = recipe.stages[name]
        for reference in _model_references(stage):
            if reference not in found:
                found[reference] = _size_of(recipe, references, reference, counted)
        if isinstance(stage, TrainStage) and (model := _with_members(stage)) is not None:
            members = range(_count_members(recipe, references, model))
            found |= {f"{model}/{MEMBERS}/{number}": found[model] for number in members}
    return found


def _with_members(stage: TrainStage) -> str | None:
    """The reward model whose ensemble is that of its own stage."""
    ensemble = stage.reward.ensemble
    return stage.reward.model if ensemble is not None and not ensemble.models else None


def _count_members(recipe: Recipe, references: References, model: str) -> int:
    """Models of the ensemble that the reward model's stage trains, or has trained."""
    stage = recipe.stages.get(referenced_name(model))
    if isinstance(stage, RewardStage):
        return 0 if stage.ensemble is None else stage.ensemble.members
    folder = references.resolve(model, MODEL).parent / MEMBERS
    return len(list(folder.iterdir())) if folder.is_dir() else 0


def _model_references(stage: Stage) -> tuple[str, ...]:
    match stage:
        case SFTStage() | SampleStage() | RewardStage() | DPOStage():
            return (stage.model,)
        case ReviseStage() | PreferStage():
            return () if stage.model is None else (stage.model,)
        case SelectStage():
            return (stage.reward,)
        case ChooseStage():
            return stage.reward
        case TrainStage():
            watching = () if stage.guard is None else stage.guard.models()
            return (stage.model, *stage.reward.models(), *watching)
        case EvaluateStage():
            others = (stage.reward, stage.judge)
            return (*stage.models.values(), *(model for model in others if model is not None))
    return ()


def _size_of(
    recipe: Recipe, references: References, reference: str, counted: dict[str, ModelSize]
) -> ModelSize:
    """Follows a reference from stage to stage to where the shape of its model is known."""
    while (first := referenced_name(reference)) in recipe.stages:
        stage = recipe.stages[first]
        if isinstance(stage, PretrainStage):
            return size_of_shape(first, stage.model)
        if not isinstance(stage, SFTStage | RewardStage | DPOStage | TrainStage):
            raise ConfigError(
                f"{reference!r} is to be a model, but stage {first} is of kind {stage.kind}, "
                "which makes none"
            )
        reference = stage.model
    rest = reference.partition("/")[2]
    if first == "inputs" and rest in recipe.inputs and recipe.inputs[rest] is None:
        raise ConfigError(f"the size of {reference} is not known: add --inputs.{rest} FOLDER")
    source = str(references.resolve(reference, MODEL))
    if source not in counted:
        counted[source] = count_model(source)
    return counted[source]


@dataclass(frozen=True)
class _Data:
    """The rows that stages read, looked up where anybody wants to know."""

    recipe: Recipe
    references: References | None

    def rows(self, *wanted: str) -> Rows:
        """Of all that is referred to."""
        if self.references is None:
            return Rows()
        return rows_of(self.recipe, self.references, wanted, "rl.jsonl") or Rows()

    def documents(self, stage: PretrainStage) -> Rows:
        """What a model is first trained on."""
        if self.references is None:
            return Rows()
        return rows_of(self.recipe, self.references, stage.data, "documents.jsonl") or Rows()

    def asked(self, prompts: str, *models: str) -> Rows:
        """Prompts, with answers such as all of the models were trained to give."""
        if self.references is None:
            return Rows()
        answers = [answer_of(self.recipe, self.references, model) for model in models]
        known = [answer for answer in answers if answer is not None]
        longest = max(known) if len(known) == len(answers) else None
        return replace(self.rows(prompts), answer=longest)


def plan_recipe(
    recipe: Recipe,
    sizes: Mapping[str, ModelSize],
    names: Sequence[str],
    *,
    parallel: int,
    place: Place,
    process: int,
    references: References | None = None,
) -> RecipePlan:
    """Plans the named stages.

    Args:
        recipe: whose stages they are.
        sizes: from `model_sizes`.
        names: stages that will run; those without models need nothing.
        parallel: stages that may run side by side.
        place: the device.
        process: bytes of a stage's process without its models.
        references: of the recipe's inputs, whose rows are then counted and measured; without
            them only what the recipe says of them is known.
    """
    read = _Data(recipe, references)
    plans = []
    for name in names:
        plan = _plan_stage(name, recipe.stages[name], sizes, place, read)
        if plan is not None:
            plans.append(replace(plan, process=process))
    peaks = {plan.name: plan.peak for plan in plans}
    return RecipePlan(tuple(plans), side_by_side(recipe, peaks, parallel))


def _plan_stage(
    name: str, stage: Stage, sizes: Mapping[str, ModelSize], place: Place, data: "_Data"
) -> StagePlan | None:
    match stage:
        case PretrainStage():
            return plan_pretrain(
                name, stage, size_of_shape(name, stage.model), place, data.documents(stage)
            )
        case SFTStage():
            return plan_sft(name, stage, sizes[stage.model], place, data.rows(*stage.data))
        case RewardStage():
            return plan_reward(
                name,
                stage,
                sizes[stage.model],
                place,
                [data.rows(*phase.preferences) for phase in stage.phases],
            )
        case DPOStage():
            return plan_dpo(name, stage, sizes[stage.model], place, data.rows(*stage.preferences))
        case TrainStage():
            reward = _rewards(stage, sizes)
            return plan_train(
                name, stage, sizes[stage.model], reward, place, data.rows(stage.prompts)
            )
    return _plan_untrained(name, stage, sizes, place, data)


def _plan_untrained(
    name: str, stage: Stage, sizes: Mapping[str, ModelSize], place: Place, data: "_Data"
) -> StagePlan | None:
    """Of a stage that trains nothing; None where it has no model either."""
    match stage:
        case SampleStage():
            return plan_sample(
                name, stage, sizes[stage.model], place, data.asked(stage.prompts, stage.model)
            )
        case ReviseStage() | PreferStage() if stage.model is not None:
            return plan_writing(name, stage, sizes[stage.model], place)
        case ChooseStage():
            return _plan_choice(name, stage, sizes, place, data)
        case SelectStage():
            return plan_select(name, stage, sizes[stage.reward], place, data.rows(stage.samples))
        case EvaluateStage():
            asked = data.asked(stage.prompts, *stage.models.values())
            return _plan_evaluation(name, stage, sizes, place, asked)
    return None


def _rewards(stage: TrainStage, sizes: Mapping[str, ModelSize]) -> RewardSizes:
    chosen = stage.reward
    model = None if chosen.model is None else sizes[chosen.model]
    listed = () if chosen.ensemble is None else chosen.ensemble.models
    members = [sizes[reference] for reference in listed]
    if (of := _with_members(stage)) is not None:
        prefix = f"{of}/{MEMBERS}/"
        members = [size for reference, size in sizes.items() if reference.startswith(prefix)]
    watching = () if stage.guard is None else stage.guard.models()
    return RewardSizes(model, tuple(members), tuple(sizes[signal] for signal in watching))


def _plan_choice(
    name: str, stage: ChooseStage, sizes: Mapping[str, ModelSize], place: Place, data: "_Data"
) -> StagePlan | None:
    """Nothing to plan without reward models; with several, the largest counts."""
    if not stage.reward:
        return None
    largest = max((sizes[name] for name in stage.reward), key=lambda size: size.parameters)
    return plan_choose(name, stage, largest, place, data.rows(*stage.samples))


def _plan_evaluation(
    name: str, stage: EvaluateStage, sizes: Mapping[str, ModelSize], place: Place, data: Rows
) -> StagePlan:
    if stage.baseline not in stage.models:
        raise ConfigError(
            f"stages.{name}.baseline is {stage.baseline!r}, expected one of models: "
            f"{sorted(stage.models)}"
        )
    return plan_evaluate(
        name,
        stage,
        {label: sizes[reference] for label, reference in stage.models.items()},
        None if stage.reward is None else sizes[stage.reward],
        None if stage.judge is None else sizes[stage.judge],
        place,
        data,
    )


def side_by_side(recipe: Recipe, peaks: Mapping[str, int], parallel: int) -> tuple[str, ...]:
    """The stages, none of which needs another, that need the most together.

    Args:
        recipe: says who reads whom.
        peaks: bytes of each stage.
        parallel: most stages at a time.
    """
    before = {name: set(needed_stages(recipe, [name])) for name in peaks}
    order = sorted(peaks, key=lambda name: -peaks[name])
    best: tuple[int, tuple[str, ...]] = (0, ())

    def extend(chosen: tuple[str, ...], total: int, rest: Sequence[str]) -> None:
        nonlocal best
        if total > best[0]:
            best = (total, chosen)
        for i, name in enumerate(rest):
            room = parallel - len(chosen)
            # Not even the largest of those that are left could make it more.
            if total + sum(peaks[other] for other in rest[i : i + room]) <= best[0]:
                return
            free = [
                other
                for other in rest[i + 1 :]
                if other not in before[name] and name not in before[other]
            ]
            extend((*chosen, name), total + peaks[name], free)

    extend((), 0, order)
    return tuple(name for name in recipe.stages if name in best[1])


def per_device(recipe: Recipe, gpus: int) -> Recipe:
    """The share of one of several devices, each with a replica and its part of the rows."""

    def share(rows: int) -> int:
        return -(-rows // gpus)

    stages: dict[str, Stage] = {}
    for name, stage in recipe.stages.items():
        match stage:
            case PretrainStage():
                changed: Stage = stage.model_copy(update={"rows": share(stage.rows)})
            case SFTStage() | RewardStage() | DPOStage():
                rows = share(stage.batch.minibatch)
                batch = stage.batch.model_copy(update={"minibatch": rows})
                changed = stage.model_copy(update={"batch": batch})
            case TrainStage():
                whole = stage.learner
                batch = whole.batch.model_copy(update={"minibatch": share(whole.batch.minibatch)})
                part = {"batch": batch, "prompts_per_step": share(whole.prompts_per_step)}
                changed = stage.with_learner(whole.model_copy(update=part))
            case SampleStage() | SelectStage() | EvaluateStage() if stage.limit is not None:
                changed = stage.model_copy(update={"limit": share(stage.limit)})
            case _:
                changed = stage
        stages[name] = changed
    return recipe.model_copy(update={"stages": stages})

"""The stages a recipe is made of, one section per `kind`.

A *reference* names what a stage reads. `sft` is the output of the stage called sft,
`world/rl.jsonl` a file inside a stage's folder, `inputs/reviews` a file the user gives on
the command line; anything else is a path or, for models, a name on a model hub.
"""

from collections.abc import Iterator
from typing import Annotated, Literal, Self

from pydantic import (
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    StringConstraints,
    model_validator,
)

from tutelage.config.adapters import LoRAConfig
from tutelage.config.base import Section
from tutelage.config.choose import ChooseStage
from tutelage.config.constitution import PreferStage, ReviseStage
from tutelage.config.dpo import DPOStage
from tutelage.config.environment import EnvironmentConfig
from tutelage.config.humans import HumansConfig
from tutelage.config.judge import file_of
from tutelage.config.reward_stage import RewardStage
from tutelage.config.rounds import SamplingConfig
from tutelage.config.select import SelectStage
from tutelage.config.stage import Reference, StageSection
from tutelage.config.train import TrainStage
from tutelage.config.training import BatchConfig, OptimizerConfig, PrecisionConfig, Share

__all__ = [
    "ArithmeticStage",
    "EvaluateStage",
    "HelpdeskStage",
    "LabelStage",
    "ModelShape",
    "OpeningsStage",
    "PairsStage",
    "PretrainStage",
    "SFTStage",
    "SampleStage",
    "SplitStage",
    "Stage",
]

PartName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$", max_length=64)]


class HelpdeskStage(StageSection):
    """Writes the corpora and prompts of the built-in helpdesk world."""

    kind: Literal["helpdesk"] = "helpdesk"
    preset: Literal["nano", "micro"] = "nano"
    """Size of the world: nano has 5 intents, micro 12."""
    documents: PositiveInt = 12_000
    """Documents for pre-training."""
    demonstrations: PositiveInt = 12_000
    """Demonstrations of mediocre quality for supervised fine-tuning."""
    train_prompts: PositiveInt = 8_000
    """Prompts whose answers are compared to train the reward models."""
    rl_prompts: PositiveInt = 8_000
    """Prompts for reinforcement learning."""
    held_out_prompts: PositiveInt = 512
    """Prompts for reward-model validation and for probes during training."""
    test_prompts: PositiveInt = 512
    """Prompts for the evaluation, with phrases, names and attacks not seen before."""
    turns: PositiveInt = 1
    """Questions in a demonstration at most, and before a prompt of `train`: above 1 they are
    conversations with the simulated customer. The other prompts always open a conversation."""


class ArithmeticStage(StageSection):
    """Writes additions and subtractions: texts to learn them from, and prompts to ask them."""

    kind: Literal["arithmetic"] = "arithmetic"
    digits: Annotated[int, Field(ge=1, le=3)] = 2
    """Digits of the operands at most."""
    documents: PositiveInt = 4_000
    """Documents for pre-training, of eight sums each."""
    demonstrations: PositiveInt = 4_000
    """Sums with their results for supervised fine-tuning."""
    rl_prompts: PositiveInt = 4_000
    """Prompts for reinforcement learning."""
    held_out_prompts: PositiveInt = 512
    """Prompts for probes during training."""
    test_prompts: PositiveInt = 512
    """Prompts for the evaluation. No sum is in two of these sets, but for those of documents and
    demonstrations."""


class ModelShape(Section):
    """A Llama trained from scratch."""

    hidden_size: PositiveInt = 96
    """Width of the residual stream."""
    layers: PositiveInt = 3
    """Transformer blocks."""
    heads: PositiveInt = 3
    """Attention heads."""
    mlp_size: PositiveInt = 256
    """Width of the feed-forward blocks."""
    context: PositiveInt = 512
    """Longest sequence."""
    vocabulary: PositiveInt = 1024
    """Largest vocabulary of the byte-level BPE tokenizer."""


class PretrainStage(StageSection):
    """Trains a tokenizer and a small causal language model from nothing."""

    kind: Literal["pretrain"] = "pretrain"
    data: tuple[Reference, ...]
    """Documents: recall documents of a world, or files of the `text` schema."""
    tokenizer_data: tuple[Reference, ...] = ()
    """Demonstrations whose words the tokenizer should know too."""
    model: ModelShape = ModelShape()
    steps: PositiveInt = 500
    """Optimiser steps at most."""
    rows: PositiveInt = 32
    """Sequences per step."""
    length: PositiveInt = 256
    """Tokens per sequence of plain text."""
    other_weight: Share = 0.1
    """Loss weight of what the assistant says beside the facts, where documents mark facts."""
    read_weight: Share = 0.02
    """Loss weight of what is only read, where documents mark facts."""
    fact_accuracy: Share = 0.995
    """Stop early at this accuracy on facts, where documents mark facts."""
    optimizer: OptimizerConfig = OptimizerConfig(
        learning_rate=3e-3, beta2=0.95, epsilon=1e-8, warmup=0.05, floor=0.1, weight_decay=0.01
    )
    precision: PrecisionConfig = PrecisionConfig()

    def references(self) -> Iterator[str]:
        """The documents and the demonstrations."""
        yield from self.data
        yield from self.tokenizer_data


class SFTStage(StageSection):
    """Supervised fine-tuning on demonstrations."""

    kind: Literal["sft"] = "sft"
    model: Reference
    """The model to start from."""
    data: tuple[Reference, ...]
    """Files of the `sft` schema, or of the `preference` schema, whose `chosen` is imitated."""
    epochs: PositiveFloat = 1.0
    """Passes over the data; a fraction stops early."""
    limit: PositiveInt | None = None
    """Use only the first rows."""
    max_length: PositiveInt = 1024
    """Tokens of a conversation; longer ones are left out and counted."""
    batch: BatchConfig = BatchConfig()
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=2e-5, warmup=0.03, floor=0.3)
    lora: LoRAConfig | None = None
    """Train adapters and leave the model's own weights as they are; unset trains all weights."""
    precision: PrecisionConfig = PrecisionConfig()

    def references(self) -> Iterator[str]:
        """The model and the demonstrations."""
        yield self.model
        yield from self.data


class SampleStage(StageSection):
    """Draws completions for prompts."""

    kind: Literal["sample"] = "sample"
    model: Reference
    """The model to sample from."""
    prompts: Reference
    """A file of the `prompts` schema."""
    limit: PositiveInt | None = None
    """Use only the first prompts."""
    max_prompt_tokens: PositiveInt = 512
    """Longer prompts are left out and counted."""
    sampling: SamplingConfig = SamplingConfig(samples_per_prompt=2)

    def references(self) -> Iterator[str]:
        """The model and the prompts."""
        yield self.model
        yield self.prompts


class LabelStage(StageSection):
    """Asks an annotator which of two completions is better."""

    kind: Literal["label"] = "label"
    samples: Reference | None = None
    """The stage or file that holds several completions per prompt, of which comparisons are
    built."""
    comparisons: Reference | None = None
    """In place of `samples`, comparisons that are built already: a stage of kind `choose`, or a
    file of prompts with `a` and `b`."""
    feedback: Literal["simulation", "humans", "judge"] = "simulation"
    """humans: the comparisons go to the annotation page, and the stage waits for their labels.
    judge: a judge of your own is asked, in both orders."""
    humans: HumansConfig = HumansConfig()
    judge: str | None = None
    """Who is asked with `feedback: judge`: a YAML file with the options of `tutelage judge`, or a
    Python function FILE.py:NAME of comparisons."""
    max_failed_share: Share = 0.25
    """Stop when the judge can tell nothing of a larger share of the comparisons."""
    annotator: Literal["people", "judge"] | None = None
    """Who answers in the simulation: simulated people (noisy, they like long and polite answers)
    or a simulated AI judge (consistent, but blind to some facts), both of the helpdesk world."""
    preset: Literal["nano", "micro"] = "nano"
    """The world the annotators know."""
    wrong_category: str | None = None
    """A category of prompts on which the simulated judge prefers the worse answer."""
    pairs_per_prompt: PositiveInt = 1
    """Comparisons built from each prompt's completions."""
    limit: PositiveInt | None = None
    """Comparisons to label at most."""

    def references(self) -> Iterator[str]:
        """The samples or the comparisons."""
        if self.samples is not None:
            yield self.samples
        if self.comparisons is not None:
            yield self.comparisons

    @model_validator(mode="after")
    def _asked_about_something(self) -> Self:
        if (self.samples is None) == (self.comparisons is None):
            raise ValueError(
                f"samples is {self.samples!r} and comparisons is {self.comparisons!r}: set one of "
                "them, samples to have comparisons built, comparisons to give them"
            )
        return self

    @model_validator(mode="after")
    def _only_the_judge_errs(self) -> Self:
        if self.wrong_category is not None and self.annotator != "judge":
            raise ValueError(
                f"wrong_category is {self.wrong_category!r}, which reverses the simulated judge, "
                f"and annotator is {self.annotator!r}: leave it out, or set annotator to 'judge'"
            )
        return self

    def files(self) -> Iterator[tuple[str, str]]:
        """Files of the user's own that say what the stage does: the key that names each, and it."""
        if self.judge is not None:
            yield "judge", file_of(self.judge)

    @property
    def asked(self) -> Literal["people", "judge"]:
        """Who answers: for whom a `choose` stage has comparisons in a file of that name."""
        if self.feedback == "simulation":
            return self.annotator or "people"
        return "judge" if self.feedback == "judge" else "people"

    @model_validator(mode="after")
    def _somebody_answers(self) -> Self:
        if self.feedback == "simulation" and self.annotator is None:
            raise ValueError(
                "annotator is missing: people or judge of the helpdesk world; or ask people on "
                "the annotation page with feedback: humans, or a judge model with feedback: judge"
            )
        if self.feedback == "judge" and self.annotator is not None:
            raise ValueError(
                f"feedback is 'judge' and annotator is {self.annotator!r}, which belongs to the "
                "simulation: leave annotator out, or judge and feedback"
            )
        if (self.feedback == "judge") != (self.judge is not None):
            raise ValueError(
                f"feedback is {self.feedback!r} and judge is {self.judge!r}: set both, feedback to "
                "'judge' and judge to a YAML file or FILE.py:NAME, or neither"
            )
        return self


class SplitStage(StageSection):
    """Deals the rows of files out to disjoint parts, for training and for tests."""

    kind: Literal["split"] = "split"
    data: tuple[Reference, ...]
    """Files of any schema. Rows with the same text, or whose conversations begin alike, stay
    together."""
    parts: Annotated[dict[PartName, Share], Field(min_length=1)]
    """Name of a part -> its share of the rows; part `rl` is written to `rl.jsonl`."""

    def references(self) -> Iterator[str]:
        """The files."""
        yield from self.data

    @model_validator(mode="after")
    def _shares_fit(self) -> Self:
        total = sum(self.parts.values())
        if total > 1.0 + 1e-9:
            raise ValueError(f"the shares of parts add up to {total:g}, 1 at most is allowed")
        return self


class PairsStage(StageSection):
    """Builds preferences from labelled texts: a positive one is preferred to a negative one.

    The texts of a pair begin with the same word, which is the pair's prompt. Each text is in
    one pair at most; those without a partner go to `unpaired.jsonl`.
    """

    kind: Literal["pairs"] = "pairs"
    data: tuple[Reference, ...]
    """Files of the `labelled` schema with label 0 (negative) or 1 (positive)."""
    count: PositiveInt = 4_000
    """Pairs to build."""
    max_words: PositiveInt = 64
    """Words of a text that are kept."""

    def references(self) -> Iterator[str]:
        """The labelled files."""
        yield from self.data


class OpeningsStage(StageSection):
    """Makes prompts of the first words of texts, to be continued by the policy."""

    kind: Literal["openings"] = "openings"
    data: tuple[Reference, ...]
    """Files with a `text` field."""
    words: tuple[PositiveInt, PositiveInt] = (3, 8)
    """Fewest and most words of an opening."""
    train: PositiveInt = 4_000
    """Prompts for training."""
    test: PositiveInt = 300
    """Prompts for the evaluation, from other texts."""

    def references(self) -> Iterator[str]:
        """The texts."""
        yield from self.data


class EvaluateStage(StageSection):
    """Compares models on held-out prompts by signals the policy never trained on."""

    kind: Literal["evaluate"] = "evaluate"
    models: Annotated[dict[str, Reference], Field(min_length=1)]
    """Label in the report -> model."""
    baseline: str
    """The label the others are compared with."""
    prompts: Reference
    """A file of the `prompts` schema."""
    limit: PositiveInt | None = None
    """Use only the first prompts."""
    max_prompt_tokens: PositiveInt = 512
    """Longer prompts, by the baseline's tokens, are left out and counted."""
    rater: Literal["helpdesk", "lexicon", "judge", "verifier", "none"] = "none"
    """Held-out signal: the helpdesk world's gold score, the VADER sentiment lexicon, a second
    reward model, or a verifier's verdict."""
    judge: Reference | None = None
    """The second reward model, trained on other preferences than `reward`."""
    win_rate: str | None = None
    """Who compares each model's answers with the baseline's, in both orders: a YAML file that
    describes a judge model (`JudgeConfig`), or a Python function `path.py:name` of comparisons."""
    verifier: str | None = None
    """The verifier whose accuracy is measured; the prompts need what it checks against."""
    reward: Reference | None = None
    """Reward model whose score is the proxy."""
    best_of_n: dict[str, PositiveInt] = Field(default_factory=dict)
    """Label in the report -> n: the best of n answers of the baseline, as `reward` scores them.
    Nothing is trained for it, and every answer costs n."""
    probes: dict[str, Reference] = Field(default_factory=dict)
    """Label in the report -> training stage whose probes are judged."""
    environment: EnvironmentConfig | None = None
    """Who answers the models, for conversations instead of single answers. Measures are then means
    over the answers of a conversation."""
    sampling: SamplingConfig = SamplingConfig()
    show: NonNegativeInt = 12
    """Prompts whose answers are shown side by side."""

    def references(self) -> Iterator[str]:
        """The models, the prompts, the reward model and the probes."""
        yield from self.models.values()
        yield self.prompts
        for model in (self.reward, self.judge):
            if model is not None:
                yield model
        yield from self.probes.values()

    @model_validator(mode="after")
    def _judge_is_asked(self) -> Self:
        if (self.rater == "judge") != (self.judge is not None):
            raise ValueError(
                f"rater is {self.rater!r} and judge is {self.judge!r}: set both, rater to 'judge' "
                "and judge to the second reward model, or neither"
            )
        return self

    def files(self) -> Iterator[tuple[str, str]]:
        """Files of the user's own that say what the stage does: the key that names each, and it."""
        if self.win_rate is not None:
            yield "win_rate", file_of(self.win_rate)

    @model_validator(mode="after")
    def _answers_are_compared(self) -> Self:
        if self.win_rate is not None and self.environment is not None:
            raise ValueError(
                "win_rate and environment are set, but a judge compares answers and not "
                "conversations: leave one of them out"
            )
        return self

    @model_validator(mode="after")
    def _verifier_is_asked(self) -> Self:
        if (self.rater == "verifier") != (self.verifier is not None):
            raise ValueError(
                f"rater is {self.rater!r} and verifier is {self.verifier!r}: set both, rater to "
                "'verifier' and verifier to its name, or neither"
            )
        return self

    @model_validator(mode="after")
    def _best_of_n_has_a_reward_and_a_name(self) -> Self:
        if self.best_of_n and self.reward is None:
            raise ValueError(
                "best_of_n is set and reward is not, which scores the answers: set reward"
            )
        if self.best_of_n and self.environment is not None:
            raise ValueError(
                "best_of_n and environment are set, but the best is taken among answers, not among "
                "conversations: leave one of them out"
            )
        twice = sorted(self.best_of_n.keys() & self.models.keys())
        if twice:
            raise ValueError(
                f"{twice[0]!r} is a label in both models and best_of_n: rename one of them"
            )
        return self


Stage = Annotated[
    HelpdeskStage
    | ArithmeticStage
    | PretrainStage
    | SFTStage
    | SampleStage
    | ChooseStage
    | LabelStage
    | ReviseStage
    | PreferStage
    | SplitStage
    | PairsStage
    | OpeningsStage
    | RewardStage
    | DPOStage
    | SelectStage
    | TrainStage
    | EvaluateStage,
    Field(discriminator="kind"),
]

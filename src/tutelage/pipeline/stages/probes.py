"""Answers to the same prompts every few rounds of training, for the evaluation to judge."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from tutelage.config import EnvironmentConfig, TrainStage
from tutelage.data.jsonl import write_jsonl
from tutelage.data.loaders import load_prompts
from tutelage.distributed import Cores
from tutelage.generation import LocalEngine, Sampling
from tutelage.models import Policy
from tutelage.pipeline.context import StageContext
from tutelage.pipeline.stages.conversation import conversing
from tutelage.pipeline.stages.preparation import encode, generator
from tutelage.records import Completion, EncodedPrompt, Prompt
from tutelage.safety.guard import Measurement
from tutelage.trainers.divergence import sequence_kl
from tutelage.trainers.evidence import sample
from tutelage.trainers.finite import FiniteGuard

__all__ = ["Probe", "Probed"]


@dataclass(frozen=True)
class Probed:
    """The answers of one probe."""

    step: int
    prompts: Sequence[Prompt]
    completions: Sequence[Completion]
    divergence: Sequence[float]
    """k1 estimate of each answer's KL from the reference, in nats."""


@dataclass
class Probe:
    """Answers to the same prompts every few rounds, for the evaluation to judge."""

    prompts: Sequence[EncodedPrompt]
    engine: LocalEngine
    reference: Policy
    sampling: Sampling
    seed: int
    every: int
    rows: list[dict[str, Any]]
    context: StageContext
    environment: EnvironmentConfig | None = None

    @classmethod
    def of(
        cls,
        config: TrainStage,
        context: StageContext,
        tokenizer: PreTrainedTokenizerBase,
        policy: Policy,
        reference: Policy,
        sampling: Sampling,
        cores: Cores | None,
    ) -> "Probe | None":
        """The probe a recipe asks for."""
        if config.probes is None:
            return None
        path = context.resolve(config.probes, "held_out.jsonl")
        prompts = encode(context, tokenizer, load_prompts(path, config.probe_count))
        engine = LocalEngine(
            policy,
            tokenizer,
            generator(context, policy.model.device),
            notify=context.progress.message,
            cores=cores,
        )
        # A view with a temperature of its own: that of the training rounds may change.
        same = reference.around(reference.model, reference.backbone.within)
        return cls(
            prompts,
            engine,
            same,
            sampling,
            context.seed,
            config.probe_every,
            [],
            context,
            config.environment,
        )

    def due(self, done: int, total: int) -> bool:
        """Whether a probe is taken after `done` of `total` rounds."""
        return done % self.every == 0 or done == total

    @property
    def first(self) -> list[str]:
        """The answers before training, in the order of the prompts."""
        return [row["text"] for row in self.rows if row["step"] == 0]

    def take(self, step: int) -> Probed:
        """Answers the probe's prompts with the policy as it is, always from the same seed."""
        self.engine.generator.manual_seed(self.seed)
        sampling = Sampling(
            self.sampling.stop_tokens, self.sampling.max_tokens, self.sampling.temperature
        )
        guard = FiniteGuard(self.context.evidence)
        # A new one each time: the same customers come again.
        engine = conversing(self.environment, self.engine, self.engine.tokenizer, self.seed)
        completions = sample(engine, self.prompts, sampling, guard)
        divergence = sequence_kl(self.reference, self.prompts, completions, cores=self.engine.cores)
        for prompt, completion, kl in zip(self.prompts, completions, divergence, strict=True):
            row = {
                **prompt.prompt.to_json(),
                "step": step,
                "text": completion.text,
                "ended": not completion.truncated,
                "length": sum(completion.written),
                "kl": kl,
            }
            if completion.turns:
                row["turns"] = [turn.to_json() for turn in completion.turns]
            self.rows.append(row)
        return Probed(step, [each.prompt for each in self.prompts], completions, divergence)

    def write(self, measured: Sequence[Measurement] = ()) -> None:
        """Writes all probes, and under `values` what a guard has measured of each answer."""
        columns = {each.step: each.to_json()["columns"] for each in measured}
        write_jsonl(
            self.context.folder / "probes.jsonl",
            (
                row | _values(columns.get(row["step"]), number % len(self.prompts))
                for number, row in enumerate(self.rows)
            ),
        )


def _values(columns: Mapping[str, Sequence[float | None]] | None, place: int) -> dict[str, Any]:
    if columns is None:
        return {}
    return {"values": {name: column[place] for name, column in columns.items()}}

"""The guard in a training: measures each probe, asks the guard, and does what it says.

    Probe.take ──> Probed ──reward, signals──> Measurement ──Guard.judge──> Verdict
        best         guard/best/ <── state of the learning parts
        raise beta   coefficient x beta_factor
        roll back    guard/best/ ──> learning parts; then beta, which is never lowered, is raised
        stop         guard/best/ ──> learning parts; the rounds end

Rolling back restores policy, critic, optimisers and KL coefficient bit for bit, by the machinery
that resumes a stage. Prompts and random numbers are not turned back: the same rounds again would
end the same.
"""

import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.algorithms import KLCoefficient
from tutelage.config import GuardConfig, SignalConfig, TrainStage
from tutelage.distributed import Cores
from tutelage.errors import ConfigError
from tutelage.models import RewardModel
from tutelage.pipeline.context import StageContext
from tutelage.pipeline.judges import named_judge
from tutelage.pipeline.stages.kl_prior import prior_budget
from tutelage.pipeline.stages.probes import Probed
from tutelage.pipeline.stages.rewarding import reward_function
from tutelage.records import Completion, Prompt
from tutelage.rewards import ModelReward, Reward
from tutelage.safety.guard import (
    HELD_OUT,
    AgainstFirst,
    AtEqualLength,
    Clouds,
    Finding,
    Guard,
    Measurement,
    describe,
    disagreement,
    last_states,
    unit,
)
from tutelage.tracking.atomic import write_json_atomically
from tutelage.trainers.state import Part, RandomStates, load_parts, save_parts

__all__ = ["Learning", "Watch"]

_KEPT, _RECORD = "guard", "guard.json"
_SHOWN = 3
"""Answers shown for each alarm."""

Column = NDArray[np.float64]
SignalOf = Callable[[Sequence[str]], Reward]
"""A signal, given the answers before training."""


@dataclass(frozen=True)
class Learning:
    """What the guard may change."""

    parts: Mapping[str, Part]
    """Whose state a roll-back restores: policy, critic, learner, coefficient."""
    coefficient: KLCoefficient | None
    """beta, where there is one in the reward."""
    reload: Callable[[], None]
    """Gives the sampler the policy's weights."""


class Watch:
    """Measures probes by the reward and by the held-out signals, and acts on the verdicts."""

    def __init__(
        self,
        config: TrainStage,
        context: StageContext,
        opened: ExitStack,
        reward: Reward,
        model: RewardModel | None,
        cores: Cores | None = None,
    ) -> None:
        """Loads the held-out signals.

        Args:
            config: with a guard.
            context: finds the signals' files and takes what is written.
            opened: closes the processes of signals when it is closed.
            reward: what the policy is trained on.
            model: the reward model in it, if there is one.
            cores: read texts.

        Raises:
            ConfigError: a signal's function cannot be loaded, or the prior has nothing to say.
        """
        guard = config.guard
        assert guard is not None, "made for stages that have one"
        self._context, self._reward, self._model = context, reward, model
        self._signals = {
            name: _signal(signal, config, context, opened, cores)
            for name, signal in guard.signals.items()
        }
        guard = self._with_budget(guard)
        looks = math.ceil(config.learner.steps / config.probe_every)
        self.guard = Guard(guard, looks, context.progress.message)
        self._clouds: Clouds | None = None
        acts = guard.monitors.asked("roll_back") + guard.monitors.asked("stop")
        self._keeps = bool(self._signals) and bool(acts)
        self._best = context.folder / _KEPT / "best"
        self._evidence: list[dict[str, Any]] = []

    @property
    def state(self) -> dict[str, Part]:
        """What belongs to every checkpoint."""
        return {"guard": self.guard, "guard_evidence": self._evidence}

    def look(self, first: Sequence[str], now: Probed, learning: Learning) -> bool:
        """Judges a probe and acts.

        Args:
            first: the answers before training, in the order of the prompts.
            now: the probe just taken.
            learning: what is kept, restored and changed.

        Returns:
            Whether training is to go on.
        """
        # A reward may draw random numbers: those of the training are to be as without a guard.
        before = RandomStates().state_dict()
        verdict = self.guard.judge(self._measure(first, now))
        RandomStates().load_state_dict(before)
        self._write(verdict.findings, first, now)
        if verdict.best and self._keeps:
            self._keep(learning)
        if verdict.action in ("roll_back", "stop") and self.guard.best_step is not None:
            self._restore(learning)
        if verdict.action in ("roll_back", "raise_beta") and learning.coefficient is not None:
            learning.coefficient.scale(self.guard.config.beta_factor)
        return verdict.action != "stop"

    def finish(self) -> dict[str, float]:
        """Removes the kept state, which is no result of the stage; returns the summary."""
        shutil.rmtree(self._best.parent, ignore_errors=True)
        return self.guard.summary()

    def _with_budget(self, guard: GuardConfig) -> GuardConfig:
        monitors = guard.monitors
        if guard.best_of_n is None or monitors.kl_budget_limit is not None:
            return guard
        path = self._context.resolve(guard.best_of_n, "samples.jsonl")
        name, signal = next(iter(self._signals.items()))
        if guard.signals[name].judge is not None:
            raise ConfigError(
                f"guard.best_of_n reads what is gained off the first signal, and {name} is a "
                "judge, which only compares: put a model or a function first"
            )
        budget = prior_budget(path, self._reward, signal([]))
        self._context.progress.message(f"guard: a KL budget of {budget:.3g} nats by best-of-n")
        if math.isinf(budget):
            return guard
        limited = monitors.model_copy(update={"kl_budget_limit": budget})
        return guard.model_copy(update={"monitors": limited})

    def _measure(self, first: Sequence[str], now: Probed) -> Measurement:
        columns = {"proxy": _scores(self._reward, now)}
        columns |= {"kl": np.array(now.divergence), **describe(now.completions)}
        scorers = []
        for name, of_first in self._signals.items():
            signal = of_first(first)
            columns[f"{HELD_OUT}{name}"] = found = _scores(signal, now)
            if isinstance(signal, AtEqualLength):
                # Models are compared by their scores as they are.
                scorers.append(found + signal.slope * columns["length"])
        if self._model is not None:
            scorers.append(_scores(ModelReward(self._model), now))
            if self._model.causal:
                columns["outliers"] = self._outliers(self._model, first, now)
        if len(scorers) > 1:
            columns["disagreement"] = disagreement(scorers)
        return Measurement(now.step, columns)

    def _outliers(self, model: RewardModel, first: Sequence[str], now: Probed) -> Column:
        if self._clouds is None:
            # Not part of the state: it follows from the answers before training.
            self._clouds = Clouds.fit(last_states(model, now.prompts, first))
        texts = [completion.text for completion in now.completions]
        return np.array(self._clouds.outside(last_states(model, now.prompts, texts)))

    def _keep(self, learning: Learning) -> None:
        self._best.mkdir(parents=True, exist_ok=True)
        save_parts(learning.parts, self._best)

    def _restore(self, learning: Learning) -> None:
        coefficient = learning.coefficient
        beta = 0.0 if coefficient is None else coefficient.value
        load_parts(learning.parts, self._best)
        if coefficient is not None and 0.0 < coefficient.value < beta:
            coefficient.scale(beta / coefficient.value)
        learning.reload()

    def _write(self, findings: Sequence[Finding], first: Sequence[str], now: Probed) -> None:
        columns = {each.step: each.columns for each in self.guard.history}
        for finding in findings:
            change = columns[now.step][finding.column] - columns[0][finding.column]
            # The largest changes first; what could not be scored last.
            order = np.argsort(-np.abs(np.nan_to_num(change)), kind="stable")[:_SHOWN]
            samples = [_sample(int(i), finding.column, columns, first, now) for i in order]
            row = {"step": now.step, "monitor": finding.monitor, "samples": samples}
            self._evidence.append(row)
        measured = [
            {
                "step": each.step,
                "undone": each.undone,
                "means": {name: each.mean(name) for name in each.columns},
                "errors": {name: each.error(name) for name in each.columns},
            }
            for each in self.guard.history
        ]
        record = {
            "measurements": measured,
            "units": {
                name: unit(self.guard.history, name)
                for name in ("proxy", *self.guard.history[0].signals)
            },
            "alarms": self.guard.alarms,
            "samples": self._evidence,
            "best_step": self.guard.best_step,
            "roll_backs": self.guard.roll_backs,
        }
        write_json_atomically(self._context.folder / _RECORD, record)


def _signal(
    config: SignalConfig,
    stage: TrainStage,
    context: StageContext,
    opened: ExitStack,
    cores: Cores | None,
) -> SignalOf:
    if config.judge is not None:
        judge = named_judge(config.judge, "guard's judge", opened, context.progress.message)
        return lambda first: AgainstFirst(judge, first)
    reward: Reward
    if config.function is not None:
        reward = opened.enter_context(reward_function(config.function, stage.reward))
    else:
        assert config.model is not None, "a signal has one source"
        model = RewardModel.load(context.resolve(config.model, "model"))
        scored = ModelReward(model.requires_grad_(False), cores=cores)
        reward = AtEqualLength(scored, model.scale.length_slope)
    return lambda first: reward


def _scores(reward: Reward, probed: Probed) -> Column:
    scores = reward(probed.prompts, probed.completions)
    return np.array([score.value if score.ok else math.nan for score in scores])


def _sample(
    row: int,
    column: str,
    columns: Mapping[int, Mapping[str, Column]],
    first: Sequence[str],
    now: Probed,
) -> dict[str, Any]:
    prompt: Prompt = now.prompts[row]
    completion: Completion = now.completions[row]
    shown = dict.fromkeys(("proxy", column))
    return {
        "prompt": [message.to_json() for message in prompt.messages],
        "before": first[row],
        "now": completion.text,
        "values": {n: [float(columns[s][n][row]) for s in (0, now.step)] for n in shown},
    }

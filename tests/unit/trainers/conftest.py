"""A small world for the loops: tiny models, scripted or real samplers, gradients to look at."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tutelage.algorithms import FixedKL, KLCoefficient
from tutelage.config import BatchConfig, OptimizerConfig, PPOConfig
from tutelage.generation import Engine, FakeEngine, LocalEngine, Sampling
from tutelage.models import Critic, Policy, SharedCritic, recompute_activations
from tutelage.records import Completion, EncodedPrompt, Message, Prompt, Score
from tutelage.rewards import Reward
from tutelage.trainers.learner import Batch, Learner, Plan
from tutelage.trainers.optimizer import Optimizer
from tutelage.trainers.ppo import ppo
from tutelage.trainers.round import RoundStep

STOP = 2

SETTINGS: dict[str, Any] = {
    "steps": 100,
    "prompts_per_step": 4,
    "epochs": 1,
    "sampling": {"max_tokens": 8},
    "kl": {"coefficient": 0.1},
    "truncation": {"mode": "keep"},
    "policy": {"learning_rate": 1e-3, "schedule": "constant", "max_gradient_norm": 1e9},
    "critic": {"learning_rate": 1e-3, "schedule": "constant", "max_gradient_norm": 1e9},
}


class RecordingOptimizer(Optimizer):
    """Keeps the gradient of each step; `still` leaves the weights where they are."""

    def __init__(
        self,
        model: nn.Module,
        config: OptimizerConfig,
        total_steps: int = 100,
        *,
        still: bool = True,
    ) -> None:
        super().__init__(model, config, total_steps)
        self.still = still
        self.gradients: list[Tensor] = []

    def step(self) -> None:
        self.gradients.append(
            torch.cat(
                [
                    (torch.zeros_like(w) if w.grad is None else w.grad).flatten()
                    for w in self.weights
                ]
            )
        )
        if not self.still:
            super().step()


@dataclass
class RecordingLearner(Learner):
    """Keeps its plans and each minibatch's metrics; `before_fit` runs ahead of the updates."""

    before_fit: Callable[[], None] = lambda: None
    plans: list[Plan] = field(default_factory=list, init=False)
    minibatches: list[dict[str, float]] = field(default_factory=list, init=False)

    def plan(self, batch: Batch, epochs: int = 1) -> Plan:
        self.plans.append(super().plan(batch, epochs))
        return self.plans[-1]

    def fit(self, loss, batch, plan, *, observe=None, **options) -> dict[str, float]:
        def both(metrics: Mapping[str, float]) -> None:
            self.minibatches.append(dict(metrics))
            if observe is not None:
                observe(metrics)

        self.before_fit()
        return super().fit(loss, batch, plan, observe=both, **options)


def letters(prompts: Sequence[Prompt], completions: Sequence[Completion]) -> list[Score]:
    """A reward that varies: the share of low ids, and a little for length."""
    return [
        Score(sum(t < 20 for t in c.tokens) / len(c.tokens) + 0.1 * len(c.tokens))
        for c in completions
    ]


@dataclass
class Bench:
    """Everything that `ppo` takes, small."""

    policy: Policy
    reference: Policy
    critic: Critic
    engine: Engine
    reward: Reward
    learner: RecordingLearner
    prompts: list[EncodedPrompt]
    kl: KLCoefficient
    sampling: Sampling
    config: PPOConfig

    def run(self, rounds: int = 1) -> list[RoundStep]:
        """Trains for some rounds on the same prompts."""
        batches = [self.prompts] * rounds
        return list(
            ppo(
                self.policy,
                self.reference,
                self.critic,
                self.engine,
                self.reward,
                self.learner,
                batches,
                self.kl,
                self.sampling,
                self.config,
            )
        )

    def gradients(self, name: str) -> list[Tensor]:
        """Gradients of each optimiser step of `policy` or `value`."""
        optimizer = self.learner.optimizers[name]
        assert isinstance(optimizer, RecordingOptimizer)
        return optimizer.gradients


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for key, value in changes.items():
        inner = result.get(key)
        both = isinstance(value, Mapping) and isinstance(inner, Mapping)
        result[key] = merged(inner, value) if both else value  # type: ignore[arg-type]
    return result


def prompts_of(count: int) -> list[EncodedPrompt]:
    """Prompts "p0", "p1", ... of one to five tokens."""
    return [
        EncodedPrompt(
            Prompt(f"p{i}", (Message("user", f"question {i}"),)),
            tuple(8 + (i + k) % 40 for k in range(1 + i % 5)),
        )
        for i in range(count)
    ]


@pytest.fixture(scope="session")
def recording() -> type[RecordingOptimizer]:
    """The optimiser that keeps its gradients: `recording(model, config, still=True)`."""
    return RecordingOptimizer


@pytest.fixture
def bench(tiny_causal_lm, tiny_tokenizer) -> Callable[..., Bench]:
    """`bench(script=..., epochs=2, kl={"coefficient": 0})`: a small world with these settings.

    Without a script the policy's own sampler draws. The reference is another model than the
    policy unless `reference="same"`; the critic's head is random, and `trunk="shared"` puts it on
    the policy. `prepare` is called with the policy. `still` keeps weights in place.
    """

    def build(
        *,
        architecture: str = "llama",
        script: Callable[[EncodedPrompt, int], Sequence[int]] | None = None,
        reward: Reward = letters,
        reference: str = "other",
        still: bool = False,
        seed: int = 0,
        temperature: float = 1.0,
        compute: torch.dtype = torch.float32,
        train: Sequence[str] = ("policy", "value"),
        trunk: str = "own",
        prepare: Callable[[Policy], None] = lambda policy: None,
        **changes: Any,
    ) -> Bench:
        settings = merged(SETTINGS, changes)
        rows = settings["prompts_per_step"] * settings["sampling"].get("samples_per_prompt", 1)
        settings["batch"] = {"minibatch": rows, **settings.get("batch", {})}
        config = PPOConfig.model_validate(settings)
        policy = Policy(
            tiny_causal_lm(architecture),
            temperature=temperature,
            compute=compute,
            head_tokens=config.batch.head_tokens,
        )
        other = tiny_causal_lm(architecture, seed=1)
        critic = (
            SharedCritic(policy) if trunk == "shared" else Critic.from_policy(policy.model, compute)
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(2)
            nn.init.normal_(critic.head.weight, std=0.3)
        policy.freeze_layers(config.frozen_layers)
        prepare(policy)
        if config.batch.gradient_checkpointing:
            recompute_activations(policy.model)
            recompute_activations(critic.backbone.model)
        source = torch.Generator().manual_seed(seed)
        optimizers = {
            "policy": RecordingOptimizer(policy.model, config.policy, still=still),
            "value": RecordingOptimizer(critic, config.critic, still=still),
        }
        sampling = Sampling(
            frozenset({STOP}),
            config.sampling.max_tokens,
            config.sampling.temperature,
            config.sampling.samples_per_prompt,
        )
        return Bench(
            policy=policy,
            reference=(
                policy.frozen_copy()
                if reference == "same"
                else Policy(other, temperature=temperature, compute=compute).frozen_copy()
            ),
            critic=critic,
            engine=(
                LocalEngine(policy, tiny_tokenizer, torch.Generator().manual_seed(seed))
                if script is None
                else FakeEngine(script, policy=policy)
            ),
            reward=reward,
            learner=RecordingLearner(
                {name: optimizers[name] for name in train},
                BatchConfig(**config.batch.model_dump()),
                source,
            ),
            prompts=prompts_of(config.prompts_per_step),
            kl=FixedKL(config.kl.coefficient),
            sampling=sampling,
            config=config,
        )

    return build


@pytest.fixture(scope="session")
def ragged_script() -> Callable[[EncodedPrompt, int], list[int]]:
    """Responses of one to six tokens that end by themselves, other ones for each prompt."""

    def script(prompt: EncodedPrompt, sample: int) -> list[int]:
        i = int(prompt.prompt.id[1:]) + 3 * sample
        return [3 + (7 * i + 5 * k) % 60 for k in range(i % 6)] + [STOP]

    return script

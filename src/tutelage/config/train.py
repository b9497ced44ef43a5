"""The stage that trains a policy against a reward, and which algorithm learns."""

from collections.abc import Iterator, Mapping
from typing import Any, Literal, Self

from pydantic import (
    NonNegativeInt,
    PositiveInt,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from tutelage.config.adapters import LoRAConfig
from tutelage.config.environment import EnvironmentConfig
from tutelage.config.grpo import GRPOConfig
from tutelage.config.guard import GuardConfig
from tutelage.config.judge import GENERAL_RUBRIC, file_of
from tutelage.config.online_dpo import OnlineDPOConfig
from tutelage.config.ppo import PPOConfig
from tutelage.config.reinforce import ReinforceConfig, ReinforcePPConfig
from tutelage.config.reward import RewardConfig
from tutelage.config.rloo import RLOOConfig
from tutelage.config.rounds import RoundsConfig
from tutelage.config.stage import Reference, StageSection

__all__ = ["TrainStage"]

_SECTIONS = {
    "ppo": "ppo",
    "grpo": "grpo",
    "rloo": "rloo",
    "reinforce": "reinforce",
    "reinforce++": "reinforce_pp",
    "online_dpo": "online_dpo",
}
"""Algorithm -> key of its settings: a key of a recipe is a word."""


def _algorithm(section: str) -> str:
    return next(name for name, key in _SECTIONS.items() if key == section)


class TrainStage(StageSection):
    """Trains a policy against a reward by reinforcement learning."""

    kind: Literal["train"] = "train"
    algorithm: Literal["ppo", "grpo", "rloo", "reinforce", "reinforce++", "online_dpo"] = "ppo"
    """The learner; its settings are in the section of the same name."""
    model: Reference
    """The policy to start from; its frozen copy is the reference."""
    reward: RewardConfig = RewardConfig()
    """What the policy is paid for; empty where `online_dpo.judge` compares."""
    prompts: Reference
    """A file of the `prompts` schema."""
    limit: PositiveInt | None = None
    """Use only the first prompts."""
    max_prompt_tokens: PositiveInt = 512
    """Longer prompts are left out and counted."""
    environment: EnvironmentConfig | None = None
    """Who answers the policy, for completions of several turns; unset has one answer each."""
    critic: Literal["reward", "policy"] = "policy"
    """What the critic of PPO starts from: the reward model, or the policy with a zero head."""
    critic_trunk: Literal["own", "shared", "adapter"] = "own"
    """What the critic's head stands on. own: a copy of what it starts from. shared: the policy's
    trunk, which then learns from both losses; one pass serves both, and half the memory. adapter:
    the policy's model with an adapter of the critic's own, which needs `lora`."""
    ppo: PPOConfig | None = None
    """Settings of PPO; null takes the defaults."""
    grpo: GRPOConfig | None = None
    """Settings of GRPO, Dr. GRPO, DAPO and GSPO; null takes the defaults."""
    rloo: RLOOConfig | None = None
    """Settings of RLOO; null takes the defaults."""
    reinforce: ReinforceConfig | None = None
    """Settings of REINFORCE; null takes the defaults."""
    reinforce_pp: ReinforcePPConfig | None = None
    """Settings of REINFORCE++; null takes the defaults."""
    online_dpo: OnlineDPOConfig | None = None
    """Settings of online DPO; null takes the defaults."""
    lora: LoRAConfig | None = None
    """Train adapters of the policy. Its own weights, the adapters switched off, are then the
    reference: no copy is held."""
    probes: Reference | None = None
    """Prompts answered every `probe_every` rounds; the evaluation judges them afterwards."""
    probe_every: PositiveInt = 10
    """Rounds between probes."""
    probe_count: PositiveInt = 128
    """Prompts in a probe."""
    guard: GuardConfig | None = None
    """Watches the probes for a reward that is gamed; unset watches nothing."""
    log_samples: NonNegativeInt = 3
    """Completions written to samples.jsonl in each round."""

    def references(self) -> Iterator[str]:
        """The policy, the reward, the prompts and the probes."""
        yield self.model
        yield from self.reward.references()
        yield self.prompts
        if self.probes is not None:
            yield self.probes
        if self.guard is not None:
            yield from self.guard.references()

    @property
    def learner(self) -> RoundsConfig:
        """The settings of the chosen algorithm."""
        settings = getattr(self, _SECTIONS[self.algorithm])
        assert isinstance(settings, RoundsConfig), "filled in when the stage is read"
        return settings

    @property
    def judge(self) -> str | None:
        """Who compares completions in the place of the reward: a function, or a judge model."""
        return self.online_dpo.judge if self.online_dpo is not None else None

    def files(self) -> Iterator[tuple[str, str]]:
        """Files of the user's own that say what the stage does: the key that names each, and it.

        Of `path.py:name` the file; of a judge model its configuration, and its rubric.
        """
        for key, name in self._named():
            yield key, file_of(name)

    def _named(self) -> Iterator[tuple[str, str]]:
        yield from (("reward.functions", path) for path in self.reward.functions)
        if self.reward.judge is not None and self.reward.judge.rubric != GENERAL_RUBRIC:
            yield "reward.judge.rubric", self.reward.judge.rubric
        if self.judge is not None:
            yield "online_dpo.judge", self.judge
        for name, signal in self.guard.signals.items() if self.guard else ():
            if signal.function is not None:
                yield f"guard.signals.{name}.function", signal.function
            if signal.judge is not None:
                yield f"guard.signals.{name}.judge", signal.judge

    def with_learner(self, settings: RoundsConfig) -> Self:
        """The stage with other settings of its algorithm, as they are."""
        return self.model_copy(update={_SECTIONS[self.algorithm]: settings})

    @model_validator(mode="before")
    @classmethod
    def _settings_of_the_algorithm(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        section = _SECTIONS.get(values.get("algorithm", "ppo"))
        if section is None or values.get(section) is not None:
            return values
        return {**values, section: {}}

    @model_serializer(mode="wrap")
    def _without_other_algorithms(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        absent = (*_SECTIONS.values(), "environment", "guard")
        others = {name for name in absent if getattr(self, name) is None}
        return {key: value for key, value in serialise(self).items() if key not in others}

    @model_validator(mode="after")
    def _one_algorithm(self) -> Self:
        chosen = _SECTIONS[self.algorithm]
        others = [n for n in _SECTIONS.values() if n != chosen and getattr(self, n) is not None]
        if others:
            raise ValueError(
                f"algorithm is {self.algorithm!r} but there is a section {others[0]!r}, which "
                f"nothing would read: move its keys to {chosen!r}, or set algorithm to "
                f"{_algorithm(others[0])!r}"
            )
        return self

    @model_validator(mode="after")
    def _reward_or_judge(self) -> Self:
        if self.judge is None:
            if "reward" not in self.model_fields_set:
                raise ValueError("reward is missing: say what the policy is paid for")
            return self
        others = [
            name
            for name, given in (
                ("reward", self.reward != RewardConfig()),
                ("environment", self.environment is not None),
                ("guard", self.guard is not None),
            )
            if given
        ]
        if others:
            raise ValueError(
                f"online_dpo.judge compares single answers and nothing is scored, but "
                f"{' and '.join(others)} is set: leave it out, or leave the judge out"
            )
        return self

    @model_validator(mode="after")
    def _critic_is_used(self) -> Self:
        asked = [
            f"{key} is {getattr(self, key)!r}"
            for key in ("critic", "critic_trunk")
            if getattr(self, key) != type(self).model_fields[key].default
        ]
        if asked and not self.learner.has_critic:
            raise ValueError(
                f"{' and '.join(asked)}, but {self.algorithm} has no critic: leave it out, or set "
                "algorithm to 'ppo'"
            )
        return self

    @model_validator(mode="after")
    def _guard_has_what_it_needs(self) -> Self:
        if self.guard is None:
            return self
        if self.probes is None:
            raise ValueError(
                "guard watches the answers of probes, but probes is not set: give it a file of "
                "prompts that are not trained on"
            )
        if self.environment is not None:
            raise ValueError(
                "guard reads single answers, and with an environment a completion is a "
                "conversation: leave one of the two out"
            )
        raising = self.guard.monitors.asked("raise_beta")
        if raising and not self.learner.beta_can_be_raised:
            raise ValueError(
                f"guard.monitors.{raising[0]} is 'raise_beta', which needs a fixed KL coefficient "
                f"in the reward, and {self.algorithm} has none here (its KL is in the loss, or "
                "follows kl.target): choose 'roll_back' or 'stop'"
            )
        return self

    @model_validator(mode="after")
    def _limits_are_of_turns(self) -> Self:
        if self.environment is None:
            return self
        learner = self.learner
        answer = learner.sampling.max_tokens
        if self.environment.max_tokens <= answer:
            raise ValueError(
                f"environment.max_tokens is {self.environment.max_tokens} and one answer may have "
                f"{answer} (sampling.max_tokens): no conversation would have a second turn; set "
                "it to the prompt and several answers"
            )
        found = (
            "truncation.mode is 'soft'"
            if learner.truncation.mode == "soft"
            else "aggregation is 'fixed_length'"
            if getattr(learner, "aggregation", None) == "fixed_length"
            else None
        )
        if found is not None:
            raise ValueError(
                f"{found}, which measures a completion against sampling.max_tokens, but with an "
                "environment that is the limit of one turn of several: choose another"
            )
        return self

    @model_validator(mode="after")
    def _trunk_is_the_policys(self) -> Self:
        if self.critic_trunk == "adapter" and self.lora is None:
            raise ValueError(
                "critic_trunk is 'adapter', a critic with adapters of its own on the policy's "
                "trunk, which needs a policy with adapters: set lora, or critic_trunk to 'shared' "
                "or 'own'"
            )
        if self.critic_trunk != "own" and self.critic == "reward":
            raise ValueError(
                f"critic_trunk is {self.critic_trunk!r} and critic is 'reward', but the policy's "
                "trunk is not the reward model's, whose head would read states that it does not "
                "know: set critic to 'policy' or critic_trunk to 'own'"
            )
        quantised = self.lora is not None and self.lora.quantise != "none"
        if (
            self.algorithm == "ppo"
            and quantised
            and (self.critic_trunk, self.critic) == ("own", "policy")
        ):
            raise ValueError(
                "lora.quantise is '4bit' and the critic is to start from a copy of the policy, but "
                "4-bit weights cannot be trained: set critic_trunk to 'adapter' or 'shared', or "
                "critic to 'reward'"
            )
        return self

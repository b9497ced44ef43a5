"""Settings of RLOO (Ahmadian et al. 2024)."""

from typing import ClassVar

from pydantic import PositiveInt

from tutelage.config.rounds import ClippedConfig, KLConfig, SamplingConfig

__all__ = ["RLOOConfig"]


class RLOOConfig(ClippedConfig):
    """REINFORCE leave-one-out: the other completions of a prompt are the baseline of each."""

    section: ClassVar[str] = "rloo"
    compares: ClassVar[str] = "the others of its prompt are the baseline of a completion"

    prompts_per_step: PositiveInt = 16
    """Prompts sampled in each round."""
    sampling: SamplingConfig = SamplingConfig(samples_per_prompt=4)
    epochs: PositiveInt = 1
    """Passes over each round's experience. With one, and one minibatch, the clip never acts."""
    kl: KLConfig = KLConfig()

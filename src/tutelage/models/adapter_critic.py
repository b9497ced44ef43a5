"""A critic that is an adapter in the policy's model.

    policy: tokens ──W, its own B A──> states ──> log-probabilities
    critic: tokens ──W, its own B A──> states ──> values

Neither learns from the other's loss, and the frozen W is there once: a trunk of one's own for the
memory of an adapter, at the cost of a second pass.
"""

from pathlib import Path

from torch import Tensor, nn

from tutelage.experience import Experience
from tutelage.models.adapters import Adapter
from tutelage.models.causal import Backbone, base_model
from tutelage.models.critic import Critic, zero_head
from tutelage.models.policy import Policy

__all__ = ["AdapterCritic"]


class AdapterCritic(Critic):
    """A value head on the policy's model with another adapter.

    Its parameters are the adapter and the head. At first both change nothing: the states are those
    of the policy without its adapter, and all values are 0.
    """

    def __init__(self, policy: Policy, adapter: Adapter) -> None:
        """Reads `policy`'s model; `adapter` is one in it beside the policy's own."""
        nn.Module.__init__(self)
        self.adapter = adapter
        self.weights = adapter.weights
        backbone = Backbone(base_model(policy.model), policy.backbone.compute, adapter.on)
        backbone.split = policy.backbone.split
        # Beside this module's parts, not among them: the policy moves and saves it.
        object.__setattr__(self, "backbone", backbone)
        self.head = zero_head(policy.model).to(policy.model.device)

    def _states(self, rows: Experience, policy_states: Tensor | None) -> Tensor:
        return self.backbone.before(
            rows.tokens, rows.attention_mask, rows.response_mask, rows.lower_states
        )

    def save(self, folder: str | Path) -> None:
        """Writes a critic with a trunk of its own: the adapter is merged into a copy."""
        base_model(self.adapter.merged()).save_pretrained(Path(folder))
        self._save_head(Path(folder), trunk="own")

"""The critic V(prompt and tokens so far): a scalar head on a transformer.

    Critic          policy: tokens ──trunk──> states ──> log-probabilities
                    critic: tokens ──trunk──> states ──> values

    SharedCritic    policy: tokens ──trunk──> states ─┬─> log-probabilities
                    critic:                           └─> values

The head is a module beside the backbone, never in the place of `lm_head`: there a later
re-tying of embeddings would silently turn it back into the (vocabulary, hidden) matrix.
"""

import copy
import json
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedModel

from tutelage.errors import ModelError
from tutelage.experience import Experience
from tutelage.models.causal import Backbone, base_model, scalar_head, scatter
from tutelage.models.load import disable_dropout
from tutelage.models.policy import Policy

__all__ = ["Critic", "SharedCritic", "zero_head"]

_HEAD, _ABOUT = "value_head.safetensors", "critic.json"


class Critic(nn.Module):
    """Values of the states in which response tokens were chosen."""

    def __init__(self, model: PreTrainedModel, compute: torch.dtype = torch.float32) -> None:
        """Takes over `model`'s backbone; the head starts at zero, so all values do."""
        super().__init__()
        self.backbone = Backbone(base_model(model), compute)
        self.head = zero_head(model)

    @classmethod
    def from_policy(cls, model: PreTrainedModel, compute: torch.dtype = torch.float32) -> "Critic":
        """A copy of the policy's backbone with a zero head (Ziegler et al. 2019)."""
        return Critic(copy.deepcopy(base_model(model)), compute)

    @classmethod
    def from_reward_model(
        cls,
        model: PreTrainedModel,
        *,
        mean: float = 0.0,
        std: float = 1.0,
        compute: torch.dtype = torch.float32,
    ) -> "Critic":
        """A copy of the reward model: the value of a finished answer is its score.

        Args:
            model: a causal backbone with a linear `score` head.
            mean, std: normalisation of the scores; the head takes it over.
            compute: autocast format.
        """
        score = getattr(model, "score", None)
        if not isinstance(score, nn.Linear):
            raise ModelError(
                f"a critic cannot start from {type(model).__name__}: expected a causal "
                "sequence-classification model with a linear score head; set critic to policy"
            )
        critic = Critic(copy.deepcopy(base_model(model)), compute)
        with torch.no_grad():
            critic.head.weight.copy_(score.weight / std)
            critic.head.bias.fill_(-mean / std)
            if score.bias is not None:
                critic.head.bias.add_(score.bias / std)
        return critic

    def forward(self, tokens: Tensor, attention_mask: Tensor) -> Float[Tensor, "batch time"]:
        """The value of the state after each token."""
        return scalar_head(self.head, self.backbone(tokens, attention_mask))

    def values(
        self, rows: Experience, policy_states: Float[Tensor, "tokens hidden"] | None = None
    ) -> Float[Tensor, "batch time"]:
        """V of the state in which each response token was chosen; 0 elsewhere.

        Args:
            rows: whose tokens.
            policy_states: what `Policy.states` says of the same rows; a trunk of one's own
                ignores it.
        """
        values = scalar_head(self.head, self._states(rows, policy_states))
        return scatter(values, rows.response_mask)

    def _states(self, rows: Experience, policy_states: Tensor | None) -> Tensor:
        return self.backbone.before(rows.tokens, rows.attention_mask, rows.response_mask)

    def final_values(self, experience: Experience) -> Float[Tensor, " batch"]:
        """V of the state after each row's last token: what truncation is bootstrapped with."""
        values = self(experience.tokens, experience.attention_mask)
        positions = torch.arange(values.shape[1], device=values.device)
        last = torch.where(experience.attention_mask, positions, -1).max(1).values
        return values.gather(1, last[:, None]).squeeze(1)

    def save(self, folder: str | Path) -> None:
        """Writes the backbone as a transformers folder and the head beside it."""
        self.backbone.model.save_pretrained(Path(folder))
        self._save_head(Path(folder), trunk="own")

    def _save_head(self, folder: Path, *, trunk: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        head = {"weight": self.head.weight.detach(), "bias": self.head.bias.detach()}
        save_file(head, folder / _HEAD)
        (folder / _ABOUT).write_text(json.dumps({"format": 1, "trunk": trunk}) + "\n")

    @classmethod
    def load(
        cls,
        folder: str | Path,
        compute: torch.dtype = torch.float32,
        *,
        policy: Policy | None = None,
    ) -> "Critic":
        """Inverse of `save`.

        Args:
            folder: a saved critic.
            compute: autocast format of a trunk of its own.
            policy: whose trunk a critic reads that has none of its own.

        Raises:
            ModelError: the folder holds no critic, or one without a trunk and no policy is given.
        """
        folder = Path(folder)
        if not (folder / _HEAD).is_file():
            raise ModelError(f"{folder} has no {_HEAD}: it is not a saved critic")
        if json.loads((folder / _ABOUT).read_text()).get("trunk") == "shared":
            critic: Critic = SharedCritic(_present(policy, folder))
        else:
            model = AutoModel.from_pretrained(folder, dtype=torch.float32, use_safetensors=True)
            disable_dropout(model)
            critic = Critic(model, compute)
        critic.head.load_state_dict(load_file(folder / _HEAD))
        return critic


class SharedCritic(Critic):
    """A value head on the policy's own trunk: one pass gives log-probabilities and values.

    Its parameters are the head alone. The trunk learns from both losses, as a part of the policy.
    """

    def __init__(self, policy: Policy) -> None:
        """Reads `policy`'s trunk as it is at any moment; the head starts at zero.

        Raises:
            ModelError: the policy's head is more than a linear map, so that its states are not
                hidden states.
        """
        nn.Module.__init__(self)
        if not policy.head_is_linear:
            raise ModelError(
                f"{type(policy.model).__name__} scales or caps its logits, so the states of the "
                "policy are not at hand for a critic: set critic_trunk to own"
            )
        self.policy = policy
        # Beside this module's parts, not among them: the policy trains, moves and saves it.
        object.__setattr__(self, "backbone", policy.backbone)
        self.head = zero_head(policy.model).to(policy.model.device)

    def _states(self, rows: Experience, policy_states: Tensor | None) -> Tensor:
        return self.policy.states(rows) if policy_states is None else policy_states

    def save(self, folder: str | Path) -> None:
        """Writes the head; the trunk is saved with the policy."""
        self._save_head(Path(folder), trunk="shared")


def zero_head(model: PreTrainedModel) -> nn.Linear:
    """A head that gives every state of the model the value 0."""
    head = nn.Linear(model.config.hidden_size, 1)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return head


def _present(policy: Policy | None, folder: Path) -> Policy:
    if policy is None:
        raise ModelError(
            f"the critic in {folder} is a head on its policy's trunk: load the policy that was "
            "saved with it and give it as policy"
        )
    return policy

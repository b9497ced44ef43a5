"""The critic V(prompt and tokens so far): a transformer with a scalar head of its own.

The head is a module beside the backbone, never in the place of `lm_head`: there a later
re-tying of embeddings would silently turn it back into the (vocabulary, hidden) matrix.
"""

import copy
import json
from pathlib import Path
from typing import Self

import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedModel

from tutelage.errors import ModelError
from tutelage.experience import Experience
from tutelage.models.causal import Backbone, autocast, base_model, scatter
from tutelage.models.load import disable_dropout

__all__ = ["Critic"]


class Critic(nn.Module):
    """Values of the states in which response tokens were chosen."""

    def __init__(self, model: PreTrainedModel, compute: torch.dtype = torch.float32) -> None:
        """Takes over `model`'s backbone; the head starts at zero, so all values do."""
        super().__init__()
        self.backbone = Backbone(base_model(model), compute)
        self.head = nn.Linear(model.config.hidden_size, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    @classmethod
    def from_policy(cls, model: PreTrainedModel, compute: torch.dtype = torch.float32) -> Self:
        """A copy of the policy's backbone with a zero head (Ziegler et al. 2019)."""
        return cls(copy.deepcopy(base_model(model)), compute)

    @classmethod
    def from_reward_model(
        cls,
        model: PreTrainedModel,
        *,
        mean: float = 0.0,
        std: float = 1.0,
        compute: torch.dtype = torch.float32,
    ) -> Self:
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
        critic = cls(copy.deepcopy(base_model(model)), compute)
        with torch.no_grad():
            critic.head.weight.copy_(score.weight / std)
            critic.head.bias.fill_(-mean / std)
            if score.bias is not None:
                critic.head.bias.add_(score.bias / std)
        return critic

    def forward(self, tokens: Tensor, attention_mask: Tensor) -> Float[Tensor, "batch time"]:
        """The value of the state after each token."""
        return self._value(self.backbone(tokens, attention_mask))

    def _value(self, hidden: Tensor) -> Tensor:
        with autocast(hidden.device, self.backbone.compute):
            values = self.head(hidden)
        return values.squeeze(-1).float()

    def values(self, experience: Experience) -> Float[Tensor, "batch time"]:
        """V of the state in which each response token was chosen; 0 elsewhere."""
        mask = experience.response_mask
        hidden = self.backbone.before(experience.tokens, experience.attention_mask, mask)
        return scatter(self._value(hidden), mask)

    def final_values(self, experience: Experience) -> Float[Tensor, " batch"]:
        """V of the state after each row's last token: what truncation is bootstrapped with."""
        values = self(experience.tokens, experience.attention_mask)
        positions = torch.arange(values.shape[1], device=values.device)
        last = torch.where(experience.attention_mask, positions, -1).max(1).values
        return values.gather(1, last[:, None]).squeeze(1)

    def save(self, folder: str | Path) -> None:
        """Writes the backbone as a transformers folder and the head beside it."""
        folder = Path(folder)
        self.backbone.model.save_pretrained(folder)
        head = {"weight": self.head.weight.detach(), "bias": self.head.bias.detach()}
        save_file(head, folder / "value_head.safetensors")
        (folder / "critic.json").write_text(json.dumps({"format": 1}) + "\n")

    @classmethod
    def load(cls, folder: str | Path, compute: torch.dtype = torch.float32) -> Self:
        """Inverse of `save`."""
        folder = Path(folder)
        if not (folder / "value_head.safetensors").is_file():
            raise ModelError(f"{folder} has no value_head.safetensors: it is not a saved critic")
        model = AutoModel.from_pretrained(folder, dtype=torch.float32, use_safetensors=True)
        disable_dropout(model)
        critic = cls(model, compute)
        critic.head.load_state_dict(load_file(folder / "value_head.safetensors"))
        return critic

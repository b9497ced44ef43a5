"""The policy pi(token | prompt and tokens so far), as the loss functions see it."""

import copy
from contextlib import nullcontext
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from tutelage.experience import Experience, TokenBatch
from tutelage.models.causal import Backbone, Within, autocast, position_ids, scatter
from tutelage.models.load import freeze

__all__ = ["Policy"]


class Policy:
    """A causal language model with a sampling temperature.

    Log-probabilities are of the distribution that is sampled: `softmax(logits / temperature)`
    in float32, whatever the format of the matrix products.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        temperature: float = 1.0,
        compute: torch.dtype = torch.float32,
        within: Within = nullcontext,
    ) -> None:
        """Wraps a model without copying it; for `within` see `Backbone`."""
        self.model = model
        self.temperature = temperature
        self.backbone = Backbone(model, compute, within)
        self._head_is_linear = self._head_gives_the_logits()

    def frozen_copy(self) -> Self:
        """The reference: the same weights in storage of their own, without gradients.

        Weights that are frozen already are shared.
        """
        shared = {id(w): w for w in self.model.parameters() if not w.requires_grad}
        model, within = copy.deepcopy((self.model, self.backbone.within), shared)
        freeze(model)
        return type(self)(
            model, temperature=self.temperature, compute=self.backbone.compute, within=within
        )

    @torch.no_grad()
    def _head_gives_the_logits(self) -> bool:
        """Whether logits are the output embedding of the hidden states and nothing more.

        Some architectures scale or cap them; those take the full forward pass. Both sides are
        computed in float32, so that the answer does not depend on the autocast format.
        """
        tokens = torch.tensor([[0, 1], [1, 0]], device=self.model.device)
        mask = torch.ones_like(tokens, dtype=torch.bool)
        head = self.model.get_output_embeddings()
        if head is None:
            return False
        full = self.model(input_ids=tokens, use_cache=False).logits
        return torch.allclose(head(Backbone(self.model)(tokens, mask)), full, atol=1e-5)

    def response_logits(
        self, experience: Experience | TokenBatch
    ) -> Float[Tensor, "tokens vocabulary"]:
        """Logits over the temperature at each response token, rows in reading order."""
        mask = experience.response_mask
        if self._head_is_linear:
            hidden = self.backbone.before(experience.tokens, experience.attention_mask, mask)
            with autocast(hidden.device, self.backbone.compute):
                logits = self.model.get_output_embeddings()(hidden)
        else:
            with self.backbone.within(), autocast(mask.device, self.backbone.compute):
                logits = self.model(
                    input_ids=experience.tokens,
                    attention_mask=experience.attention_mask,
                    position_ids=position_ids(experience.attention_mask),
                    use_cache=False,
                ).logits[:, :-1][mask[:, 1:]]
        return logits.float() / self.temperature

    def logprobs(self, experience: Experience) -> Float[Tensor, "batch time"]:
        """log pi of each response token; 0 elsewhere."""
        return self.logprobs_of(self.response_logits(experience), experience)

    @staticmethod
    def logprobs_of(
        logits: Float[Tensor, "tokens vocabulary"], experience: Experience
    ) -> Float[Tensor, "batch time"]:
        """Picks the response tokens' log-probabilities out of `response_logits`."""
        chosen = experience.tokens[experience.response_mask]
        picked = torch.log_softmax(logits, dim=-1).gather(1, chosen[:, None]).squeeze(1)
        return scatter(picked, experience.response_mask)

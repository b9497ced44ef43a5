"""The policy pi(token | prompt and tokens so far), as the loss functions see it."""

import copy
from contextlib import nullcontext
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from tutelage.algorithms import token_logprobs
from tutelage.errors import ModelError
from tutelage.experience import Experience, TokenBatch
from tutelage.models.causal import Backbone, Within, autocast, base_model, position_ids, scatter
from tutelage.models.chunks import Read, in_chunks
from tutelage.models.frozen_layers import SplitTrunk
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
        head_tokens: int = 2048,
        within: Within = nullcontext,
    ) -> None:
        """Wraps a model without copying it.

        Args:
            model: with a head over its vocabulary.
            temperature: divides the logits.
            compute: autocast format.
            head_tokens: tokens whose logits exist at a time.
            within: entered around each forward pass; see `Backbone`.
        """
        self.model = model
        self.temperature = temperature
        self.head_tokens = head_tokens
        self.frozen_layers = 0
        """Lowest blocks that are frozen; see `freeze_layers`."""
        self.backbone = Backbone(model, compute, within)
        self.head_is_linear = self._head_gives_the_logits()

    def frozen_copy(self) -> Self:
        """The reference: the same weights in storage of their own, without gradients.

        Weights that are frozen already are shared.
        """
        frozen = {id(w): w for w in self.model.parameters() if not w.requires_grad}
        model, within = copy.deepcopy((self.model, self.backbone.within), frozen)
        freeze(model)
        return self.around(model, within)

    def around(self, model: PreTrainedModel, within: Within = nullcontext) -> Self:
        """The same settings for another model, or for the same one with other adapters."""
        policy = type(self)(
            model,
            temperature=self.temperature,
            compute=self.backbone.compute,
            head_tokens=self.head_tokens,
            within=within,
        )
        policy.freeze_layers(self.frozen_layers)
        return policy

    def freeze_layers(self, count: int) -> None:
        """Freezes the embeddings and the lowest `count` blocks, and gives them a pass of their own.

        A head that is tied to the embeddings is frozen with them.

        Raises:
            ModelError: there are fewer blocks, or the architecture does not allow it.
        """
        if not count:
            return
        if not self.head_is_linear:
            raise ModelError(
                f"{type(self.model).__name__} scales or caps its logits and takes its whole "
                "forward pass, of which no part can be left out: set frozen_layers to 0"
            )
        self.backbone.split = SplitTrunk(base_model(self.model), count)
        self.backbone.split.freeze()
        self.frozen_layers = count

    def lower_states(self, rows: Experience) -> dict[str, Float[Tensor, "batch time hidden"]]:
        """What frozen blocks make of the tokens, by the name that it has in an experience."""
        return {"lower_states": self.backbone.lower_states(rows.tokens, rows.attention_mask)}

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

    def states(self, rows: Experience | TokenBatch) -> Float[Tensor, "tokens width"]:
        """What the head reads to choose each response token, rows in reading order.

        The hidden state one token earlier; the model's own logits where its head is more than a
        linear map.
        """
        mask = rows.response_mask
        if self.head_is_linear:
            lower = None
            if self.frozen_layers and isinstance(rows, Experience):
                lower = rows.lower_states
            return self.backbone.before(rows.tokens, rows.attention_mask, mask, lower)
        with self.backbone.within(), autocast(mask.device, self.backbone.compute):
            logits: Tensor = self.model(
                input_ids=rows.tokens,
                attention_mask=rows.attention_mask,
                position_ids=position_ids(rows.attention_mask),
                use_cache=False,
            ).logits
        return logits[:, :-1][mask[:, 1:]]

    def logits(self, states: Float[Tensor, "tokens width"]) -> Float[Tensor, "tokens vocabulary"]:
        """Logits over the temperature; of many tokens, `read` needs less memory."""
        # Of a linear head the same, and there are fewer states than logits.
        scaled = states if self.temperature == 1.0 else states / self.temperature
        if not self.head_is_linear:
            return scaled.float()
        with autocast(states.device, self.backbone.compute):
            logits: Tensor = self.model.get_output_embeddings()(scaled)
        return logits.float()

    def read(
        self, read: Read, states: Float[Tensor, "tokens width"], *per_token: Tensor
    ) -> tuple[Tensor, ...]:
        """Numbers per token out of logits that never exist all at once.

        Args:
            read: takes the logits of some tokens, and their rows of `per_token`.
            states: from `states`.
            per_token: what else belongs to each token.
        """

        def of_chunk(states: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
            return read(self.logits(states), *others)

        size = self.head_tokens if self.head_is_linear else len(states)
        return in_chunks(of_chunk, size, (states, *per_token))

    def logprobs(
        self, rows: Experience | TokenBatch, states: Float[Tensor, "tokens width"] | None = None
    ) -> Float[Tensor, "batch time"]:
        """log pi of each response token; 0 elsewhere.

        Args:
            rows: whose tokens.
            states: from `states`, where they are known already.
        """

        def read(logits: Tensor, chosen: Tensor) -> tuple[Tensor, ...]:
            return (token_logprobs(logits, chosen),)

        states = self.states(rows) if states is None else states
        (picked,) = self.read(read, states, rows.tokens[rows.response_mask])
        return scatter(picked, rows.response_mask)

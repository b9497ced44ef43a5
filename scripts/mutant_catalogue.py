"""Mistakes that implementations of RLHF have made, as changes to this source.

Each replaces a text that occurs exactly once in its file. `mistake` says what would go
wrong; `tests` are the fast tests, or folders of them, that must notice.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["MUTANTS", "Mutant"]


@dataclass(frozen=True)
class Mutant:
    """One mistake."""

    id: str
    file: str
    """Path from the root of the repository."""
    old: str
    new: str
    mistake: str
    """What goes wrong, in words."""
    tests: tuple[str, ...]


_PPO = "tests/unit/trainers/test_ppo.py::"
_TRUNK = "tests/unit/trainers/test_ppo_trunk.py::"
_LEARNER = "tests/unit/trainers/test_learner.py::"
_EXPERIENCE = ("tests/unit/test_experience.py",)
_REWARDS = ("tests/unit/rewards/test_reward.py",)
_CONFIG = ("tests/unit/config/test_ppo.py",)

MUTANTS = (
    Mutant(
        "temperature-dropped",
        "src/tutelage/models/policy.py",
        "return logits.float() / self.temperature",
        "return logits.float()",
        "Training log-probabilities forget the sampling temperature; most tokens leave the clip "
        "band before any update.",
        ("tests/unit/models/test_policy.py",),
    ),
    Mutant(
        "mask-shifted",
        "src/tutelage/models/causal.py",
        "return hidden[:, :-1][selected[:, 1:]]",
        "return hidden[:, 1:][selected[:, 1:]]",
        "Log-probabilities and values are read one position late, after the token was seen.",
        ("tests/unit/models/test_policy.py",),
    ),
    Mutant(
        "eos-not-trained",
        "src/tutelage/experience.py",
        "response_mask[i, start:end] = score.ok",
        "response_mask[i, start : end - 1] = score.ok",
        "The stop token is left out of the mask, so stopping is never learned.",
        _EXPERIENCE,
    ),
    Mutant(
        "failed-score-is-zero",
        "src/tutelage/experience.py",
        "response_mask[i, start:end] = score.ok",
        "response_mask[i, start:end] = True",
        "A completion that could not be scored is trained on with reward 0.",
        _EXPERIENCE,
    ),
    Mutant(
        "failed-part-is-zero",
        "src/tutelage/rewards/reward.py",
        "        if not score.ok:\n"
        '            return Score.failed(score.status, f"{name}: {score.notes}")\n',
        "        if not score.ok:\n            continue\n",
        "One failed part of a sum of rewards is skipped instead of failing the sum.",
        _REWARDS,
    ),
    Mutant(
        "positions-from-padding",
        "src/tutelage/models/causal.py",
        '            inputs["position_ids"] = position_ids(attention_mask)\n',
        "",
        "Left padding moves the positions; models with absolute positions answer another question.",
        ("tests/unit/models/test_padding.py",),
    ),
    Mutant(
        "dropout-on",
        "src/tutelage/models/load.py",
        "    disable_dropout(model)\n    model.config.use_cache = False",
        "    model.config.use_cache = False",
        "Dropout stays on while training, so the ratio is not 1 before the first update.",
        ("tests/unit/models/test_load.py",),
    ),
    Mutant(
        "bf16-weights",
        "src/tutelage/models/load.py",
        "if weight.requires_grad and weight.dtype in (torch.bfloat16, torch.float16):",
        "if weight.requires_grad and weight.dtype in (torch.float16,):",
        "Trainable bfloat16 weights are accepted; AdamW's small updates are rounded away.",
        ("tests/unit/models/test_load.py",),
    ),
    Mutant(
        "softmax-in-bf16",
        "src/tutelage/models/policy.py",
        "return logits.float() / self.temperature",
        "return logits / self.temperature",
        "Log-probabilities come from a bfloat16 softmax.",
        ("tests/unit/models/test_policy.py",),
    ),
    Mutant(
        "reference-is-the-policy",
        "src/tutelage/models/policy.py",
        "model, within = copy.deepcopy((self.model, self.backbone.within), frozen)",
        "model, within = self.model, self.backbone.within",
        "The reference shares the policy's weights: the KL is 0 for ever.",
        ("tests/unit/models/test_policy.py",),
    ),
    Mutant(
        "reference-not-frozen",
        "src/tutelage/models/policy.py",
        "        freeze(model)\n",
        "",
        "The reference keeps its gradients and may be trained along.",
        ("tests/unit/models/test_policy.py",),
    ),
    Mutant(
        "reference-keeps-the-adapter",
        "src/tutelage/models/adapters.py",
        "return _become(self._active, [])",
        "return _become(self._active, [self.name])",
        "The reference of a policy with adapters is the policy: the KL is 0 for ever.",
        ("tests/unit/models/test_adapters.py",),
    ),
    Mutant(
        "adapter-left-off",
        "src/tutelage/models/adapters.py",
        "finally:\n        active[:] = before",
        "finally:\n        pass",
        "Once the reference was asked, the policy goes on without its adapter.",
        ("tests/unit/models/test_adapters.py",),
    ),
    Mutant(
        "sampler-forgets-the-adapter",
        "src/tutelage/models/decoder.py",
        "[effective_weight(module) for module in self._modules]",
        "[module.weight for module in self._modules]",
        "A policy with adapters is sampled without them.",
        ("tests/unit/models/test_adapters.py",),
    ),
    Mutant(
        "sampler-reports-raw-logits",
        "src/tutelage/generation/draw.py",
        "return tokens, shifted.gather(1, tokens[:, None]).squeeze(1) - normaliser",
        "return tokens, logits.float().log_softmax(-1).gather(1, tokens[:, None]).squeeze(1)",
        "The sampler reports log-probabilities before the temperature, not of what it drew from.",
        ("tests/unit/generation/test_draw.py",),
    ),
    Mutant(
        "one-stop-token",
        "src/tutelage/generation/local.py",
        "torch.tensor(sorted(sampling.stop_tokens)",
        "torch.tensor(sorted(sampling.stop_tokens)[:1]",
        "Only one of several stop tokens ends a completion.",
        ("tests/unit/generation/test_local.py",),
    ),
    Mutant(
        "sampler-positions-from-padding",
        "src/tutelage/models/decoder.py",
        "rotation = self._rotation(x, (column - cache.start)[:, None])",
        "rotation = self._rotation(x, torch.full_like(cache.start, column)[:, None])",
        "What is sampled depends on how much padding the batch has.",
        ("tests/unit/models/test_decoder.py",),
    ),
    Mutant(
        "sampler-keeps-old-weights",
        "src/tutelage/generation/local.py",
        "                self._decoder.refresh()\n",
        "",
        "The sampler goes on with copies of the weights that training has replaced.",
        ("tests/unit/generation/test_local.py",),
    ),
    Mutant(
        "answers-see-each-other",
        "src/tutelage/models/shared_prefix.py",
        "((seen == 0) | (seen == looking))",
        "(seen >= 0)",
        "Answers that share a row with others are scored with what stands before them.",
        ("tests/unit/models/test_shared_prefix.py",),
    ),
    Mutant(
        "reward-read-at-padding",
        "src/tutelage/models/reward_model.py",
        "last = torch.where(attention_mask, positions, -1).max(1).values",
        "last = torch.full_like(tokens[:, 0], tokens.shape[1] - 1)",
        "The reward model reads its score in the last column, padding or not.",
        ("tests/unit/models/test_reward_model.py",),
    ),
    Mutant(
        "kl-sign-flipped",
        "src/tutelage/algorithms/shaping.py",
        "return placed - beta * zero_outside(kl, mask)",
        "return placed + beta * zero_outside(kl, mask)",
        "The penalty becomes a bonus for drifting away from the reference.",
        ("tests/unit/algorithms/test_shaping.py",),
    ),
    Mutant(
        "kl-arguments-swapped",
        "src/tutelage/algorithms/kl.py",
        "difference = logprobs - ref_logprobs",
        "difference = ref_logprobs - logprobs",
        "KL(reference, policy) is estimated with samples of the policy.",
        ("tests/unit/algorithms/test_kl.py",),
    ),
    Mutant(
        "score-one-late",
        "src/tutelage/algorithms/shaping.py",
        "placed = torch.where(final, scores.unsqueeze(-1), 0)",
        "placed = torch.where(final.roll(1, -1), scores.unsqueeze(-1), 0)",
        "The score lands one position after the last token.",
        ("tests/unit/algorithms/test_shaping.py",),
    ),
    Mutant(
        "k3-in-the-reward",
        "src/tutelage/trainers/ppo.py",
        "kl = kl_estimate(_present(experience.old_logprobs), _present(experience.ref_logprobs))",
        "kl = kl_estimate(\n"
        '            _present(experience.old_logprobs), _present(experience.ref_logprobs), "k3"\n'
        "        )",
        "The reward is shaped with k3, whose gradient leads to another policy than "
        "π_ref exp(r / β).",
        (_PPO + "test_reward_is_the_penalty_on_every_token_and_the_score_on_the_last",),
    ),
    Mutant(
        "k3-allowed",
        "src/tutelage/config/ppo.py",
        'if value != "k1":',
        'if value not in ("k1", "k3"):',
        "A recipe may ask for k3 in the reward.",
        _CONFIG,
    ),
    Mutant(
        "kl-loss-detached",
        "src/tutelage/trainers/ppo.py",
        "divergences.append(full_kl(logits, other_logits))",
        "divergences.append(full_kl(logits.detach(), other_logits))",
        "The KL term of the loss has a value but no gradient.",
        (_PPO + "test_the_reference_holds_the_policy_through_the_loss",),
    ),
    Mutant(
        "kl-against-itself",
        "src/tutelage/trainers/ppo.py",
        '"ref_logprobs": reference.logprobs(rows),',
        '"ref_logprobs": policy.logprobs(rows),',
        "The penalty compares the policy with itself; beta changes nothing.",
        (_PPO + "test_the_reference_holds_the_policy_through_the_reward",),
    ),
    Mutant(
        "kl-controller-sign",
        "src/tutelage/algorithms/kl_control.py",
        "self._value *= 1 + error * n / self.horizon",
        "self._value *= 1 - error * n / self.horizon",
        "Beta falls while the policy drifts.",
        ("tests/unit/algorithms/test_kl_control.py",),
    ),
    Mutant(
        "kl-controller-per-token",
        "src/tutelage/trainers/ppo.py",
        'kl_coefficient.update(metrics["kl/sequence"], len(experience))',
        'kl_coefficient.update(metrics["kl/token"], len(experience))',
        "The controller is fed the KL per token, while its target is per sequence.",
        (_PPO + "test_controller_is_told_the_divergence_per_sequence",),
    ),
    Mutant(
        "gae-sees-masked-tokens",
        "src/tutelage/algorithms/advantages.py",
        "next_value = torch.where(written, values[..., t], next_value)",
        "next_value = values[..., t]",
        "Values of padding and observations enter the advantage of the token before.",
        ("tests/unit/algorithms/test_advantages.py",),
    ),
    Mutant(
        "gae-ignores-bootstrap",
        "src/tutelage/algorithms/advantages.py",
        "next_value = torch.zeros_like(values[..., 0]) if bootstrap is None else bootstrap",
        "next_value = torch.zeros_like(values[..., 0])",
        "A truncated response is treated as if it had ended there.",
        ("tests/unit/algorithms/test_advantages.py",),
    ),
    Mutant(
        "whitening-unmasked",
        "src/tutelage/algorithms/masked.py",
        "count, mean, centred = _centre(x, mask, all_sum)",
        "count, mean, centred = _centre(x, torch.ones_like(mask), all_sum)",
        "Advantages are whitened over padding too.",
        ("tests/unit/algorithms/test_masked.py",),
    ),
    Mutant(
        "whitening-adds-mean-back",
        "src/tutelage/algorithms/masked.py",
        "return zero_outside(whitened + mean, mask) if keep_mean else whitened",
        "return whitened if keep_mean else zero_outside(whitened + mean, mask)",
        "Advantages keep their mean: the flag means the opposite.",
        ("tests/unit/algorithms/test_masked.py",),
    ),
    Mutant(
        "mask-by-multiplication",
        "src/tutelage/algorithms/masked.py",
        "return torch.where(mask.bool(), x, 0)",
        "return mask * x",
        "NaN behind the mask gets through, because NaN times 0 is NaN.",
        ("tests/unit/algorithms/test_masked.py",),
    ),
    Mutant(
        "mean-of-means-in-the-loss",
        "src/tutelage/algorithms/masked.py",
        "    if denominator is None:\n",
        "    if denominator is None or mask.any():\n",
        "A loss divides by its own tokens instead of those of the whole optimiser step.",
        ("tests/unit/algorithms/test_masked.py",),
    ),
    Mutant(
        "mean-of-means-in-the-learner",
        "src/tutelage/trainers/learner.py",
        "output = loss(part, denominator)",
        "output = loss(part, part.denominator)",
        "Each micro-batch is divided by its own tokens; gradients depend on how rows are cut up.",
        (_LEARNER + "test_gradients_do_not_depend_on_how_rows_are_cut_up",),
    ),
    Mutant(
        "boundary-skipped",
        "src/tutelage/trainers/learner.py",
        "            metrics |= self._step(metrics, train, evidence)\n",
        "            if batch.select(minibatch[-1]).denominator:\n"
        "                metrics |= self._step(metrics, train, evidence)\n",
        "A minibatch whose last micro-batch is empty takes no step, and its gradients leak into "
        "the next.",
        (_LEARNER + "test_empty_micro_batch_does_not_skip_the_step",),
    ),
    Mutant(
        "half-a-backward-kept",
        "src/tutelage/trainers/learner.py",
        "                # What was added up so far, and half a backward pass.\n"
        "                self._zero_grad()\n",
        "                pass\n",
        "After memory ran out, the gradients of the failed attempt are added to those of the next.",
        (
            "tests/unit/trainers/test_microbatches.py::test_half_a_backward_pass_leaves_nothing_behind",
        ),
    ),
    Mutant(
        "redrawn-from-other-numbers",
        "src/tutelage/generation/local.py",
        "        self.generator.set_state(before)\n",
        "",
        "After memory ran out, completions are drawn anew from other random numbers.",
        ("tests/unit/generation/test_memory.py",),
    ),
    Mutant(
        "skip-of-one-model",
        "src/tutelage/trainers/learner.py",
        "            if allowed and norms[name] > 0.0:\n",
        "            if norms[name] > 0.0:\n",
        "A gradient that is not finite holds back its own model alone; the others go on.",
        (_LEARNER + "test_step_that_is_not_finite_is_skipped_for_all_models",),
    ),
    Mutant(
        "nan-reward-is-a-score",
        "src/tutelage/rewards/reward.py",
        "if score.ok and not abs(score.value) <= _LARGEST",
        "if score.ok and abs(score.value) > _LARGEST",
        "A NaN that a reward returns as a usable score gets through: it is not above any number.",
        ("tests/unit/rewards/test_reward.py::test_a_score_that_float32_cannot_hold_has_failed",),
    ),
    Mutant(
        "clip-optimistic",
        "src/tutelage/algorithms/policy.py",
        "per_token = torch.maximum(surrogate, clipped)",
        "per_token = torch.minimum(surrogate, clipped)",
        "The clip takes the better of two estimates instead of the worse.",
        ("tests/unit/algorithms/test_policy.py",),
    ),
    Mutant(
        "ratio-unclamped",
        "src/tutelage/algorithms/policy.py",
        "log_ratio = (new - old).clamp(-_MAX_LOG_RATIO, _MAX_LOG_RATIO)",
        "log_ratio = new - old",
        "One token with a large log-ratio makes the loss infinite.",
        ("tests/unit/algorithms/test_policy.py",),
    ),
    Mutant(
        "advantage-sign",
        "src/tutelage/algorithms/policy.py",
        "surrogate = -advantages * ratio",
        "surrogate = advantages * ratio",
        "Good tokens become less likely.",
        ("tests/unit/algorithms/test_policy.py",),
    ),
    Mutant(
        "value-clip-without-max",
        "src/tutelage/algorithms/value.py",
        "per_token = torch.maximum(error, clipped)",
        "per_token = clipped",
        "Outside the band the critic's gradient is 0, so it never comes back.",
        ("tests/unit/algorithms/test_value.py",),
    ),
    Mutant(
        "value-targets-whitened",
        "src/tutelage/trainers/ppo.py",
        "        advantages = masked_whiten(advantages, mask)\n",
        "        advantages = masked_whiten(advantages, mask)\n"
        "        returns = advantages + values\n",
        "The critic learns whitened targets instead of returns.",
        (_PPO + "test_advantages_are_whitened_over_the_round_and_returns_are_not",),
    ),
    Mutant(
        "warm-up-trains-the-policy",
        "src/tutelage/trainers/ppo.py",
        'train=["value"] if warming_up else None,',
        "train=None,",
        "The policy follows a critic that knows nothing yet.",
        (_PPO + "test_critic_warms_up_while_the_policy_stays_bit_for_bit",),
    ),
    Mutant(
        "shared-trunk-without-the-value-loss",
        "src/tutelage/models/critic.py",
        "return self.policy.states(rows) if policy_states is None else policy_states",
        "return self.policy.states(rows) if policy_states is None else policy_states.detach()",
        "The trunk that policy and critic share learns from the policy's loss alone.",
        (_TRUNK + "test_shared_trunk_gets_the_sum_of_both_losses_gradients",),
    ),
    Mutant(
        "chunks-without-gradients",
        "src/tutelage/models/chunks.py",
        "for chunk in zip(*(each.chunk(pieces) for each in per_token), strict=True)",
        "for chunk in zip(*(each.detach().chunk(pieces) for each in per_token), strict=True)",
        "As soon as tokens do not fit one chunk, nothing below the head learns.",
        ("tests/unit/models/test_chunks.py",),
    ),
    Mutant(
        "windows-of-other-blocks",
        "src/tutelage/models/frozen_layers.py",
        "part.config.layer_types = types[start:end]",
        "part.config.layer_types = types",
        "The blocks above frozen ones look as far back as the frozen ones do.",
        ("tests/unit/models/test_frozen_layers.py",),
    ),
    Mutant(
        "checkpointing-does-nothing",
        "src/tutelage/models/checkpointing.py",
        "    for model in models:\n        model.train()\n",
        "",
        "Gradient checkpointing is switched on and has no effect outside of training mode.",
        (_TRUNK + "test_activations_computed_again_change_nothing",),
    ),
    Mutant(
        "ratio-not-checked",
        "src/tutelage/trainers/rollout.py",
        "if math.isfinite(low) and max(1.0 - low, high - 1.0) > tolerance:",
        "if math.isfinite(low) and max(1.0 - low, high - 1.0) > 1e9:",
        "A ratio that is not 1 before the first update goes unnoticed.",
        ("tests/unit/trainers/test_agreement.py::test_dropout_left_on_is_noticed",),
    ),
    Mutant(
        "adam-epsilon",
        "src/tutelage/config/training.py",
        "epsilon: PositiveFloat = 1e-5",
        "epsilon: PositiveFloat = 1e-8",
        "AdamW's default epsilon makes the first updates of PPO aggressive.",
        (
            "tests/unit/trainers/test_optimizer.py::test_default_epsilon_is_that_of_the_ppo_literature",
        ),
    ),
    Mutant(
        "preference-reversed",
        "src/tutelage/algorithms/bradley_terry.py",
        "loss = -p * F.logsigmoid(margin - offset) - (1 - p) * F.logsigmoid(-margin - offset)",
        "loss = -p * F.logsigmoid(-margin - offset) - (1 - p) * F.logsigmoid(margin - offset)",
        "The reward model prefers what people rejected.",
        ("tests/unit/algorithms/test_bradley_terry.py",),
    ),
    Mutant(
        "ties-are-wins",
        "src/tutelage/algorithms/bradley_terry.py",
        "return (1 + margin.detach().sign() * (label - 0.5).sign()) / 2",
        "return (margin.detach().sign() * (label - 0.5).sign() >= 0).to(margin.dtype)",
        "A reward model that scores everything alike is reported as always right.",
        ("tests/unit/algorithms/test_bradley_terry.py",),
    ),
    Mutant(
        "position-bias-kept",
        "src/tutelage/records.py",
        "return replace(self, comparison=self.comparison.swap(), p_a=1.0 - self.p_a)",
        "return replace(self, comparison=self.comparison.swap())",
        "Swapping two answers keeps the label, so averaging over both orders averages nothing.",
        ("tests/unit/test_records.py",),
    ),
    Mutant(
        "gold-for-everyone",
        "src/tutelage/pipeline/isolation.py",
        'MAY_SEE_GOLD = frozenset({"evaluate"})',
        'MAY_SEE_GOLD = frozenset({"evaluate", "train"})',
        "Training may read the score it is judged by.",
        ("tests/unit/pipeline/test_gold_policy.py",),
    ),
)

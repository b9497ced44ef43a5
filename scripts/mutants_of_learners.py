"""Mistakes in learners without a critic, and in the labs.

The same kind of list as `mutant_catalogue`, which holds those of PPO and of what all share.
"""

from mutant import Mutant

__all__ = ["MUTANTS"]

_ALGORITHMS = "src/tutelage/algorithms/"
_TRAINERS = "src/tutelage/trainers/"
_LABS = "src/tutelage/labs/"
_LEARNERS = "tests/unit/trainers/test_learners.py"
_GROUPS = ("tests/unit/algorithms/test_groups.py",)
_RETURNS = ("tests/unit/algorithms/test_returns.py",)
_SEQUENCES = ("tests/unit/algorithms/test_sequence_policy.py",)
_AGGREGATION = ("tests/unit/algorithms/test_aggregation.py",)
_MICRO_BATCHES = (f"{_LEARNERS}::test_gradients_do_not_depend_on_the_size_of_micro_batches",)
_CLIPS = (f"{_LEARNERS}::test_second_step_is_held_back_by_the_clips_of_the_recipe",)
_RLOO = (f"{_LEARNERS}::test_rloo_compares_scores_minus_the_divergence_of_the_whole_completion",)
_MOVING = (
    f"{_LEARNERS}::test_reinforce_subtracts_the_mean_of_earlier_rounds_from_what_is_to_come",
)
_NORMALISED = (f"{_LEARNERS}::test_reinforce_pp_normalises_returns_over_the_round",)
_GRID = ("tests/unit/labs/test_gridworld.py::test_every_action_tried_often_gives_the_exact_values",)
_EPISODES = ("tests/unit/labs/test_episodes.py",)

_CREDIT = (
    Mutant(
        "leave-one-out-with-itself",
        _ALGORITHMS + "groups.py",
        "return centred * count / (count - 1).clamp(min=1)",
        "return centred",
        "RLOO's baseline contains the completion that it is for; the gradient is too small.",
        _GROUPS,
    ),
    Mutant(
        "group-spread-of-a-sample",
        _ALGORITHMS + "groups.py",
        "variance = centred.square().sum(-1, keepdim=True) / count.clamp(min=1)",
        "variance = centred.square().sum(-1, keepdim=True) / (count - 1).clamp(min=1)",
        "GRPO divides by the sample's standard deviation, not by the group's.",
        _GROUPS,
    ),
    Mutant(
        "failed-scores-in-the-group-mean",
        _ALGORITHMS + "groups.py",
        "mean = known.sum(-1, keepdim=True) / count.clamp(min=1)",
        "mean = known.sum(-1, keepdim=True) / scores.shape[-1]",
        "A completion that could not be scored lowers the mean of its group as a 0.",
        _GROUPS,
    ),
    Mutant(
        "failed-score-has-an-advantage",
        _ALGORITHMS + "groups.py",
        "torch.where(usable & (count > 1), known - mean, 0)",
        "torch.where(count > 1, known - mean, 0)",
        "A completion that could not be scored is punished by the mean of its group.",
        _GROUPS,
    ),
    Mutant(
        "score-for-the-last-token-alone",
        _ALGORITHMS + "returns.py",
        "mask, gamma=gamma, lam=1.0)",
        "mask, gamma=gamma, lam=0.0)",
        "A token is credited with its own reward; what came of it counts nowhere.",
        _RETURNS,
    ),
    Mutant(
        "return-without-its-discount",
        _ALGORITHMS + "returns.py",
        "mask, gamma=gamma, lam=1.0)",
        "mask, gamma=1.0, lam=1.0)",
        "The discount of a recipe changes nothing.",
        _RETURNS,
    ),
    Mutant(
        "baseline-added",
        _ALGORITHMS + "returns.py",
        "return zero_outside(returns - baseline, mask)",
        "return zero_outside(returns + baseline, mask)",
        "The baseline adds to the variance that it is there to take away.",
        _RETURNS,
    ),
    Mutant(
        "baseline-pulled-to-its-start",
        _ALGORITHMS + "returns.py",
        "weight = (1 - self.decay) / (1 - self.decay**self.rounds)",
        "weight = 1 - self.decay",
        "For its first rounds the moving baseline is near 0 instead of near the returns.",
        _RETURNS,
    ),
    Mutant(
        "baseline-reads-padding",
        _ALGORITHMS + "returns.py",
        "kept = returns[mask.bool()].double()",
        "kept = returns.flatten().double()",
        "Prompts and padding pull the baseline to 0.",
        _RETURNS,
    ),
    Mutant(
        "rewards-normalised-instead-of-returns",
        _ALGORITHMS + "returns.py",
        "masked_whiten(reward_to_go(rewards, mask, gamma=gamma), mask, all_sum=all_sum)",
        "reward_to_go(masked_whiten(rewards, mask, all_sum=all_sum), mask, gamma=gamma)",
        "REINFORCE++ adds up normalised rewards: long completions get large advantages.",
        _RETURNS,
    ),
    Mutant(
        "ranks-normalise-apart",
        _ALGORITHMS + "returns.py",
        "mask, gamma=gamma), mask, all_sum=all_sum)",
        "mask, gamma=gamma), mask)",
        "Each rank divides by a spread of its own.",
        _RETURNS,
    ),
    Mutant(
        "sequence-ratio-grows-with-length",
        _ALGORITHMS + "policy.py",
        "exponent = change.sum(-1, keepdim=True) / lengths",
        "exponent = change.sum(-1, keepdim=True)",
        "GSPO's ratio is not a mean per token; long completions are clipped at once.",
        _SEQUENCES,
    ),
    Mutant(
        "completions-weighed-by-length",
        _ALGORITHMS + "aggregation.py",
        "return rows * lengths",
        "return rows * lengths.mean().expand_as(lengths)",
        "The mean over completions is one over tokens.",
        _AGGREGATION,
    ),
)

_LOOPS = (
    Mutant(
        "groups-across-prompts",
        _TRAINERS + "round.py",
        "scores, torch.nan).view(-1, samples)",
        "scores, torch.nan).view(samples, -1).T",
        "A group holds completions of different prompts.",
        (_LEARNERS,),
    ),
    Mutant(
        "dr-grpo-divides-by-the-spread",
        _TRAINERS + "grpo.py",
        "scale=config.scale_by_std)",
        "scale=True)",
        "Dr. GRPO optimises what GRPO does.",
        (_LEARNERS,),
    ),
    Mutant(
        "gspo-clips-tokens",
        _TRAINERS + "grpo.py",
        'gspo_policy_loss if config.ratio == "sequence" else ppo_policy_loss',
        "ppo_policy_loss",
        "GSPO is GRPO with a tiny clip.",
        _CLIPS,
    ),
    Mutant(
        "token-mean-over-completions",
        _TRAINERS + "grpo.py",
        "            return rows.denominator\n",
        "            return float(rows.response_mask.any(1).sum())\n",
        "DAPO's mean over tokens is divided by the number of completions.",
        (f"{_LEARNERS}::test_dr_grpo_weighs_tokens_alike_and_grpo_completions",),
    ),
    Mutant(
        "grpo-clip-higher-dropped",
        _TRAINERS + "grpo.py",
        "clip_high=self.config.clip_high,",
        "clip_high=None,",
        "DAPO's clip-higher changes nothing.",
        _CLIPS,
    ),
    Mutant(
        "clip-higher-dropped",
        _TRAINERS + "policy_loss.py",
        "clip_high=self.config.clip_high,",
        "clip_high=None,",
        "Clip-higher changes nothing in RLOO and REINFORCE++.",
        _CLIPS,
    ),
    Mutant(
        "dual-clip-dropped",
        _TRAINERS + "policy_loss.py",
        "dual_clip=self.config.dual_clip,",
        "dual_clip=None,",
        "A bad token that has become likely has no bound on its loss.",
        _CLIPS,
    ),
    Mutant(
        "grpo-kl-without-a-gradient",
        _TRAINERS + "grpo.py",
        "total = total + self.config.kl.coefficient * divergence",
        "total = total + self.config.kl.coefficient * divergence.detach()",
        "The KL is in the loss and moves nothing.",
        (f"{_LEARNERS}::test_grpo_holds_the_policy_through_the_loss",),
    ),
    Mutant(
        "grpo-exact-kl-dropped",
        _TRAINERS + "grpo.py",
        'anchors = [Anchor("kl/reference", config.kl.coefficient, reference)] if exact else []',
        "anchors: list[Anchor] = []",
        "With the exact KL nothing holds the policy.",
        (f"{_LEARNERS}::test_grpo_holds_the_policy_through_the_loss",),
    ),
    Mutant(
        "completions-counted-per-micro-batch",
        _TRAINERS + "grpo.py",
        "            all_sum=lambda own: own.new_tensor(max(total, 1.0)),\n",
        "",
        "The gradient grows with the number of micro-batches.",
        _MICRO_BATCHES,
    ),
    Mutant(
        "rloo-without-a-penalty",
        _TRAINERS + "rloo.py",
        "usable_scores(scores - penalty,",
        "usable_scores(scores,",
        "Nothing holds RLOO's policy near the reference.",
        _RLOO,
    ),
    Mutant(
        "rloo-penalty-per-token",
        _TRAINERS + "rloo.py",
        "zero_outside(kl, experience.response_mask).sum(1)",
        "zero_outside(kl, experience.response_mask).mean(1)",
        "The penalty is a mean over tokens: long completions diverge for nothing.",
        _RLOO,
    ),
    Mutant(
        "rloo-compares-with-itself",
        _TRAINERS + "rloo.py",
        "spread(leave_one_out(groups), experience)",
        "spread(groups - groups.nanmean(1, keepdim=True), experience)",
        "RLOO's baseline contains the completion that it is for.",
        _RLOO,
    ),
    Mutant(
        "baseline-updated-before-use",
        _TRAINERS + "reinforce.py",
        "        subtracted = _baseline(returns, mask, baseline, config)\n",
        "        baseline.update(returns, mask)\n"
        "        subtracted = _baseline(returns, mask, baseline, config)\n",
        "The moving baseline contains the completions that it is for.",
        _MOVING,
    ),
    Mutant(
        "baseline-stands-still",
        _TRAINERS + "reinforce.py",
        "baseline.update(returns, mask)",
        "pass",
        "REINFORCE has no baseline.",
        _MOVING,
    ),
    Mutant(
        "baseline-of-numbers-that-are-not",
        _TRAINERS + "reinforce.py",
        "        if learnable:\n            baseline.update(returns, mask)\n",
        "        baseline.update(returns, mask)\n",
        "One round that is not finite makes the baseline NaN for ever.",
        (f"{_LEARNERS}::test_baseline_learns_nothing_from_a_round_that_is_not_finite",),
    ),
    Mutant(
        "reinforce-without-its-discount",
        _TRAINERS + "reinforce.py",
        "reward_to_go(rewards, mask, gamma=config.gamma)",
        "reward_to_go(rewards, mask)",
        "The discount of a recipe changes nothing.",
        (f"{_LEARNERS}::test_reinforce_with_the_rounds_own_mean_and_without_any",),
    ),
    Mutant(
        "reinforce-pp-normalises-groups",
        _TRAINERS + "reinforce_pp.py",
        "        advantages = normalised_returns(rewards, mask, gamma=config.gamma)\n",
        "        advantages = rewards.clone()\n"
        "        for first in range(0, len(rewards), sampling.samples_per_prompt):\n"
        "            rows = slice(first, first + sampling.samples_per_prompt)\n"
        "            advantages[rows] = normalised_returns(\n"
        "                rewards[rows], mask[rows], gamma=config.gamma\n"
        "            )\n",
        "REINFORCE++ divides by the spread of a prompt, not of the round.",
        _NORMALISED,
    ),
    Mutant(
        "reinforce-pp-without-its-discount",
        _TRAINERS + "reinforce_pp.py",
        "normalised_returns(rewards, mask, gamma=config.gamma)",
        "normalised_returns(rewards, mask)",
        "The discount of a recipe changes nothing.",
        _NORMALISED,
    ),
    Mutant(
        "reinforce-pp-without-its-groups",
        _TRAINERS + "reinforce_pp.py",
        "shape_rewards(compared, kl,",
        "shape_rewards(experience.scores, kl,",
        "The baseline of the group changes nothing.",
        _NORMALISED,
    ),
    Mutant(
        "reinforce-pp-scales-groups",
        _TRAINERS + "reinforce_pp.py",
        "group_advantages(groups, scale=False)",
        "group_advantages(groups, scale=True)",
        "The baseline of the group divides by the group's spread, as GRPO does.",
        _NORMALISED,
    ),
)

_CLASSIC = (
    Mutant(
        "q-target-of-this-cell",
        _LABS + "gridworld.py",
        "else max(q[ahead])",
        "else max(q[cell])",
        "Q-learning looks at the value of where it is, not of where it goes.",
        _GRID,
    ),
    Mutant(
        "q-target-without-its-discount",
        _LABS + "gridworld.py",
        "(reward + gamma * best - q[cell][action])",
        "(reward + best - q[cell][action])",
        "Q-learning does not find the values of the discounted problem.",
        _GRID,
    ),
    Mutant(
        "q-target-is-the-worst",
        _LABS + "gridworld.py",
        "else max(q[ahead])",
        "else min(q[ahead])",
        "Q-learning expects the worst action to follow.",
        _GRID,
    ),
    Mutant(
        "value-after-the-end",
        _LABS + "cartpole.py",
        "bootstrap = torch.where(rollout.ended, 0, after)",
        "bootstrap = after",
        "GAE adds the value of a state that is never reached: falling costs nothing.",
        _EPISODES,
    ),
    Mutant(
        "nothing-after-a-window",
        _LABS + "cartpole.py",
        "bootstrap = torch.where(rollout.ended, 0, after)",
        "bootstrap = torch.zeros_like(after)",
        "The end of a window is taken for the end of the episode.",
        _EPISODES,
    ),
    Mutant(
        "time-limit-is-an-end",
        _LABS + "episodes.py",
        "row.ended = bool(ended)",
        "row.ended = bool(ended or cut)",
        "Standing for 500 steps is punished like falling.",
        _EPISODES,
    ),
    Mutant(
        "trace-of-gae-dropped",
        _LABS + "cartpole.py",
        "rollout.rewards, values, rollout.mask, gamma=gamma, lam=lam, bootstrap=bootstrap",
        "rollout.rewards, values, rollout.mask, gamma=gamma, lam=1.0, bootstrap=bootstrap",
        "The lambda of a learner changes nothing.",
        _EPISODES,
    ),
)

MUTANTS = (*_CREDIT, *_LOOPS, *_CLASSIC)

"""Mistakes in what a round is made of: its prompts, the groups it keeps, and conversations.

The same kind of list as `mutant_catalogue`, which holds those of PPO and of what all share.
"""

from mutant import Mutant

__all__ = ["MUTANTS"]

_ALGORITHMS = "src/tutelage/algorithms/"
_TRAINERS = "src/tutelage/trainers/"
_TALK = "src/tutelage/generation/conversation.py"
_EARNED = "src/tutelage/rewards/conversation.py"
_LEARNABILITY = "tests/unit/algorithms/test_learnability.py::"
_CURRICULUM = "tests/unit/trainers/test_curriculum.py::"
_DYNAMIC = "tests/unit/trainers/test_dynamic_sampling.py::"
_CONVERSATIONS = "tests/unit/generation/test_conversation.py::"
_LOOPS = "tests/unit/trainers/test_conversations.py::"
_TURNS = "tests/unit/rewards/test_conversation.py::"
_BY_HAND = (f"{_CURRICULUM}test_running_statistics_by_hand",)
_UNUSABLE = (f"{_CURRICULUM}test_unusable_scores_do_not_count",)
_TOO_FEW = (f"{_CURRICULUM}test_item_with_too_few_usable_scores_stays_as_it_was",)
_ENOUGH = (f"{_DYNAMIC}test_draws_until_enough_groups_differ_and_keeps_those",)
_OVER = (f"{_DYNAMIC}test_what_is_over_is_thrown_away_too",)
_WRITTEN = ("tests/unit/test_records.py::test_what_a_completion_of_several_turns_has_written",)
_EARLIER_TURNS = (
    "tests/unit/test_experience.py"
    "::test_turns_before_the_last_keep_their_part_of_the_score_on_their_last_token",
)
_SEEDS = (
    f"{_CONVERSATIONS}test_samples_of_one_prompt_meet_the_same_seed_and_later_prompts_another",
)
_EVERY_ANSWER = (f"{_TURNS}test_every_answer_is_scored_with_the_conversation_before_it",)

_PROMPTS = (
    Mutant(
        "variance-of-failed-scores",
        _ALGORITHMS + "learnability.py",
        "squares = torch.where(usable, (held - mean[:, None]).square(), 0.0)",
        "squares = (held - mean[:, None]).square()",
        "A score that failed makes its prompt look learnable.",
        _UNUSABLE,
    ),
    Mutant(
        "variance-of-one-score",
        _ALGORITHMS + "learnability.py",
        "torch.where(count > 1, squares.sum(1) / count.clamp(min=1), torch.nan)",
        "torch.where(count > 0, squares.sum(1) / count.clamp(min=1), torch.nan)",
        "A prompt with one usable score counts as solved.",
        _TOO_FEW,
    ),
    Mutant(
        "pass-rate-of-failed-scores",
        _ALGORITHMS + "learnability.py",
        "passed / count.clamp(min=1), torch.nan)",
        "passed / scores.shape[1], torch.nan)",
        "A completion that could not be scored counts as one that did not pass.",
        (f"{_LEARNABILITY}test_pass_rate_by_hand",),
    ),
    Mutant(
        "unseen-prompts-never-drawn",
        _ALGORITHMS + "learnability.py",
        "filled = torch.where(known, weights, mean if mean > 0 else 1.0)",
        "filled = weights.nan_to_num()",
        "The curriculum never leaves the prompts that it began with.",
        (f"{_LEARNABILITY}test_an_unknown_prompt_weighs_as_much_as_the_mean_of_the_known",),
    ),
    Mutant(
        "uniform-share-dropped",
        _ALGORITHMS + "learnability.py",
        "return uniform_share * uniform + (1.0 - uniform_share) * in_proportion",
        "return in_proportion",
        "A prompt that had nothing to teach once is never seen again.",
        (f"{_LEARNABILITY}test_probabilities_by_hand",),
    ),
    Mutant(
        "decay-reversed",
        _TRAINERS + "curriculum.py",
        "self.config.decay * before + (1.0 - self.config.decay) * newest",
        "(1.0 - self.config.decay) * before + self.config.decay * newest",
        "The longer the memory that a recipe asks for, the shorter it is.",
        _BY_HAND,
    ),
    Mutant(
        "window-inside-out",
        _TRAINERS + "curriculum.py",
        "inside = (weights >= self.config.low) & (weights <= self.config.high)",
        "inside = (weights < self.config.low) | (weights > self.config.high)",
        "The window keeps the prompts that are solved or out of reach.",
        (
            f"{_CURRICULUM}"
            "test_window_draws_all_inside_alike_and_none_outside_but_for_the_uniform_share",
        ),
    ),
    Mutant(
        "curriculum-groups-across-prompts",
        _TRAINERS + "curriculum.py",
        ".view(len(self._drawn), -1)",
        ".view(-1, len(self._drawn)).T",
        "What is heard of a prompt are the scores of others.",
        _BY_HAND,
    ),
    Mutant(
        "curriculum-hears-failures",
        _TRAINERS + "curriculum.py",
        "usable = [score.value if score.ok else torch.nan for score in scores]",
        "usable = [score.value if score.ok else 0.0 for score in scores]",
        "A reward that fails now and then decides which prompts are learnable.",
        _UNUSABLE,
    ),
    Mutant(
        "curriculum-forgets-on-failure",
        _TRAINERS + "curriculum.py",
        "running[self._drawn] = torch.where(newest.isnan(), before, heard)",
        "running[self._drawn] = heard",
        "One failed batch wipes out what was known of its prompts.",
        _TOO_FEW,
    ),
    Mutant(
        "prompt-twice-in-a-batch",
        _TRAINERS + "curriculum.py",
        "torch.multinomial(self.probabilities, self.size, generator=self.generator)",
        "torch.multinomial(self.probabilities, self.size, True, generator=self.generator)",
        "One learnable prompt fills a batch alone.",
        (f"{_CURRICULUM}test_batch_holds_no_item_twice",),
    ),
    Mutant(
        "curriculum-resumes-without-memory",
        _TRAINERS + "curriculum.py",
        'self.known = state["known"].clone()',
        "pass",
        "After an interruption all prompts are drawn alike again.",
        (f"{_CURRICULUM}test_batches_go_on_from_a_saved_state",),
    ),
)

_GROUPS = (
    Mutant(
        "silent-groups-kept",
        _TRAINERS + "dynamic_sampling.py",
        "differing = has_signal(worth).nonzero().squeeze(1).tolist()[: len(prompts)]",
        "differing = list(range(len(worth)))[: len(prompts)]",
        "Dynamic sampling pays for further groups and learns from the first ones all the same.",
        _ENOUGH,
    ),
    Mutant(
        "round-grows-with-its-extras",
        _TRAINERS + "dynamic_sampling.py",
        "differing = has_signal(worth).nonzero().squeeze(1).tolist()[: len(prompts)]",
        "differing = has_signal(worth).nonzero().squeeze(1).tolist()",
        "Rounds differ in size; the step size with them.",
        _OVER,
    ),
    Mutant(
        "one-extra-batch-too-few",
        _TRAINERS + "dynamic_sampling.py",
        "while len(batches) <= extra and",
        "while len(batches) < extra and",
        "With extra_batches of 1 dynamic sampling is off.",
        _OVER,
    ),
    Mutant(
        "kept-rows-of-other-groups",
        _TRAINERS + "dynamic_sampling.py",
        "chosen = [group * samples + i for group in kept for i in range(samples)]",
        "chosen = [group + i for group in kept for i in range(samples)]",
        "The rows that are kept straddle two groups.",
        _ENOUGH,
    ),
    Mutant(
        "thrown-groups-are-free",
        _TRAINERS + "round.py",
        "for each in (*self.completions, *self.thrown))",
        "for each in self.completions)",
        "What dynamic sampling threw away is missing from the cost of the run.",
        (f"{_DYNAMIC}test_all_that_was_drawn_is_paid_and_scored",),
    ),
)

_WHOSE = (
    Mutant(
        "only-the-last-turn-is-trained",
        "src/tutelage/records.py",
        "        for turn in self.turns:\n            wrote[",
        "        for turn in self.turns[-1:]:\n            wrote[",
        "Answers before the last get no gradient.",
        _WRITTEN,
    ),
    Mutant(
        "end-of-turn-not-trained",
        "src/tutelage/records.py",
        "wrote[turn.start : turn.end] = [True] * (turn.end - turn.start)",
        "wrote[turn.start : turn.end - 1] = [True] * (turn.end - turn.start - 1)",
        "The policy never learns to give the other side its turn.",
        _WRITTEN,
    ),
    Mutant(
        "turn-paid-on-what-was-read",
        "src/tutelage/experience.py",
        "earned[i, start + turn.end - 1] = reward",
        "earned[i, start + turn.end] = reward",
        "What a turn earned lies on the first token of the reply, which is masked: it is lost.",
        _EARLIER_TURNS,
    ),
    Mutant(
        "last-turn-paid-twice",
        "src/tutelage/experience.py",
        "zip(completions[i].turns[:-1], score.turns, strict=False)",
        "zip(completions[i].turns, score.turns, strict=False)",
        "The last turn's reward is in `earned` and in what is left of the score.",
        _EARLIER_TURNS,
    ),
    Mutant(
        "turns-paid-at-the-end",
        _TRAINERS + "ppo.py",
        "shape_rewards(scores, kl, mask, beta, earned=experience.earned)",
        "shape_rewards(scores, kl, mask, beta)",
        "PPO credits the last answer with what all of them earned.",
        (f"{_LOOPS}test_advantages_are_those_of_the_written_tokens_side_by_side",),
    ),
    Mutant(
        "cut-off-turn-takes-all",
        _TRAINERS + "round.py",
        "return torch.where(experience.truncated, before + replaced, scores)",
        "return torch.where(experience.truncated, replaced, scores)",
        "An answer that was cut off costs the conversation what earlier ones earned.",
        (f"{_LOOPS}test_a_turn_that_was_cut_off_leaves_what_earlier_ones_earned",),
    ),
)

_SAID = (
    Mutant(
        "reply-not-read",
        _TALK,
        "(*self.prompt.tokens, *answer.tokens, *said),",
        "(*self.prompt.tokens, *answer.tokens),",
        "The policy answers a reply that it was never shown.",
        (f"{_CONVERSATIONS}test_logprobs_are_the_samplers_where_it_sampled_and_0_elsewhere",),
    ),
    Mutant(
        "conversation-after-a-cut-off-answer",
        _TALK,
        "ended = answer.truncated or answer.tokens[-1] != self._end_of_turn",
        "ended = False",
        "The other side replies to half an answer.",
        (f"{_CONVERSATIONS}test_an_answer_that_the_limit_cut_off_is_the_last",),
    ),
    Mutant(
        "turn-without-room",
        _TALK,
        "if full + sampling.max_tokens > self.max_tokens:",
        "if full > self.max_tokens:",
        "A turn begins that the limit of the whole is bound to cut off.",
        (f"{_CONVERSATIONS}test_no_turn_begins_without_room_for_its_answer",),
    ),
    Mutant(
        "every-prompt-meets-one-customer",
        _TALK,
        "seed = (self.seed << 40) + number",
        "seed = (self.seed << 40) + self.begun",
        "All environments of a round have the same random numbers.",
        _SEEDS,
    ),
    Mutant(
        "customers-begin-again",
        _TALK,
        'self.begun = state["begun"]',
        "pass",
        "After an interruption the policy meets the customers that it has met before.",
        _SEEDS,
    ),
    Mutant(
        "answer-scored-without-what-came-before",
        _EARNED,
        "        (\n            before,\n            replace(",
        "        (\n            prompt,\n            replace(",
        "Each answer is scored as if it replied to the first message.",
        _EVERY_ANSWER,
    ),
    Mutant(
        "answer-with-the-tokens-before-it",
        _EARNED,
        "tokens=completion.tokens[turn.start : turn.end],",
        "tokens=completion.tokens[: turn.end],",
        "The length penalty of a turn grows with the turns before it.",
        _EVERY_ANSWER,
    ),
    Mutant(
        "first-answer-for-the-last",
        _EARNED,
        "else [each[-1:] for each in answers]",
        "else [each[:1] for each in answers]",
        "`scored: last` scores the opening of each conversation.",
        (f"{_TURNS}test_the_last_answer_alone_is_scored_where_that_is_asked_for",),
    ),
    Mutant(
        "environment-pays-nothing",
        _EARNED,
        "turns += [g + score.value for",
        "turns += [score.value for",
        "Rewards of the environment are shown and not trained on.",
        (f"{_TURNS}test_turns_and_parts_add_up",),
    ),
    Mutant(
        "failed-conversation-is-zero",
        _EARNED,
        "    if completion.failure:\n",
        "    if False:\n",
        "An environment that raised is a conversation like any other.",
        (f"{_TURNS}test_an_environment_that_fails_is_no_zero",),
    ),
)

MUTANTS = (*_PROMPTS, *_GROUPS, *_WHOSE, *_SAID)

"""Conversations instead of single answers, wherever a stage samples and scores.

EnvironmentConfig ──> an engine of conversations around the stage's own
without one       ──> the engine as it is: a completion is one answer
"""

from collections.abc import Callable, Sequence
from statistics import fmean

from transformers import PreTrainedTokenizerBase

from tutelage.config import EnvironmentConfig
from tutelage.data.python_file import load_callable
from tutelage.environment import Environment
from tutelage.generation import ConversationEngine, Engine
from tutelage.records import Completion, Prompt, Turn, exchanges
from tutelage.worlds.helpdesk import Customer

__all__ = ["conversation_metrics", "conversing", "scored_answers"]


def conversing(
    config: EnvironmentConfig | None,
    engine: Engine,
    tokenizer: PreTrainedTokenizerBase,
    seed: int,
) -> Engine:
    """The engine; with an environment, one whose completions are conversations.

    Raises:
        ConfigError: there is no such environment.
    """
    if config is None:
        return engine
    return ConversationEngine(
        engine,
        _environment(config.name),
        tokenizer,
        max_turns=config.max_turns,
        max_tokens=config.max_tokens,
        seed=seed,
    )


def _environment(name: str) -> Callable[[], Environment]:
    return Customer if name == "helpdesk" else load_callable(name, "environment")


def scored_answers(
    config: EnvironmentConfig | None, prompt: Prompt, text: str, turns: Sequence[Turn]
) -> list[tuple[Prompt, str]]:
    """The texts that a reward model scores, each with what it answers."""
    pairs = [(before, turn.text) for before, turn in exchanges(prompt, turns)] or [(prompt, text)]
    return pairs[-1:] if config is not None and config.scored == "last" else pairs


def conversation_metrics(completions: Sequence[Completion]) -> dict[str, float]:
    """Turns of a conversation, and how many of them the environment ended; nothing without any."""
    turns = [completion.turns for completion in completions if completion.turns]
    if not turns:
        return {}
    ended = [
        not each.turns[-1].reply and not each.truncated and not each.failure
        for each in completions
        if each.turns
    ]
    return {
        "conversation/turns": fmean(len(each) for each in turns),
        "conversation/ended": fmean(ended),
    }

"""The example of an environment is short, plain Python, and can be played with."""

import ast
from pathlib import Path

import pytest

from tutelage.data.python_file import load_callable
from tutelage.errors import ConfigError
from tutelage.records import Message, Prompt

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "higher_or_lower.py"
NAME = f"{EXAMPLE}:HigherOrLower"
PROMPT = Prompt("p", (Message("user", "which number do i think of?"),))


def test_it_is_plain_python_of_a_few_lines():
    tree = ast.parse(EXAMPLE.read_text("utf-8"))
    (written,) = (node for node in tree.body if isinstance(node, ast.ClassDef))
    bodies = [
        statement
        for method in written.body
        if isinstance(method, ast.FunctionDef)
        for statement in method.body[1:]
    ]
    lines = {line for each in bodies for line in range(each.lineno, each.end_lineno + 1)}
    assert len(lines) <= 10
    modules = {node.module for node in tree.body if isinstance(node, ast.ImportFrom)}
    assert modules == {"tutelage"}


@pytest.mark.parametrize("seed", range(5))
def test_halving_finds_every_number_within_four_guesses(seed):
    game = load_callable(NAME, "environment")()
    game.reset(PROMPT, seed)
    low, high, messages = 1, 9, [*PROMPT.messages]
    for _ in range(4):
        guess = (low + high) // 2
        messages.append(Message("assistant", str(guess)))
        reply = game.step(messages)
        if not reply.messages:
            break
        (hint,) = reply.messages
        low, high = (guess + 1, high) if hint.content == "higher" else (low, guess - 1)
        messages.append(hint)
    assert reply.reward == 1.0


def test_nonsense_costs_and_is_answered():
    game = load_callable(NAME, "environment")()
    game.reset(PROMPT, 0)
    reply = game.step([*PROMPT.messages, Message("assistant", "seven?")])
    assert reply.reward < 0
    assert reply.messages[0].role == "user"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nowhere.py:Game", "expected an existing"),
        (f"{EXAMPLE}:Lower", "no function 'Lower': it has .*'HigherOrLower'"),
    ],
)
def test_what_cannot_be_found_is_named(path, message):
    with pytest.raises(ConfigError, match=message):
        load_callable(path, "environment")

"""Completions of several turns: an engine and an environment that answer each other.

    prompts ──engine──> answers ──environment.step──> replies ──chat template──> ids to read
       ^                                                                           │
       └────── prompt, answer and reply: what the next turn answers <──────────────┘

    tokens    a a E u u u a E        a: sampled, E: stop token, u: read
    written   1 1 1 0 0 0 1 1

All conversations that go on are drawn together. Sampled ids are kept as they are; what stands
between two turns is what the chat template puts there, so that the whole is what it writes for
the conversation.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from transformers import PreTrainedTokenizerBase

from tutelage.data.template import ChatCodec
from tutelage.environment import Environment, Reply
from tutelage.errors import GenerationError
from tutelage.generation.engine import Engine, Sampling
from tutelage.models.policy import Policy
from tutelage.records import Completion, EncodedPrompt, Message, Turn

__all__ = ["ConversationEngine"]

T = TypeVar("T")


class ConversationEngine:
    """An engine whose completions are whole conversations with an environment.

    A conversation ends when the environment says nothing, when the token limit cut an answer off,
    when the policy ended it with a stop token that is not the end of a turn, or when a limit leaves
    no room for another turn. An environment that raises ends it too, with `failure` set.
    """

    def __init__(
        self,
        engine: Engine,
        environment: Callable[[], Environment],
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_turns: int,
        max_tokens: int,
        seed: int = 0,
    ) -> None:
        """Takes an engine as it is.

        Args:
            engine: draws each turn.
            environment: makes one for each conversation.
            tokenizer: of the policy, with its chat template.
            max_turns: answers in a conversation.
            max_tokens: of a conversation, its prompt included. A turn after the first begins only
                where an answer of `Sampling.max_tokens` still fits.
            seed: of the environments' random numbers.

        Raises:
            ModelError: the chat template ends no turn.
        """
        self.engine, self.environment = engine, environment
        self.max_turns, self.max_tokens, self.seed = max_turns, max_tokens, seed
        self.begun = 0
        """Prompts so far: with the seed, what the next environments begin from."""
        self._codec = ChatCodec(tokenizer)
        self._end_of_turn = self._codec.end_of_turn

    def load_weights(self, policy: Policy) -> None:
        """Makes the next answers the given policy's."""
        self.engine.load_weights(policy)

    def state_dict(self) -> dict[str, int]:
        """How many conversations have been opened."""
        return {"begun": self.begun}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Inverse of `state_dict`."""
        self.begun = state["begun"]

    def generate(self, prompts: Sequence[EncodedPrompt], sampling: Sampling) -> list[Completion]:
        """Draws conversations; see `Engine.generate`.

        Those of one prompt meet environments with the same seed.

        Raises:
            GenerationError: a prompt is no conversation.
            DataError: the chat template writes what was said otherwise once there is more.
        """
        conversations = [
            self._open(prompt, number)
            for number, prompt in enumerate(prompts, self.begun)
            for _ in range(sampling.samples_per_prompt)
        ]
        self.begun += len(prompts)
        answers = self.engine.generate(prompts, sampling)
        once = replace(sampling, samples_per_prompt=1)
        live = conversations
        while live:
            for conversation, answer in zip(live, answers, strict=True):
                self._take(conversation, answer, sampling)
            live = [conversation for conversation in live if not conversation.over]
            if live:
                answers = self.engine.generate([each.prompt for each in live], once)
        return [conversation.completion() for conversation in conversations]

    def _open(self, prompt: EncodedPrompt, number: int) -> "_Conversation":
        if prompt.prompt.mode != "chat":
            raise GenerationError(
                f"prompt {prompt.prompt.id!r} has mode {prompt.prompt.mode!r}, a conversation "
                "begins with one of mode 'chat'"
            )
        conversation = _Conversation(prompt, self.environment())
        # Distinct for all numbers, and as far apart for neighbours as for others.
        seed = (self.seed << 40) + number
        conversation.attempt(lambda: conversation.environment.reset(prompt.prompt, seed))
        return conversation

    def _take(self, conversation: "_Conversation", answer: Completion, sampling: Sampling) -> None:
        """Adds an answer and asks the environment; prepares the next turn, if there is one."""
        conversation.say(answer)
        reply = conversation.ask()
        ended = answer.truncated or answer.tokens[-1] != self._end_of_turn
        last = len(conversation.turns) == self.max_turns
        if reply is None or not reply.messages or ended or last:
            conversation.over = True
            return
        said = self._codec.reply(conversation.asked, answer.text, reply.messages)
        full = len(conversation.prompt.tokens) + len(answer.tokens) + len(said)
        if full + sampling.max_tokens > self.max_tokens:
            conversation.over = True
            return
        conversation.read(said, reply)


@dataclass
class _Conversation:
    """One conversation in the making."""

    opening: EncodedPrompt
    environment: Environment
    prompt: EncodedPrompt = field(init=False)
    """All that the next answer follows."""
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)
    answers: list[Completion] = field(default_factory=list)
    failure: str = ""
    over: bool = False

    def __post_init__(self) -> None:
        """The first answer follows the opening."""
        self.prompt = self.opening

    @property
    def asked(self) -> tuple[Message, ...]:
        """What the last answer answered."""
        return self.prompt.prompt.messages

    def say(self, answer: Completion) -> None:
        """Adds the policy's answer."""
        start = len(self.tokens)
        self.tokens += answer.tokens
        self.logprobs += answer.logprobs
        self.turns.append(Turn(start, len(self.tokens), answer.text, answer.stop))
        self.answers.append(answer)

    def ask(self) -> Reply | None:
        """What the environment replies; None where it fails."""
        messages = (*self.asked, Message("assistant", self.turns[-1].text))
        reply = None
        if not self.failure:
            reply = self.attempt(lambda: self.environment.step(messages))
        if self.failure:
            return None
        if not isinstance(reply, Reply):
            name = type(self.environment).__name__
            self.failure = f"{name}.step returned {reply!r}, expected a Reply"
            return None
        self.turns[-1] = replace(
            self.turns[-1], reply=tuple(reply.messages), reward=float(reply.reward)
        )
        return reply

    def read(self, said: Sequence[int], reply: Reply) -> None:
        """Adds what was said, as the ids between two turns."""
        answer = self.answers[-1]
        self.tokens += said
        self.logprobs += [0.0] * len(said)
        messages = (*self.asked, Message("assistant", answer.text), *reply.messages)
        self.prompt = EncodedPrompt(
            replace(self.prompt.prompt, messages=messages),
            (*self.prompt.tokens, *answer.tokens, *said),
        )

    def attempt(self, call: Callable[[], T]) -> T | None:
        """Calls the environment, which is somebody else's code: its failure is this row's alone."""
        try:
            return call()
        except Exception as error:
            self.failure = f"{type(self.environment).__name__} raised {error!r}"
            return None

    def completion(self) -> Completion:
        """The whole conversation as one sample."""
        return replace(
            self.answers[-1],
            prompt_id=self.opening.prompt.id,
            tokens=tuple(self.tokens),
            logprobs=tuple(self.logprobs),
            text=_transcript(self.turns),
            policy_version=self.answers[0].policy_version,
            turns=tuple(self.turns),
            failure=self.failure,
        )


def _transcript(turns: Sequence[Turn]) -> str:
    """The answers and what was said in between, for people."""
    lines = []
    for turn in turns[:-1]:
        lines.append(turn.text)
        lines += [f"[{message.role}] {message.content}" for message in turn.reply]
        lines.append("[assistant]")
    return "\n".join([*lines, turns[-1].text])

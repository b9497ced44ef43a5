"""A judge model: labeller, reward and evaluator in one object.

    comparison ─┬─ a first ──> P(a is better)  ─┐
                └─ b first ──> P(a is better)  ─┴─ mean ──> Verdict ──> Preference
    completion ──> P(1) .. P(10) ──> Σ i P(i) ──> Rating

Both orders are always asked. Their mean is the probability: where the judge says A both times, or
B both times, it has contradicted itself, the two cancel out, and as a verdict it is a tie (Zheng
et al. 2023, arXiv:2306.05685, section 3.4; the mean: Lee et al. 2023, arXiv:2309.00267, section
2.1). With `reasons` the judge first writes them and then decides in a second question, greedily
(Lee et al., section 2.1.3).
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self, TypeVar

from tutelage.errors import JudgeError
from tutelage.judging.asking import Asker, BudgetSpentError, GivenUpError
from tutelage.judging.loop_thread import AskerThread
from tutelage.judging.prompt import WORDING, Question
from tutelage.judging.reply import JudgeRequest, ModelReply
from tutelage.judging.rubric import Rubric
from tutelage.judging.verdict import distribution, expectation, shares
from tutelage.records import Comparison, Preference, Prompt
from tutelage.tracking.fingerprint import fingerprint

__all__ = ["OVER_BUDGET", "JudgeSettings", "ModelJudge", "Progress", "Rating", "Verdict"]

Item = TypeVar("Item")
Result = TypeVar("Result")
Progress = Callable[[int, int], None]
"""Told how many are done, and of how many."""

UNREADABLE = "unreadable"
OVER_BUDGET = "budget"
"""Why there is no answer; else what went wrong."""
_DIGITS = 8
"""Of the instructions' hash, in the name of the annotator."""
_TELLING = 20
"""Questions after which samples that never differ are told of."""


@dataclass(frozen=True)
class JudgeSettings:
    """How a judge is asked."""

    reasons: bool = False
    """Let it weigh the answers in words first."""
    probabilities: Literal["auto", "tokens", "samples", "decisions"] = "auto"
    """Where they come from: the answer token's log-probabilities, the shares of several samples, or
    the former where the model gives them; or an endpoint that decides (`EndpointModel`)."""
    samples: int = 5
    """Replies drawn of each question for `samples`."""
    temperature: float = 1.0
    """At which they are drawn; everything else is greedy."""
    min_mass: float = 0.5
    """Probability that the labels must have between them; below it the reply is unreadable."""
    answer_tokens: int = 8
    """Longest reply to the question which label it is."""
    reason_tokens: int = 512
    """Longest reasons."""


@dataclass(frozen=True, slots=True)
class _Reading:
    """The answer to one question."""

    shares: dict[str, float] | None
    rationale: str = ""
    created: str = ""
    failure: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a judge says about a comparison."""

    comparison: Comparison
    orders: tuple[float | None, float | None]
    """P(a is better) where a was shown first and where it was shown second; None: unreadable."""
    rationale: str = ""
    created: str = ""
    failure: str = ""
    """Why there is no `p_a`."""

    @property
    def p_a(self) -> float | None:
        """The mean of both orders; None unless both could be read."""
        first, second = self.orders
        return None if first is None or second is None else (first + second) / 2

    @property
    def winner(self) -> Literal["a", "b", "tie"] | None:
        """The answer that is better in both orders; a tie where they contradict each other."""
        first, second = self.orders
        if first is None or second is None:
            return None
        if first > 0.5 and second > 0.5:
            return "a"
        return "b" if first < 0.5 and second < 0.5 else "tie"

    def preference(
        self, annotator: str, *, instructions: str = "", round: int = 0
    ) -> Preference | None:
        """The verdict as a record; None where there is no probability."""
        first, second = self.orders
        if first is None or second is None:
            return None
        return Preference(
            self.comparison,
            (first + second) / 2,
            annotator=annotator,
            kind="ai",
            rationale=self.rationale,
            created=self.created,
            round=round,
            orders=(first, second),
            instructions=instructions,
        )


@dataclass(frozen=True, slots=True)
class Rating:
    """How good an answer is, from 1 to 10."""

    value: float | None
    """The expectation over the grades; None where it could not be read."""
    rationale: str = ""
    failure: str = ""


class ModelJudge:
    """Asks a language model, in both orders, by a rubric."""

    def __init__(self, asker: Asker, rubric: Rubric, settings: JudgeSettings | None = None) -> None:
        """Says who is asked, by what, and how."""
        self.asker, self.rubric, self.settings = asker, rubric, settings or JudgeSettings()
        self.counts: Counter[str] = Counter()
        """questions, and those among them that were unreadable; those that were sampled, and those
        among them whose samples differ."""
        self._samples = self.settings.probabilities == "samples"
        self._thread = AskerThread(asker, "judge")

    @property
    def instructions(self) -> str:
        """SHA-256 of what the judge is told: rubric, wording, and whether it gives reasons."""
        told = {"rubric": self.rubric.sha256, "wording": WORDING, "reasons": self.settings.reasons}
        return fingerprint(told)

    @property
    def name(self) -> str:
        """The model and the beginning of `instructions`: another rubric is another annotator."""
        return f"{self.asker.model.name}#{self.instructions[:_DIGITS]}"

    @property
    def parse_rate(self) -> float:
        """Share of the answered questions whose answer could be read; 1 before there were any."""
        asked = self.counts["questions"]
        return 1.0 - self.counts[UNREADABLE] / asked if asked else 1.0

    def __call__(self, comparisons: Sequence[Comparison]) -> list[float | None]:
        """The probability that `a` is better of each, None where it cannot tell: a `Judge`.

        Both orders are in it; who asks again with the answers exchanged gets the same replies.
        """
        return [verdict.p_a for verdict in self.judge(comparisons)]

    def judge(
        self, comparisons: Sequence[Comparison], progress: Progress = lambda done, total: None
    ) -> list[Verdict]:
        """One verdict for each comparison, in their order.

        Those that the budget does not reach have the failure `budget`, with all after them that
        were not under way.

        Raises:
            JudgeError: the model cannot be asked; replies so far are kept.
        """
        return self._run(self._judge_all(comparisons, progress))

    def label(self, comparisons: Sequence[Comparison]) -> list[Preference]:
        """A preference for each comparison that could be judged: unscorable ones have none."""
        return self.preferences(self.judge(comparisons))

    def preferences(self, verdicts: Sequence[Verdict], round: int = 0) -> list[Preference]:
        """The verdicts as records; those without a probability are left out."""
        told = self.instructions
        rows = (row.preference(self.name, instructions=told, round=round) for row in verdicts)
        return [row for row in rows if row is not None]

    def rate(
        self,
        prompts: Sequence[Prompt],
        answers: Sequence[str],
        progress: Progress = lambda done, total: None,
    ) -> list[Rating]:
        """One rating for each answer, in their order.

        Raises:
            JudgeError: the model cannot be asked; replies so far are kept.
        """
        pairs = list(zip(prompts, answers, strict=True))
        return self._run(self._rate_all(pairs, progress))

    def close(self) -> None:
        """Closes connections and the cache."""
        self._thread.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    async def _judge_all(
        self, comparisons: Sequence[Comparison], progress: Progress
    ) -> list[Verdict]:
        async def judge(comparison: Comparison) -> Verdict:
            forth, back = await asyncio.gather(
                self._read(self._which(comparison)), self._read(self._which(comparison.swap()))
            )
            rationale = "\n\n".join(
                f"{shown} first: {reading.rationale}"
                for shown, reading in (("a", forth), ("b", back))
                if reading.rationale
            )
            return Verdict(
                comparison,
                (
                    forth.shares["A"] if forth.shares else None,
                    back.shares["B"] if back.shares else None,
                ),
                rationale,
                max(forth.created, back.created),
                forth.failure or back.failure,
            )

        def unreached(comparison: Comparison) -> Verdict:
            return Verdict(comparison, (None, None), failure=OVER_BUDGET)

        return await self._each(comparisons, judge, unreached, progress)

    async def _rate_all(
        self, pairs: Sequence[tuple[Prompt, str]], progress: Progress
    ) -> list[Rating]:
        async def rate(pair: tuple[Prompt, str]) -> Rating:
            question = Question.how_good(self.rubric, *pair, self.asker.cache.secret)
            reading = await self._read(question)
            value = expectation(reading.shares) if reading.shares else None
            return Rating(value, reading.rationale, reading.failure)

        return await self._each(
            pairs, rate, lambda pair: Rating(None, failure=OVER_BUDGET), progress
        )

    async def _each(
        self,
        items: Sequence[Item],
        work: Callable[[Item], Awaitable[Result]],
        unreached: Callable[[Item], Result],
        progress: Progress,
    ) -> list[Result]:
        """Works on as many items at a time as requests may be under way."""
        results: list[Result | None] = [None] * len(items)
        waiting = iter(range(len(items)))
        done, stopped = 0, False

        async def worker() -> None:
            nonlocal done, stopped
            for i in waiting:
                try:
                    results[i] = await work(items[i])
                except BudgetSpentError:
                    stopped = True
                if stopped:
                    return
                done += 1
                progress(done, len(items))

        workers = [asyncio.ensure_future(worker()) for _ in range(self.asker.limits.concurrency)]
        try:
            await asyncio.gather(*workers)
        except BaseException:
            for each in workers:
                each.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
            await self.asker.finish(cancel=True)
            raise
        # The other order of a comparison that the budget has ended may be under way.
        await self.asker.finish(cancel=False)
        return [
            unreached(item) if result is None else result
            for item, result in zip(items, results, strict=True)
        ]

    def _which(self, comparison: Comparison) -> Question:
        return Question.which(self.rubric, comparison, self.asker.cache.secret)

    async def _read(self, question: Question) -> _Reading:
        """Asks one question, and reads the answer."""
        try:
            reasons, created = await self._reasons(question)
            replies, created = await self._replies(question, reasons, created)
        except GivenUpError as error:
            return _Reading(None, failure=str(error))
        self.counts["questions"] += 1
        if len(replies) > 1:
            self._count_samples(replies)
        if len(replies) == 1 and replies[0].tokens is not None:
            read = distribution(replies[0], question.labels, self.settings.min_mass)
        else:
            read = shares(replies, question.labels)
        if read is None:
            self.counts[UNREADABLE] += 1
        return _Reading(read, reasons or "", created, "" if read else UNREADABLE)

    async def _reasons(self, question: Question) -> tuple[str | None, str]:
        if not self.settings.reasons:
            return None, ""
        request = JudgeRequest(
            tuple(question.to_reason()), (), self.settings.reason_tokens, logprobs=False
        )
        known = await self.asker.ask(question.content, request)
        return known.reply.text.strip(), known.created

    async def _replies(
        self, question: Question, reasons: str | None, created: str
    ) -> tuple[list[ModelReply], str]:
        """One reply with probabilities, or several without."""
        messages = tuple(question.to_decide(reasons))
        # The verdict depends on the reasons, which the content of the question does not hold.
        content = question.content | {"reasons": reasons}

        async def ask(**options: Any) -> ModelReply:
            nonlocal created
            request = JudgeRequest(
                messages, question.labels, self.settings.answer_tokens, **options
            )
            known = await self.asker.ask(content, request)
            created = max(created, known.created)
            return known.reply

        if not self._samples:
            reply = await ask()
            if reply.tokens is not None:
                return [reply], created
            self._sample_from_now_on()
        temperature = self.settings.temperature if self.settings.samples > 1 else 0.0
        draws = [
            ask(logprobs=False, temperature=temperature, sample=number)
            for number in range(self.settings.samples)
        ]
        return list(await asyncio.gather(*draws)), created

    def _sample_from_now_on(self) -> None:
        name, number = self.asker.model.name, self.settings.samples
        if self.settings.probabilities != "auto":
            raise JudgeError(
                f"judge {name} gives no log-probabilities: set probabilities to 'samples', or to "
                "'auto'"
            )
        if not self._samples:
            self.asker.notify(
                f"judge {name} gives no log-probabilities: probabilities are shares of {number} "
                "samples"
            )
        self._samples = True

    def _count_samples(self, replies: Sequence[ModelReply]) -> None:
        """Tells where samples never differ: their shares then look certain of everything."""
        self.counts["sampled"] += 1
        self.counts["differing"] += len({reply.text.strip() for reply in replies}) > 1
        if self.counts["sampled"] == _TELLING and not self.counts["differing"]:
            self.asker.notify(
                f"judge {self.asker.model.name} gave {len(replies)} equal samples of each of "
                f"{_TELLING} questions: where its server ignores the temperature, which some do "
                "unless the model's own settings say that it samples, they say no more than one"
            )

    def _run(self, work: Coroutine[Any, Any, Result]) -> Result:
        return self._thread.run(work)

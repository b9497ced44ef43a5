"""Opens the judges that recipes and commands name.

FILE.py:NAME           a Python function of comparisons
FILE.yaml, options     JudgeConfig ──> endpoint or local model ──> ModelJudge
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from tutelage.config import JudgeConfig, is_judge_file, load_section
from tutelage.data.python_file import load_callable
from tutelage.judging import (
    Asker,
    AskLimits,
    Budget,
    EndpointModel,
    Judge,
    JudgeCache,
    JudgeSettings,
    ModelJudge,
    Rubric,
    Verdict,
    asked_in_both_orders,
)
from tutelage.judging.endpoint import token_from_environment
from tutelage.judging.local import LocalModel
from tutelage.judging.model_judge import Progress
from tutelage.judging.reply import JudgeModel
from tutelage.records import Comparison, Preference

__all__ = ["FunctionJudge", "labelling_judge", "named_judge", "open_judge"]


class FunctionJudge:
    """A Python function of comparisons, asked in both orders."""

    def __init__(self, judge: Judge, name: str) -> None:
        """Args: the function, and its name in the record."""
        self.function, self.name = judge, name

    def judge(
        self, comparisons: Sequence[Comparison], progress: Progress = lambda done, total: None
    ) -> list[Verdict]:
        """One verdict for each comparison.

        Raises:
            RewardError: the function returned what is no probability, or not one for each.
        """
        orders = asked_in_both_orders(self.function, comparisons)
        progress(len(comparisons), len(comparisons))
        return [Verdict(*row) for row in zip(comparisons, orders, strict=True)]

    def preferences(self, verdicts: Sequence[Verdict]) -> list[Preference]:
        """The verdicts as records; those without a probability are left out."""
        rows = (verdict.preference(self.name) for verdict in verdicts)
        return [row for row in rows if row is not None]


def named_judge(
    name: str, what: str, opened: ExitStack, notify: Callable[[str], None] = lambda message: None
) -> Judge:
    """A function `path.py:name`, or the judge model that a YAML file describes.

    Args:
        name: as in a recipe.
        what: it is, for messages.
        opened: closes the judge when it is closed.
        notify: told what goes on.

    Raises:
        ConfigError: there is no such function, or the file describes no judge.
    """
    if is_judge_file(name):
        return opened.enter_context(open_judge(load_section(JudgeConfig, Path(name), {}), notify))
    return load_callable(name, what)


def labelling_judge(
    name: str,
    cache: Path | None,
    opened: ExitStack,
    notify: Callable[[str], None] = lambda message: None,
) -> ModelJudge | FunctionJudge:
    """As `named_judge`, as an annotator: with verdicts and records, and a name for them.

    Args:
        name: as in a recipe.
        cache: where a model's replies are kept, unless its file names another place; in memory
            where neither does.
        opened: closes the judge when it is closed.
        notify: told what goes on.

    Raises:
        ConfigError: there is no such function, or the file describes no judge.
    """
    if not is_judge_file(name):
        return FunctionJudge(load_callable(name, "judge"), name.rpartition(":")[2])
    config = load_section(JudgeConfig, Path(name), {})
    if config.cache is None and cache is not None:
        config = config.model_copy(update={"cache": str(cache)})
    return opened.enter_context(open_judge(config, notify))


def open_judge(
    config: JudgeConfig, notify: Callable[[str], None] = lambda message: None
) -> ModelJudge:
    """The judge model, not asked yet.

    Raises:
        ConfigError: its token is not in the environment, or there is no such rubric.
        MissingExtraError: the endpoint's client is not installed.
        ModelError: the folder holds no model.
        JudgeError: the cache cannot be used.
    """
    budget = Budget(config.max_tokens, config.max_cost, config.price_in, config.price_out)
    limits = AskLimits(config.concurrency, config.seconds, config.retries)
    settings = JudgeSettings(
        reasons=config.reasons,
        probabilities=config.probabilities,
        samples=config.samples,
        min_mass=config.min_mass,
        reason_tokens=config.reason_tokens,
    )
    rubric = Rubric.load(config.rubric)
    model = _model(config)
    cache = JudgeCache(config.cache)
    asker = Asker(model, cache, budget=budget, limits=limits, notify=notify)
    return ModelJudge(asker, rubric, settings)


def _model(config: JudgeConfig) -> JudgeModel:
    if config.url is None:
        return LocalModel(config.model)
    token = token_from_environment(config.url, config.token_env)
    decisions = config.probabilities == "decisions"
    extra = config.extra_fields
    return EndpointModel(config.model, config.url, token, extra=extra, decisions=decisions)

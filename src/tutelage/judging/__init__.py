"""Who says which of two answers is better."""

from tutelage.judging.asking import Asker, AskLimits
from tutelage.judging.budget import Budget
from tutelage.judging.cache import JudgeCache, Spent
from tutelage.judging.endpoint import EndpointModel
from tutelage.judging.judge import Judge, asked_in_both_orders, in_both_orders
from tutelage.judging.model_judge import JudgeSettings, ModelJudge, Rating, Verdict
from tutelage.judging.rubric import Rubric

__all__ = [
    "AskLimits",
    "Asker",
    "Budget",
    "EndpointModel",
    "Judge",
    "JudgeCache",
    "JudgeSettings",
    "ModelJudge",
    "Rating",
    "Rubric",
    "Spent",
    "Verdict",
    "asked_in_both_orders",
    "in_both_orders",
]

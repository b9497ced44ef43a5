"""Who says which of two answers is better."""

from tutelage.judging.judge import Judge, in_both_orders

__all__ = ["Judge", "in_both_orders"]

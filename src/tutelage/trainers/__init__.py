"""The training loops, one short file each, over one learner."""

__all__: list[str] = []

"""What improved, by signals that training never saw."""

__all__: list[str] = []

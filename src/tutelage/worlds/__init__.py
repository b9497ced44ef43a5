"""Built-in worlds: generated prompts, corpora and annotators whose truth is known by program."""

__all__: list[str] = []

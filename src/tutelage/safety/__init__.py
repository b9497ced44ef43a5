"""What keeps a policy from being rewarded for the wrong thing."""

__all__: list[str] = []

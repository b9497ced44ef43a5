"""Constitutions that come with the package, a YAML file each; see docs/constitution.md."""

__all__: list[str] = []

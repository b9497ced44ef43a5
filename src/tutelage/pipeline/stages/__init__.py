"""The stages of a recipe, one module per `kind`, each with `run(config, context)`."""

__all__: list[str] = []

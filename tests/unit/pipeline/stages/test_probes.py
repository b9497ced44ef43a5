"""Probes answer alike throughout, whatever the rounds between them do."""

from tutelage.pipeline.stages import train


def test_probes_keep_their_temperature_while_that_of_the_rounds_falls(
    tiny_recipe, context, read_rows
):
    """A policy that does not move gives the same answers, and no divergence from itself."""
    given = tiny_recipe.stages["train"].model_dump()
    still = {
        "steps": 6,
        "final_temperature": 0.2,
        "policy": {"learning_rate": 1e-12, "schedule": "constant"},
    }
    stage = type(tiny_recipe.stages["train"]).model_validate(
        {**given, "ppo": {**given["ppo"], **still}}
    )
    place = context()
    train.run(stage, place)
    rows = read_rows(place.folder / "probes.jsonl")
    answers = {step: [r["text"] for r in rows if r["step"] == step] for step in (0, 3, 6)}
    assert answers[0] == answers[3] == answers[6]
    assert len(answers[0]) == 3
    # Sampler and reference compute in different shapes.
    assert max(abs(row["kl"]) for row in rows) < 1e-3

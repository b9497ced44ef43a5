"""An evaluation that scores three answers with gold."""

from tutelage.worlds.helpdesk import WorldSpec, gold, prompts

__all__ = ["run"]


def run(config, context):
    for prompt in prompts(WorldSpec.nano(), "test", 3, context.seed):
        gold.gold_score(prompt, "I do not know.", ended=True)
    return {}

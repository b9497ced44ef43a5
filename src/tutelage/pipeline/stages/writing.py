"""The writer that a stage with a constitution asks, and how it goes on after an interruption."""

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager

import torch

from tutelage.config import ConstitutionStage, EndpointConfig
from tutelage.errors import GenerationError
from tutelage.generation import LocalWriter
from tutelage.judging import Asker, AskLimits, Budget, EndpointModel, JudgeCache
from tutelage.judging.constitution import AskedWriter, Constitution, Writer
from tutelage.judging.endpoint import token_from_environment
from tutelage.pipeline.context import StageContext
from tutelage.pipeline.stages.preparation import generator, local_engine, sampling_of
from tutelage.worlds.helpdesk import HelpdeskReviser

__all__ = ["constitution_record", "open_writer", "require_few_failures"]


@contextmanager
def open_writer(
    config: ConstitutionStage, constitution: Constitution, context: StageContext
) -> Iterator[tuple[Writer, torch.Generator]]:
    """The writer, and the random numbers it draws, which belong to a checkpoint.

    Its connections, and the file that keeps what it replied, are closed at the end.
    """
    if config.writer == "helpdesk":
        yield _helpdesk_rules(constitution), generator(context)
    elif config.endpoint is not None:
        with closing(_endpoint(config.endpoint, context)) as writer:
            yield writer, generator(context)
    else:
        yield _local(config, context)


def _local(config: ConstitutionStage, context: StageContext) -> tuple[LocalWriter, torch.Generator]:
    assert config.model is not None, "the stage is refused without a model"
    engine, tokenizer, source = local_engine(
        context.resolve(config.model, "model"), config.sampling, context
    )
    writer = LocalWriter(
        engine,
        tokenizer,
        sampling_of(config.sampling, tokenizer),
        name=config.model,
        max_prompt_tokens=config.max_prompt_tokens,
    )
    return writer, source


def _endpoint(endpoint: EndpointConfig, context: StageContext) -> AskedWriter:
    token = token_from_environment(endpoint.url, endpoint.token_env)
    asker = Asker(
        EndpointModel(endpoint.model, endpoint.url, token),
        JudgeCache(context.replies),
        budget=Budget(endpoint.max_total_tokens),
        limits=AskLimits(endpoint.concurrency, endpoint.seconds, endpoint.retries),
        notify=context.progress.message,
    )
    return AskedWriter(asker, max_tokens=endpoint.max_tokens, temperature=endpoint.temperature)


def _helpdesk_rules(constitution: Constitution) -> HelpdeskReviser:
    """The helpdesk world's rules, told what the constitution's requests are about."""
    return HelpdeskReviser(
        {
            request: principle.category
            for principle in constitution.principles
            for request in (principle.critique, principle.revision)
        }
    )


def constitution_record(constitution: Constitution, writer: Writer) -> dict[str, str]:
    """What every row says of the constitution and of who followed it."""
    return {
        "constitution": constitution.name,
        "constitution_sha256": constitution.sha256,
        "writer": writer.name,
    }


def require_few_failures(reasons: Sequence[str], total: int, allowed: float) -> None:
    """Ends the stage once more than the allowed share of all has failed.

    Raises:
        GenerationError: with the first reasons.
    """
    if len(reasons) > allowed * total:
        shown = "\n".join(f"  {reason}" for reason in dict.fromkeys(reasons[:5]))
        raise GenerationError(
            f"{len(reasons)} of {total} failed, and max_failed_share is {allowed:g}. The first:\n"
            f"{shown}"
        )

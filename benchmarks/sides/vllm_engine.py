"""vLLM on the CPU as a side, in an environment of its own.

It loads a saved model, takes prompts as token ids, and returns the log-probability of each drawn
token. Answer lengths are given with the requests. All its work is done in this process, so that
its CPU-seconds are counted.
"""

import os
import tempfile
from collections.abc import Mapping
from typing import Any

from benchmarks.core.row import NotAvailable

__all__ = ["VLLM"]

_HEAD_SIZES = (32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512)
"""For which its attention on CPUs is built."""
_SETTINGS = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
}
"""Environment variables; the cache has one GiB, more than any row of a CPU fills."""


class VLLM:
    """`vllm.LLM.generate` on all requests at once."""

    def __init__(
        self, requests: Mapping[str, Any], dtype: str, compiled: bool = True, device: str = "cpu"
    ) -> None:
        """Takes `Requests` as a mapping; `compiled` is vLLM's default."""
        from benchmarks.sides.requests import Requests

        self.requests = Requests(**requests)
        self.dtype, self.compiled, self.device = dtype, compiled, device

    def prepare(self) -> None:
        """Saves the model, loads it into vLLM, and draws a few tokens.

        Raises:
            NotAvailable: vLLM cannot be imported, or not run this model here.
        """
        self._require_support()
        os.environ.update(_SETTINGS)
        try:
            from vllm import LLM
        except ImportError as error:
            raise NotAvailable(f"vLLM cannot be imported: {error}") from error
        from benchmarks.sides import shapes

        requests = self.requests
        folder = tempfile.mkdtemp(prefix="vllm-benchmark-")
        shapes.causal_lm(requests.shape, 0).save_pretrained(folder)
        self.engine = LLM(
            model=folder,
            dtype=self.dtype,
            skip_tokenizer_init=True,
            enforce_eager=not self.compiled,
            # Repeats would find their prompts already read.
            enable_prefix_caching=False,
            max_model_len=requests.longest + requests.answer,
            max_num_seqs=requests.count,
        )
        self._draw(8)

    def _require_support(self) -> None:
        from benchmarks.sides.shapes import SHAPES

        if self.device != "cpu":
            raise NotAvailable(f"this is vLLM for CPUs, and the row runs on {self.device}")
        shape = SHAPES[self.requests.shape]
        size = shape.get("head_dim", shape["hidden_size"] // shape["num_attention_heads"])
        if size not in _HEAD_SIZES:
            raise NotAvailable(f"vLLM's attention on CPUs has no heads of size {size}")

    def run(self) -> dict[str, float]:
        """Draws all answers."""
        return {"tokens": float(self._draw(self.requests.answer))}

    def _draw(self, longest: int) -> int:
        from vllm import SamplingParams

        settings = [
            SamplingParams(
                temperature=1.0,
                max_tokens=min(length, longest),
                min_tokens=min(length, longest),
                ignore_eos=True,
                logprobs=0,
                detokenize=False,
            )
            for length in self.requests.lengths
        ]
        prompts = [{"prompt_token_ids": ids} for ids in self.requests.prompts]
        answers = [
            request.outputs[0]
            for request in self.engine.generate(prompts, settings, use_tqdm=False)
        ]
        assert all(len(answer.logprobs) == len(answer.token_ids) for answer in answers)
        return sum(len(answer.token_ids) for answer in answers)

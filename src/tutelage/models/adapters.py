"""Low-rank adapters (LoRA, Hu et al. 2021, arXiv:2106.09685) in a transformers model.

    y = W x + (alpha / rank) B A x        W is frozen; A and B are trained, B is 0 at first
              └──── off: 0 ────┘

The layers are those of `peft`, put into the model itself, which stays what transformers made it.
With the adapter off the model is the one it was before, bit for bit: the reference of
reinforcement learning costs no memory. Several adapters may share one model, one active at a time;
the first rests active.
"""

import copy
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from tutelage.errors import CheckpointError, MissingExtraError, ModelError
from tutelage.models.causal import base_model
from tutelage.models.policy import Policy
from tutelage.models.products import multiply_through_onednn
from tutelage.models.rounded import RoundedLinear, round_linear_layers

__all__ = ["Adapter", "WholeModel", "effective_weight", "repeated_alike"]


class Adapter:
    """A named adapter in a model, with the heads that are trained beside it."""

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        rank: int = 16,
        alpha: float = 32.0,
        targets: Sequence[str] | Literal["all-linear"] = "all-linear",
        frozen_layers: int = 0,
        name: str = "policy",
        compute: torch.dtype = torch.float32,
    ) -> None:
        """Puts the adapter into the model, in place, and freezes all else but heads.

        Args:
            model: a language model, or a classifier, whose heads stay trainable. The output
                embedding of a language model is frozen like the rest.
            rank: of the change to each matrix.
            alpha: scale of the change, times rank.
            targets: linear layers below the head, by the end of their names.
            frozen_layers: lowest blocks that get no adapter.
            name: tells the adapters of one model apart.
            compute: autocast format of all that will use the model. For bfloat16 the frozen linear
                layers are kept in bfloat16, which changes no result of autocast and takes half the
                memory; the adapter is float32 in any case.

        Raises:
            MissingExtraError: peft is not installed.
            ModelError: a target is no linear layer of the model.
        """
        peft = _peft()
        self.model, self.name = model, name
        names = _targets(model, targets, frozen_layers)
        convolutions = any(isinstance(model.get_submodule(each), Conv1D) for each in names)
        self.config = peft.LoraConfig(
            r=rank, lora_alpha=alpha, target_modules=names, fan_in_fan_out=convolutions
        )
        assert not any(
            getattr(each, "gradient_checkpointing", False) for each in model.modules()
        ), "adapters come first: see repeated_alike"
        active = _active_list(model) or [name]
        peft.inject_adapter_in_model(self.config, model, adapter_name=name)
        # peft takes what it left there for a sign that someone else is at work on the model.
        del model.peft_config
        multiply_through_onednn(model)
        self._heads = _heads(model)
        self._active = active
        self._share_active_list()
        self.weights = nn.ParameterList(self.named_weights().values()).requires_grad_(True)
        """What is trained: A and B of each layer, and the heads."""
        if compute is torch.bfloat16:
            round_linear_layers(base_model(model))
        model.train(model.training)

    def _share_active_list(self) -> None:
        """One list of active adapters for all layers: to change it switches them all at once."""
        weights = {w: w.requires_grad for w in self.model.parameters()}
        for _, layer in _lora_layers(self.model):
            layer.set_adapter(self._active)
            assert layer.active_adapters is self._active, "peft copies the list it is given"
        for weight, trained in weights.items():
            weight.requires_grad_(trained)

    def named_weights(self) -> dict[str, nn.Parameter]:
        """The trained weights by the names that peft gives them in files."""
        found: dict[str, nn.Parameter] = {}
        for name, layer in _lora_layers(self.model):
            if self.name in layer.lora_A:
                found[f"{name}.lora_A.weight"] = layer.lora_A[self.name].weight
                found[f"{name}.lora_B.weight"] = layer.lora_B[self.name].weight
        for head, module in self._heads.items():
            found |= {f"{head}.{name}": weight for name, weight in module.named_parameters()}
        return found

    def on(self) -> AbstractContextManager[None]:
        """Within the block this adapter is active, and no other."""
        return _become(self._active, [self.name])

    def off(self) -> AbstractContextManager[None]:
        """Within the block the model has its own weights alone."""
        return _become(self._active, [])

    def reference(self, policy: Policy) -> Policy:
        """The policy without the adapter: the same weights in the same storage."""
        return policy.around(policy.model, self.off)

    @torch.no_grad()
    def merged(self) -> PreTrainedModel:
        """An ordinary transformers model in float32, with W + (alpha / rank) B A in the place of W.

        It shares the weights that no adapter changes with this one.
        """
        # Quantised weights are integers, which have no gradient; all of them are replaced below.
        weights = (w for w in self.model.parameters() if w.is_floating_point())
        plain = copy.deepcopy(self.model, {id(w): nn.Parameter(w.detach()) for w in weights})
        with self.on():
            for name, layer in _linear_layers(self.model):
                if _is_lora(layer) or isinstance(layer, RoundedLinear):
                    plain.set_submodule(name, _ordinary(layer))
        _forget_quantisation(plain)
        return plain

    def save(self, folder: str | Path, base: str) -> None:
        """Writes the adapter as `peft.PeftModel.from_pretrained` reads it.

        Args:
            folder: is created.
            base: what the adapter is to be put on, as a note to the reader.
        """
        folder = Path(folder)
        config = copy.deepcopy(self.config)
        config.inference_mode = True
        config.base_model_name_or_path = base
        config.task_type = "SEQ_CLS" if self._heads else "CAUSAL_LM"
        config.modules_to_save = list(self._heads) or None
        config.save_pretrained(str(folder))
        weights = self.named_weights().items()
        tensors = {f"base_model.model.{name}": w.detach().contiguous() for name, w in weights}
        save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})

    @property
    def card(self) -> dict[str, str]:
        """Size and place, for a model card."""
        layers = sum(self.name in layer.lora_A for _, layer in _lora_layers(self.model))
        trained = sum(weight.numel() for weight in self.weights)
        frozen = sum(w.numel() for w in self.model.parameters() if not w.requires_grad)
        return {
            "LoRA": f"rank {self.config.r}, alpha {self.config.lora_alpha:g}, in {layers} linear "
            f"layers: {trained:,} weights trained beside {frozen:,} frozen ones"
        }

    @cached_property
    def _base(self) -> str:
        """A checksum of the frozen weights."""
        digest = hashlib.sha256()
        for name, weight in self.model.named_parameters():
            if not weight.requires_grad and ".lora_" not in name:
                plain = name.replace(".base_layer", "")
                digest.update(f"{plain} {tuple(weight.shape)} {_bit_sum(weight)}\n".encode())
        return digest.hexdigest()

    def state_dict(self) -> dict[str, Any]:
        """The trained weights, and a checksum of those they were trained on."""
        weights = {name: weight.detach() for name, weight in self.named_weights().items()}
        return {"weights": weights, "base": self._base}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`.

        Raises:
            CheckpointError: it belongs to another model, or to another adapter.
        """
        if state["base"] != self._base:
            raise CheckpointError("the adapter was trained on other weights than this model has")
        own, given = self.named_weights(), state["weights"]
        shapes = {name: tuple(weight.shape) for name, weight in own.items()}
        if shapes != {name: tuple(weight.shape) for name, weight in given.items()}:
            raise CheckpointError("the adapter has other layers, or another rank, than this one")
        for name, weight in own.items():
            weight.copy_(given[name])


class WholeModel:
    """All weights of a model are trained: the counterpart of `Adapter` where there is none."""

    def __init__(self, model: PreTrainedModel) -> None:
        """Takes the model as it is."""
        self.model = self.weights = model
        self.card: dict[str, str] = {}

    def reference(self, policy: Policy) -> Policy:
        """A frozen copy of the policy."""
        return policy.frozen_copy()

    def merged(self) -> PreTrainedModel:
        """The model itself."""
        return self.model

    def save(self, folder: str | Path, base: str) -> None:
        """Nothing to write beside the model."""

    def state_dict(self) -> Mapping[str, Any]:
        """The model's."""
        return self.model.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`."""
        self.model.load_state_dict(state)


def repeated_alike(
    model: PreTrainedModel,
) -> Callable[[], tuple[AbstractContextManager[None], AbstractContextManager[None]]]:
    """The `context_fn` of `torch.utils.checkpoint` for a model with or without adapters.

    When the backward pass repeats a forward pass, another adapter may be active than at first.
    """
    active = _active_list(model)

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        again = nullcontext() if active is None else _become(active, active[:])
        return nullcontext(), again

    return contexts


@torch.no_grad()
def effective_weight(layer: nn.Module) -> Tensor:
    """The matrix that a linear layer multiplies by at the moment, active adapters included."""
    if not _is_lora(layer):
        return layer.weight  # type: ignore[return-value]
    weight: Tensor = layer.get_base_weight()  # type: ignore[operator]
    for name in layer.active_adapters:  # type: ignore[union-attr]
        if name in layer.lora_A:  # type: ignore[operator]
            weight = weight + layer.get_delta_weight(name)  # type: ignore[operator]
    return weight


def _active_list(model: nn.Module) -> list[str] | None:
    """The list that all adapted layers of a model share; None where there are none."""
    return next((layer.active_adapters for _, layer in _lora_layers(model)), None)


@contextmanager
def _become(active: list[str], names: Sequence[str]) -> Iterator[None]:
    before = active[:]
    active[:] = names
    try:
        yield
    finally:
        active[:] = before


def _peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise MissingExtraError("peft", "lora") from error
    return peft


def _is_lora(module: nn.Module) -> bool:
    # By its parts: peft is only imported where there are adapters.
    return hasattr(module, "lora_A") and hasattr(module, "get_delta_weight")


def _lora_layers(model: nn.Module) -> list[tuple[str, Any]]:
    return [(name, layer) for name, layer in _linear_layers(model) if _is_lora(layer)]


def _linear_layers(model: nn.Module) -> list[tuple[str, Any]]:
    """Linear layers with their names; one that has adapters is one layer with all that is in it."""
    found: list[tuple[str, nn.Module]] = []
    for name, module in model.named_modules():
        inside = found and _is_lora(found[-1][1]) and name.startswith(f"{found[-1][0]}.")
        if not inside and (_is_lora(module) or isinstance(module, nn.Linear | Conv1D)):
            found.append((name, module))
    return found


def _targets(
    model: PreTrainedModel, wanted: Sequence[str] | Literal["all-linear"], frozen_layers: int
) -> list[str]:
    """Names of the linear layers that get an adapter."""
    base: Any = base_model(model)
    places = set(base.modules())
    for block in base.layers[:frozen_layers] if frozen_layers else ():
        places -= set(block.modules())
    linear = [name for name, layer in _linear_layers(model) if layer in places]
    if wanted == "all-linear":
        return linear
    found = {each: [name for name in linear if f".{name}".endswith(f".{each}")] for each in wanted}
    for each, names in found.items():
        if not names:
            known = ", ".join(sorted({name.rpartition(".")[2] for name in linear}))
            raise ModelError(
                f"lora.targets names {each!r}, which is no linear layer below the head of "
                f"{type(model).__name__} that may get an adapter: it has {known}"
            )
    return [name for names in found.values() for name in names]


def _heads(model: PreTrainedModel) -> dict[str, nn.Module]:
    """The parts of a classifier outside its base model."""
    base = base_model(model)
    if base is model or model.get_output_embeddings() is not None:
        return {}
    return {
        name: module
        for name, module in model.named_children()
        if module is not base and any(True for _ in module.parameters())
    }


def _ordinary(layer: nn.Module) -> nn.Module:
    """A layer as torch or transformers makes it, of the weight that `layer` has at the moment."""
    base: Any = layer.get_base_layer() if _is_lora(layer) else layer  # type: ignore[operator]
    plain: nn.Module
    if isinstance(base, nn.Linear):
        plain = nn.Linear(base.in_features, base.out_features, bias=False, device="meta")
        plain.bias = None if base.bias is None else nn.Parameter(base.bias.detach())
    else:
        plain = copy.deepcopy(base)
    plain.weight = nn.Parameter(effective_weight(layer).float())
    return plain.requires_grad_(True).train(base.training)


def _forget_quantisation(model: PreTrainedModel) -> None:
    """What transformers notes about weights that are no longer there."""
    for name in ("hf_quantizer", "is_quantized", "is_loaded_in_4bit", "quantization_method"):
        vars(model).pop(name, None)
    vars(model.config).pop("quantization_config", None)


def _bit_sum(weight: Tensor) -> int:
    """The sum of a tensor's bit patterns as integers: exact, in any order of addition."""
    kinds = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    bits = weight.detach().contiguous().view(kinds[weight.element_size()])
    return int(bits.sum(dtype=torch.int64))

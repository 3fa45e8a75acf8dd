"""The one place that explains why a model failed: what it met, where, and what to do about it.

A model's own error is the cause of the one raised here, and its first line is in the message.
:data:`RULES` adds what to do, where the error tells.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dff.activations.borrowing import borrowed
from dff.activations.layouts import main_tensor
from dff.errors import DFFError, ModelError, OutOfMemoryError

__all__ = ["MODEL_FAILURES", "model_errors"]

OUT_OF_MEMORY = re.compile(
    r"out of memory|can't allocate memory|cannot allocate memory|not enough memory|bad_alloc"
    r"|ALLOC_FAILED",
    re.IGNORECASE,
)
"""What torch says on CPUs, in a mere RuntimeError, and its libraries on GPUs."""

MODEL_FAILURES = (
    RuntimeError, AssertionError, ValueError, TypeError, LookupError, AttributeError, MemoryError
)  # fmt: skip
"""What a model's code raises where an input does not suit it."""

SIZES = (28, 32, 64, 96, 128, 160, 224, 256, 299, 384, 512)
"""Customary sides of square inputs, in pixels."""


@contextmanager
def model_errors(model: nn.Module, x: Tensor, *, try_sizes: bool = False) -> Iterator[None]:
    """Turn what `model` raises on an input `x` into this package's errors, by one rule.

    Args:
        model: what runs.
        x: (n, channels, height, width) its input.
        try_sizes: where the input's size is to blame, run the model at customary ones to name
            those that it takes.

    Raises:
        OutOfMemoryError: memory ran out.
        ModelError: any other failure of the model's code; its own error is the cause.
    """
    try:
        yield
    except DFFError:
        raise
    except MODEL_FAILURES as error:
        failure = _Failure(model, x, error, try_sizes)
        if failure.is_of_memory:
            raise OutOfMemoryError(
                f"memory ran out in the model on an input of shape {failure.shape}; give fewer "
                "images at a time, smaller ones, or a device with more memory"
            ) from error
        raise ModelError(failure.message()) from error


@dataclass(frozen=True, eq=False)
class _Failure:
    """What a model raised on an input."""

    model: nn.Module
    x: Tensor
    error: Exception
    try_sizes: bool

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.x.shape)

    @property
    def is_of_memory(self) -> bool:
        if isinstance(self.error, (torch.OutOfMemoryError, MemoryError)):
            return True
        return isinstance(self.error, RuntimeError) and bool(OUT_OF_MEMORY.search(str(self.error)))

    @property
    def reason(self) -> str:
        """The line that says it: the first; the interpreter of torch.jit says it last."""
        lines = str(self.error).strip().splitlines() or [type(self.error).__name__]
        scripted = "TorchScript interpreter" in lines[0]
        return lines[-1 if scripted else 0].rstrip(".; ")

    def layer(self) -> tuple[str, nn.Module] | None:
        """Return the innermost named module that was running."""
        names = {module: name for name, module in self.model.named_modules() if name}
        innermost, frames = None, self.error.__traceback__
        while frames is not None:
            module = frames.tb_frame.f_locals.get("self")
            if isinstance(module, nn.Module) and module in names:
                innermost = names[module], module
            frames = frames.tb_next
        return innermost

    def message(self) -> str:
        layer = self.layer()
        where = f" in layer {layer[0]!r} ({type(layer[1]).__name__})" if layer else ""
        told = f"the model failed on an input of shape {self.shape}{where}: {self.reason}"
        for pattern, advise in RULES:
            found = re.search(pattern, self.reason)
            advice = advise(self, found) if found else None
            if advice is not None:
                return f"{told}; {advice}"
        return told

    def sizes(self) -> list[int]:
        """Return the customary sizes that the model runs at, if it may be tried."""
        return [size for size in SIZES if self.try_sizes and self._runs(size)]

    def _runs(self, size: int) -> bool:
        x = self.x.detach().new_zeros((1, self.shape[1], size, size))
        try:
            return len(main_tensor(borrowed(self.model, lambda: self.model(x)))) == 1
        except Exception:  # whatever its code raises
            return False


Advice = Callable[[_Failure, "re.Match[str]"], "str | None"]


def _meta(failure: _Failure, _: re.Match[str]) -> str | None:
    if not any(p.is_meta for p in failure.model.parameters()):
        return None
    return (
        "its weights are on the meta device, which holds no numbers: load them first "
        "(model.to_empty(device='cpu'), then load_state_dict)"
    )


def _several_inputs(failure: _Failure, found: re.Match[str]) -> str | None:
    try:
        names = list(inspect.signature(failure.model.forward).parameters)
    except (TypeError, ValueError):  # compiled
        return None
    lacking = found[0].startswith("missing") and failure.layer() is None
    if not lacking and names[:1] != ["input_ids"]:
        return None
    shown = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
    return (
        f"its forward takes ({shown}), and it is handed images alone; give the rest by "
        "dff.Given(model, ...), with dff.IMAGE in the image's place, or the part of it that sees "
        "images (such as model.vision_model)"
    )


def _clips(failure: _Failure, found: re.Match[str]) -> str | None:
    layer = failure.layer()
    is_volume = bool(layer) and "3d" in type(layer[1]).__name__.lower()  # type: ignore[index]
    if not is_volume and not re.search(r"5-?D", found[0]):
        return None
    return (
        "it takes clips or volumes (n, channels, frames, height, width), and was handed images "
        "(n, channels, height, width); say how many frames it takes by preprocessing="
        "dff.Preprocessing(frames=16, …), and give it videos"
    )


def _channels(failure: _Failure, found: re.Match[str]) -> str | None:
    size = [int(side) for side in found["shape"].split(",")]
    takes, met = int(found["takes"]), int(found["met"])
    if size[-2:] != list(failure.shape[-2:]) or met != failure.shape[1]:
        return None  # deeper in the model
    return (
        f"it takes images of {takes} channels, and was handed {met}: give arrays (height, width, "
        f"{takes}) and preprocessing=dff.Preprocessing(mean=..., std=...) of {takes} numbers each"
    )


def _size(failure: _Failure, _: re.Match[str]) -> str:
    able = failure.sizes()
    runs = f" (it runs at {', '.join(map(str, able))} pixels)" if able else ""
    size = able[0] if able else "..."
    return (
        f"it was made for inputs of another size{runs}: give "
        f"preprocessing=dff.Preprocessing(size={size}, fixed=True), or --size {size}"
    )


def _too_small(failure: _Failure, _: re.Match[str]) -> str:
    return (
        "the input is too small for its strides: give a larger one, "
        "preprocessing=dff.Preprocessing(size=...), or a larger --size"
    )


def _precision(failure: _Failure, _: re.Match[str]) -> str:
    kinds = {str(p.dtype).removeprefix("torch.") for p in failure.model.parameters()}
    given = str(failure.x.dtype).removeprefix("torch.")
    return (
        f"its weights are {' and '.join(sorted(kinds))}, and the input {given}: make them one, as "
        "model.float() does"
    )


def _said(advice: str) -> Advice:
    return lambda failure, found: advice


RULES: tuple[tuple[str, Advice], ...] = (
    ("", _meta),
    (r"missing \d+ required positional|Long|specify|NoneType|to unpack|no attribute",
     _several_inputs),
    (r"Long, Int|LongTensor", _said("it takes whole numbers, as of words, and no images")),
    (r"\b5-?D|expected input\[.*channels|conv3d|expected \d-?D", _clips),
    (r"expected input\[(?P<shape>.*)\] to have (?P<takes>\d+) channels, but got (?P<met>\d+)",
     _channels),
    (r"\blists?\b", _said(
        "it wants a list of images, and was handed a batch (n, channels, height, width); give a "
        "module of yours whose forward calls it with list(x)")),
    (r"Output size is too small|Kernel size can't be greater|[Pp]adding size should be less",
     _too_small),
    (r"view size is not compatible", _said(
        "a view() in it met axes in another order in memory: write reshape() there, or give a "
        "contiguous input and no channels-last weights")),
    (r"shapes cannot be multiplied|is invalid for input of size|match model|size of tensor"
     r"|Sizes of tensors must match|(Wrong|[Ii]nput).*(height|width|size)|normalized_shape", _size),
    (r"not implemented for '(Half|BFloat16)'", _said(
        "its precision is one that this device does not compute in: model.float(), or another "
        "device")),
    (r"[Ii]nput type.*should be the same|same dtype|expected scalar type", _precision),
    (r"same device|[Ii]nput type.*cuda", _said(
        "its weights lie on several devices: bring them together, as model.to(device) does")),
    (r"'quantized::|Quantized\w+' backend", _said(
        "its int8 layers met floating-point numbers, or the others int8: put QuantStub and "
        "DeQuantStub where they change, as torch.ao.quantization.QuantWrapper does")),
)  # fmt: skip
"""By what the model's error says: what to do; the first that has an answer is taken."""

"""What a pass changes while a model runs, and gives back: hooks, training flags, modes.

Several threads may run passes on one model at once, beside forward passes of others:

- A hook acts only in the forward pass that it was registered for: in the thread of that pass, and
  not in what its own function runs.
- A module is in evaluation mode until the last pass that needs it so has ended. Training flags
  belong to the module, so other threads see them, too: a model is not to be trained meanwhile.
- Gradient, inference and autocast modes belong to the thread.

Signals cannot come between a change and its return (:mod:`dff.activations.interrupts`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from dff.activations.interrupts import bracketed

__all__ = ["Ended", "Visit", "borrowed", "plainly", "unheard"]

Result = TypeVar("Result")
Visit = Callable[[str, nn.Module, Any], Any]
"""Called with (name, module, output) after a module ran; what it returns replaces the output.

Or before it runs, with what it is handed."""

_running = threading.local()
"""``innermost``: the pass whose model this thread is running, None while that calls its visit."""


def borrowed(
    model: nn.Module,
    work: Callable[[], Result],
    *,
    grad: bool = False,
    named: Mapping[str, nn.Module] | None = None,
    visit: Visit | None = None,
    taken_in: bool = False,
) -> Result:
    """Return ``work()`` with `model` in evaluation mode; give everything back as it was.

    Compiled modules run uncompiled meanwhile, as they do not hear hooks that come later.

    Args:
        model: any module. Parameters and buffers are not touched.
        work: runs the model.
        grad: whether gradients are recorded.
        named: modules to call `visit` after, by name.
        visit: see :data:`Visit`; forward passes that it runs itself are not visited.
        taken_in: call it before a module runs, with the tuple of what that is handed.
    """
    loan = _Loan(model, grad, named or {}, visit, taken_in)
    return bracketed(loan.take, work, loan.give_back)


def plainly(work: Callable[[], Result], *, grad: bool = True) -> Result:
    """Return ``work()`` outside of inference mode and autocast, recording gradients if `grad`."""
    modes = _Modes(grad=grad, plain=True)
    return bracketed(modes.take, work, modes.give_back)


class _Modes:
    """This thread's gradient mode, and if `plain` its inference and autocast modes and threads.

    The number of threads is changed by a factorization (:mod:`dff.nmf.backend`), which gives it
    back unless a signal comes at the moment between.
    """

    def __init__(self, *, grad: bool, plain: bool = False) -> None:
        self.grad, self.plain = grad, plain
        self._before = torch.is_grad_enabled()
        self._threads = torch.get_num_threads()
        self._inference: torch.inference_mode | None = None
        self._autocast: list[str] = []

    def take(self) -> None:
        if self.plain and torch.is_inference_mode_enabled():
            self._inference = torch.inference_mode(False)
            self._inference.__enter__()
        if self.plain:
            devices = {"cpu", "cuda"} if torch.cuda.is_available() else {"cpu"}
            self._autocast = [device for device in devices if torch.is_autocast_enabled(device)]
            for device in self._autocast:
                torch.set_autocast_enabled(device, False)
        torch.set_grad_enabled(self.grad)

    def give_back(self) -> None:
        for device in self._autocast:
            torch.set_autocast_enabled(device, True)
        if self._inference is not None:
            self._inference.__exit__(None, None, None)
        if self.plain and torch.get_num_threads() != self._threads:
            torch.set_num_threads(self._threads)
        torch.set_grad_enabled(self._before)


class _Eager:
    """The whole process's stance to compiled modules: as written, while any pass needs it so."""

    def __init__(self) -> None:
        self._passes = 0
        self._stance: Any = None

    def take(self) -> bool:
        """Return whether there is something to give back."""
        set_stance = getattr(torch.compiler, "set_stance", None)  # since torch 2.6
        if set_stance is None:
            return False
        if not self._passes:
            self._stance = set_stance("force_eager")
        self._passes += 1
        return True

    def give_back(self) -> None:
        self._passes -= 1
        if not self._passes:
            self._stance.__exit__(None, None, None)


_sharing = threading.Lock()
"""Held while what all threads share is changed: `_evaluating`, `_eager`."""

_evaluating: WeakKeyDictionary[nn.Module, int] = WeakKeyDictionary()
"""How many passes hold each module, in training mode before, in evaluation mode."""

_eager = _Eager()


class Ended(BaseException):
    """Ends a forward pass; no ``except Exception`` inside a model can swallow it.

    Raised by what visits a module, it comes out once the module's other hooks have run, too: others
    may listen to the very layer that a pass ends at.
    """


class _Loan:
    """All that one pass changes."""

    def __init__(
        self,
        model: nn.Module,
        grad: bool,
        named: Mapping[str, nn.Module],
        visit: Visit | None,
        taken_in: bool,
    ) -> None:
        self.model, self.named, self.visit, self.taken_in = model, named, visit, taken_in
        self._modes = _Modes(grad=grad)
        self._outer = getattr(_running, "innermost", None)
        self._handles: list[RemovableHandle] = []
        self._modules: list[nn.Module] = []
        self._uncompiled = False
        self._ended: Ended | None = None

    def take(self) -> None:
        self._modes.take()
        with _sharing:
            compiled = False
            for module in self.model.modules():
                compiled |= module._compiled_call_impl is not None or "_orig_mod" in module._modules
                if module.training or module in _evaluating:
                    _evaluating[module] = _evaluating.get(module, 0) + 1
                    self._modules.append(module)
                    module.training = False
            self._uncompiled = compiled and _eager.take()
        for name, module in self.named.items():
            # As nn.Module does it: those of torch.jit refuse, and yet call hooks (unheard()).
            if self.taken_in:
                handle = nn.Module.register_forward_pre_hook(module, self._hook(name))
            else:  # first, so that hooks of the model's own read what was put in place
                handle = nn.Module.register_forward_hook(module, self._hook(name), prepend=True)
                self._handles.append(nn.Module.register_forward_hook(module, self._end))
            self._handles.append(handle)
        _running.innermost = self

    def give_back(self) -> None:
        _running.innermost = self._outer
        for handle in self._handles:
            handle.remove()
        with _sharing:
            for module in self._modules:
                _evaluating[module] -= 1
                if not _evaluating[module]:
                    del _evaluating[module]
                    module.training = True
            if self._uncompiled:
                _eager.give_back()
        self._modes.give_back()

    def _hook(self, name: str) -> Callable[[nn.Module, Any, Any], Any]:
        def hook(module: nn.Module, inputs: Any, output: Any = None) -> Any:
            if getattr(_running, "innermost", None) is not self:
                return None
            assert self.visit is not None
            _running.innermost = None
            try:
                return self.visit(name, module, inputs if self.taken_in else output)
            except Ended as ended:
                if self.taken_in:
                    raise
                self._ended = ended
                return None
            finally:
                _running.innermost = self

        return hook

    def _end(self, *_: Any) -> None:
        ended, self._ended = self._ended, None
        if ended is not None:
            raise ended


def unheard(model: nn.Module) -> str | None:
    """Return why parts of a model cannot be heard if it is compiled by torch.jit; else None."""
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            what = f"its part {name!r}" if name else "the model"
            return (
                f"{what} is compiled by torch.jit (script or trace), which calls no hooks of its "
                "parts: hand in the Python module that it was made from"
            )
    return None

"""Nets of a size that somebody else's file asks for, built within bounds: never larger than the weights that come with it."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from torch import Tensor, nn
from torch.nn.modules import module as hooks
from torch.utils._python_dispatch import TorchDispatchMode

from oncontour.errors import ModelError

_ASIDE = 1 << 20
"""Numbers that a net may need beside its weights while it is built (tables of positions)."""


@contextmanager
def at_most(shapes: Mapping[str, Sequence[int]]) -> Iterator[None]:
    """A net built within has at most as many numbers as tensors of these ``shapes``, those counted twice that others are put in place
    of, and tensors and modules in proportion. Raises ModelError as soon as it grows larger, before the memory for it is taken."""
    numbers = sum(map(math.prod, shapes.values()))
    told = f"the net described is larger than the {numbers} numbers in {len(shapes)} tensors of its weights"
    me, count = threading.get_ident(), [0, 0, 0]
    limits = (2 * numbers + _ASIDE, 2 * len(shapes) + 64, 32 * len(shapes) + 1024)

    def counted(_: nn.Module, __: str, value: Tensor | nn.Module | None) -> None:
        if value is None or threading.get_ident() != me:
            return
        if isinstance(value, Tensor):
            count[0], count[1] = count[0] + value.numel(), count[1] + 1
        else:
            count[2] += 1
        if any(n > limit for n, limit in zip(count, limits, strict=True)):
            raise ModelError(told)

    ours = [
        hooks.register_module_parameter_registration_hook(counted),
        hooks.register_module_buffer_registration_hook(counted),
        hooks.register_module_module_registration_hook(counted),
    ]
    try:
        with _Sizes(numbers + _ASIDE, told):
            yield
    finally:
        for one in ours:
            one.remove()


class _Sizes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Refuses any tensor of more than ``limit`` numbers before it is made."""

    def __init__(self, limit: int, told: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.limit, self.told = limit, told

    def __torch_dispatch__(
        self, func: Callable[..., object], types: object, args: Sequence[object] = (), kwargs: Mapping[str, object] | None = None
    ) -> object:
        for one in (*args, *(kwargs or {}).values()):
            size = math.prod(one) if isinstance(one, list | tuple) and all(isinstance(n, int) for n in one) else one
            if isinstance(size, int) and size > self.limit:
                raise ModelError(self.told)
        return func(*args, **(kwargs or {}))

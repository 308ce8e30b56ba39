"""Torch or OpenVINO behind one call: float32 arrays in, float32 arrays out.

    run = Engine.load(net, (1, 1, 512, 512))
    scores = run(image)                       # (n, 1, 512, 512) -> (n, classes, 512, 512)

Torch is the reference; OpenVINO is what makes a CPU worth using and is tested against it. Both run in float32: OpenVINO is told so,
because left alone it drops to bfloat16 on CPUs that have it, and results would change with the machine. The same input gives the
same bits on every call with one backend and one number of threads; either changes the order of sums, and so the last digits.

Nothing leaves the host: ``import openvino`` reports its use to a web service unless its telemetry package is out of reach, so it
is put out of reach first.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections import OrderedDict
from collections.abc import Callable, Sequence
from importlib import import_module
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Literal, Protocol, TypedDict

import numpy as np
from numpy.typing import NDArray

from oncontour.errors import ConfigError, ModelError
from oncontour.libraries import memory_told, why
from oncontour.many import processors

if TYPE_CHECKING:
    import torch

Array = NDArray[np.float32]
Backend = Literal["auto", "torch", "openvino"]
_KEPT = 4
"""Compiled shapes held at once."""


class Computed(TypedDict):
    """What a record says of who computes a net."""

    backend: str
    threads: int


class _Model(Protocol):
    """A net as OpenVINO holds it."""

    inputs: Sequence[object]
    outputs: Sequence[object]

    def clone(self) -> _Model: ...

    def reshape(self, shape: list[int]) -> None: ...


class _Request(Protocol):
    """A compiled net that answers."""

    def infer(self, images: list[Array], *, share_inputs: bool, share_outputs: bool) -> Sequence[Array]: ...


class Engine:
    """A net that answers numpy with numpy; ``backend`` says which library runs it, ``threads`` how many threads it may use."""

    def __init__(self, run: Callable[[Array], Array], backend: str, threads: int) -> None:
        self._run, self.backend, self.threads = run, backend, threads

    def __call__(self, images: NDArray[np.generic]) -> Array:
        """(n, channels, ...) -> (n, classes, ...), both float32. Raises ModelError when the net cannot take this shape, MemoryError where
        memory runs out, whichever library says so."""
        with memory_told():
            return self._run(np.ascontiguousarray(images, dtype=np.float32))

    @classmethod
    def load(
        cls, module: torch.nn.Module, example_shape: Sequence[int], *, backend: Backend = "auto", threads: int | None = None
    ) -> Engine:
        """Get ``module`` ready for inputs of ``example_shape`` (n, channels, ...); other shapes are made ready when they first come.

        A smaller batch than one made ready before uses that one. ``auto`` is OpenVINO where it is installed. ``threads=None`` means
        ``OMP_NUM_THREADS`` where that is set, else as many as this process may use at once. The module is put in eval mode and not
        changed otherwise. Raises ConfigError for an unknown backend, ModelError when the net does not take the shape, MemoryError where
        memory runs out.
        """
        library, count = chosen(backend), _threads(threads)
        module = module.eval()
        if library == "torch":
            return cls(_with_torch(module, count), library, count)
        with memory_told():
            return cls(_Compiled(lambda shape: _converted(module, shape), count, tuple(example_shape)), library, count)

    @classmethod
    def load_onnx(
        cls, net: Path | bytes, example_shape: Sequence[int] | None = None, *, threads: int | None = None, where: str = ""
    ) -> Engine:
        """An ONNX file (or its bytes, which came from ``where``) with one image input and one output, run by OpenVINO; ready for
        ``example_shape`` at once where that is given. Raises ModelError when it is not one."""
        count, where = _threads(threads), where or str(net)
        first = None if example_shape is None else tuple(example_shape)
        with memory_told():
            model = _read_onnx(net, where)
            return cls(_Compiled(lambda shape: _reshaped(model, shape, where), count, first), "openvino", count)


def computed_with(backend: Backend, threads: int | None) -> Computed:
    """Who would compute a net, as ``Engine.load`` chooses. Raises what it raises."""
    return {"backend": chosen(backend), "threads": _threads(threads)}


def openvino() -> ModuleType:
    """The OpenVINO module with its telemetry switched off: its own stub takes over where the telemetry package cannot be imported."""
    if "openvino" not in sys.modules:
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    return import_module("openvino")


def chosen(backend: str) -> str:
    """The library that computes: "torch" or "openvino". Raises ConfigError for one that is unknown or not installed."""
    if backend not in ("auto", "torch", "openvino"):
        raise ConfigError(f"engine backend {backend!r}; known are auto, torch, openvino")
    if backend == "torch":
        return backend
    try:
        openvino()
    except ImportError as error:
        if backend == "openvino":
            raise ConfigError(f"OpenVINO cannot be imported ({error})", hint="install openvino, or use the torch backend") from error
        return "torch"
    return "openvino"


def _threads(threads: int | None) -> int:
    if threads is None:
        told = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
        return int(told) if told.isdecimal() and int(told) else processors()
    if threads < 1:
        raise ConfigError(f"threads must be 1 or more, not {threads}")
    return int(threads)


# ---- torch


def _with_torch(module: torch.nn.Module, threads: int) -> Callable[[Array], Array]:
    import torch

    def run(images: Array) -> Array:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            with torch.inference_mode():
                out: Array = module(torch.from_numpy(images)).float().numpy()
        except RuntimeError as error:
            raise ModelError(f"the net does not take an input of {images.shape}: {why(error)}") from error
        finally:
            torch.set_num_threads(before)
        return out

    return run


# ---- OpenVINO


class _Compiled:
    """OpenVINO models compiled for fixed shapes, the last few kept: fixed shapes run faster and let a batch of less be padded."""

    def __init__(self, convert: Callable[[tuple[int, ...]], _Model], threads: int, first: tuple[int, ...] | None = None) -> None:
        self._convert, self._threads = convert, threads
        self._ready: OrderedDict[tuple[int, ...], _Request] = OrderedDict()
        if first is not None:
            self._compile(first)

    def __call__(self, images: Array) -> Array:
        shape = self._fitting(images.shape)
        request = self._ready[shape] if shape else self._compile(images.shape)
        n = len(images)
        if shape and shape[0] > n:
            images = np.concatenate([images, np.zeros((shape[0] - n, *images.shape[1:]), np.float32)])
        try:
            answer = request.infer([images], share_inputs=True, share_outputs=True)[0]
        except RuntimeError as error:
            raise ModelError(
                f"OpenVINO cannot run the net on an input of {images.shape}: {why(error)}", hint="try the torch backend"
            ) from error
        # A copy: the request writes its next answer into the same memory.
        return np.array(answer[:n], dtype=np.float32)

    def _fitting(self, shape: tuple[int, ...]) -> tuple[int, ...] | None:
        fits = [ready for ready in self._ready if ready[1:] == shape[1:] and ready[0] >= shape[0]]
        if not fits:
            return None
        best = min(fits)
        self._ready.move_to_end(best)
        return best

    def _compile(self, shape: tuple[int, ...]) -> _Request:
        settings = {
            "INFERENCE_PRECISION_HINT": "f32",
            "EXECUTION_MODE_HINT": "ACCURACY",
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": self._threads,
            "ENABLE_CPU_PINNING": False,
        }
        ov = openvino()
        model = self._convert(shape)
        try:
            request: _Request = ov.Core().compile_model(model, "CPU", settings).create_infer_request()
        except RuntimeError as error:
            raise ModelError(f"OpenVINO cannot compile the net for an input of {shape}: {why(error)}") from error
        self._ready[shape] = request
        if len(self._ready) > _KEPT:
            self._ready.popitem(last=False)
        return request


def _converted(module: torch.nn.Module, shape: tuple[int, ...]) -> _Model:
    import torch

    from oncontour.nets.exact import summed_by_axis

    ov = openvino()
    example = torch.zeros(shape)
    try:
        with torch.no_grad(), warnings.catch_warnings(), summed_by_axis(module):
            _expect_remarks()
            traced = torch.jit.trace(module, example, check_trace=False)  # type: ignore[no-untyped-call]
            model: _Model = ov.convert_model(traced, example_input=example, input=list(shape))
    except Exception as error:  # the converter raises many kinds; all mean the same to the user
        raise ModelError(f"the net cannot be made ready for an input of {shape}: {why(error)}", hint="try the torch backend") from error
    return model


def _expect_remarks() -> None:
    """Pass over what the tracer says of shapes, which are fixed here, and that it is deprecated.

    ``torch.export`` gives the same numbers at the same speed, but takes four to six times as long to make a net ready: every run would pay
    for that, and none would gain.
    """
    import torch

    warnings.simplefilter("ignore", torch.jit.TracerWarning)  # type: ignore[attr-defined]  # public, though not exported
    warnings.filterwarnings("ignore", r"`torch\.jit\.trace(_method)?` is deprecated", DeprecationWarning)


def _read_onnx(net: Path | bytes, where: str) -> _Model:
    ov = openvino()
    try:
        model: _Model = ov.Core().read_model(BytesIO(net) if isinstance(net, bytes) else net)
    except RuntimeError as error:
        raise ModelError(f"not an ONNX file that OpenVINO can read: {why(error)}", where=where) from error
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise ModelError(
            f"a contouring net has one input and one output, this one {len(model.inputs)} and {len(model.outputs)}",
            where=where,
            hint="export it again with the image as only input and the class scores as only output",
        )
    return model


def _reshaped(model: _Model, shape: tuple[int, ...], where: str) -> _Model:
    fresh = model.clone()
    try:
        fresh.reshape(list(shape))
    except RuntimeError as error:
        raise ModelError(f"the net does not take an input of {shape}: {why(error)}", where=where) from error
    return fresh

"""A trained model's net written as ONNX (``learn/exported.py``); needs torch and the extra ``train``."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import nn

from oncontour.errors import ModelError
from oncontour.files import writing
from oncontour.learn.card import checked_card, find
from oncontour.learn.engine import Engine
from oncontour.learn.exported import beside, sealed
from oncontour.learn.task import load_task
from oncontour.libraries import why
from oncontour.nets.exact import summed_by_axis

OPSET = 17
"""Of ONNX; the first with LayerNormalization (2022)."""
IMAGE, SCORES = "image", "scores"
FAR = 1e-3


def export(model: str | Path, out: Path | None = None) -> Path:
    """Write the net of a model of ours (a path or a shipped name) beside its file, or as ``out``; where it lies.

    Raises ModelError for a task whose net is more than one image in and one answer out (adapt, risk), and where torch cannot export the net
    or OpenVINO does not answer as torch does.
    """
    path = find(model)
    task = load_task(path)
    shape = task.exported_shape()
    if shape is None:
        raise ModelError(f"a model of task {task.name!r} needs torch wherever it is used: it has no ONNX file", where=str(path))
    net = halved(graph(task.answering(), shape, free=task.any_size))
    check_alike(net, task.answering(), shape, str(path))
    target = out or beside(path)
    with writing(target) as temporary:
        temporary.write_bytes(sealed(net, checked_card(path)))
    return target


def check_alike(net: bytes, module: nn.Module, shape: Sequence[int], where: str) -> None:
    """Raise ModelError where OpenVINO's answers to images at random differ from torch's by more than FAR of the largest."""
    rng = np.random.default_rng(0)
    for count in (1, 2):
        images = rng.random((count, *shape[1:]), dtype=np.float32)
        theirs = Engine.load(module, images.shape, backend="torch", threads=1)(images)
        apart = float(np.abs(Engine.load_onnx(net, threads=1, where=where)(images) - theirs).max())
        if not apart <= FAR * max(1.0, float(np.abs(theirs).max())):
            raise ModelError(
                f"as ONNX the net answers otherwise, by up to {apart:.2g}: it does not compute the same for every image",
                where=where,
                hint="use the model where torch is installed",
            )


def graph(net: nn.Module, shape: Sequence[int], *, free: bool) -> bytes:
    """``net`` as ONNX for inputs of ``shape`` in batches of any number; with ``free`` of any height and width too.

    Batch norm stays apart from the convolution before it: folded together their weights would fit no 16 bits. Raises ModelError where
    torch cannot export it.
    """
    axes = {0: "n", **({len(shape) - 2: "j", len(shape) - 1: "i"} if free else {})}
    try:
        with warnings.catch_warnings(), TemporaryDirectory() as folder, summed_by_axis(net):
            into = Path(folder) / "net.onnx"
            warnings.simplefilter("ignore")  # what the tracer says of fixed shapes, and that it is to be replaced
            torch.onnx.export(
                net.eval(),
                (torch.zeros(tuple(shape)),),
                into,
                dynamo=False,
                opset_version=OPSET,
                input_names=[IMAGE],
                output_names=[SCORES],
                dynamic_axes={IMAGE: axes, SCORES: axes},
                training=torch.onnx.TrainingMode.PRESERVE,
                do_constant_folding=False,
            )
            return into.read_bytes()
    except Exception as error:  # the exporter raises many kinds; all mean the same to the user
        raise ModelError(f"torch cannot write this net as ONNX ({why(error)})", hint="use the model where torch is installed") from error


def halved(net: bytes) -> bytes:
    """The same net with every weight that 16 bits hold exactly in 16 bits, cast to 32 before it is used."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = onnx.load_from_string(net)
    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT:
            continue
        values = numpy_helper.to_array(tensor)
        with np.errstate(over="ignore"):
            short = values.astype(np.float16)
        if values.size > 1 and np.array_equal(short.astype(np.float32), values):
            name = tensor.name
            tensor.CopyFrom(numpy_helper.from_array(short, f"{name}.half"))
            casts.append(helper.make_node("Cast", [f"{name}.half"], [name], name=f"{name}.cast", to=TensorProto.FLOAT))
    for cast in reversed(casts):
        model.graph.node.insert(0, cast)
    model.producer_name, model.doc_string = "oncontour", ""
    out: bytes = model.SerializeToString(deterministic=True)
    return out

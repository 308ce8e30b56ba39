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
from oncontour.learn.card import find, is_ours
from oncontour.learn.exported import beside, sealed
from oncontour.learn.task import load_task
from oncontour.libraries import why

OPSET = 17
"""Of ONNX; the first with LayerNormalization (2022)."""
IMAGE, SCORES = "image", "scores"


def export(model: str | Path, out: Path | None = None) -> Path:
    """Write the net of a model of ours (a path or a shipped name) beside its file, or as ``out``; where it lies.

    Raises ModelError for other people's models, for a task whose net is more than one image in and one answer out (adapt, risk), and
    where torch cannot export the net.
    """
    path = find(model)
    if not is_ours(path):
        raise ModelError(
            "only a model of ours is exported", where=str(path), hint="somebody else's ONNX is read as it is: oncontour run --model"
        )
    task = load_task(path)
    shape = task.exported_shape()
    if shape is None:
        raise ModelError(f"a model of task {task.name!r} needs torch wherever it is used: it has no ONNX file", where=str(path))
    from oncontour.learn.card import checked_card

    net = halved(graph(task.answering(), shape, free=task.any_size))
    target = out or beside(path)
    with writing(target) as temporary:
        temporary.write_bytes(sealed(net, checked_card(path)))
    return target


def graph(net: nn.Module, shape: Sequence[int], *, free: bool) -> bytes:
    """``net`` as ONNX for inputs of ``shape`` in batches of any number; with ``free`` of any height and width too.

    Batch norm stays apart from the convolution before it: folded together their weights would fit no 16 bits. Raises ModelError where
    torch cannot export it.
    """
    axes = {0: "n", **({len(shape) - 2: "j", len(shape) - 1: "i"} if free else {})}
    try:
        with warnings.catch_warnings(), TemporaryDirectory() as folder:
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

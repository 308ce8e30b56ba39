"""``oncontour models export``: the net of a model of ours as ONNX beside its file, which machines without torch run."""

from __future__ import annotations

from pathlib import Path


def export(model: str, *, out: Path | None = None) -> str:
    """Write the net of MODEL (a file or a shipped name) as ONNX, so that it contours, judges or synthesizes where torch is not installed.

    The ONNX file belongs beside the model file, under the same name: there it is found, and used in place of torch. It holds the model's
    card and a hash over both, and is refused beside any other model. Needs the extra train.

    Examples:
        oncontour models export our-organs.safetensors

    Args:
        model: a model file, or the name of a shipped model
        out: where to write it; by default beside the model file, as NAME.onnx
    """
    from oncontour.errors import ConfigError
    from oncontour.files import check_writable
    from oncontour.learn.card import find
    from oncontour.learn.exported import beside
    from oncontour.libraries import need

    for library in ("torch", "onnx"):
        need(library, "oncontour models export")
    target = out or beside(find(model))
    if target.suffix != ".onnx":
        raise ConfigError(f"an exported net ends in .onnx, not in {target.suffix!r}", where=str(target), hint="choose another --out")
    check_writable(target.parent)
    from oncontour.learn.export import export as write

    return f"written: {write(model, target)}"

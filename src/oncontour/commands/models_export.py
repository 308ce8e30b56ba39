"""``oncontour models export``: the net of a model of ours as ONNX beside its file, which machines without torch run."""

from __future__ import annotations

from pathlib import Path


def export(model: str, *, out: Path | None = None) -> str:
    """Write the net of MODEL (a file or a shipped name) as ONNX, so that it contours, judges or synthesizes where torch is not installed.

    The ONNX file belongs beside the model file, under the same name: there it is found, and used in place of torch. It holds the model's
    card and a hash over both, and is refused beside any other model: a model that was trained again is exported again. The
    extras train and onnx must be there.

    Examples:
        oncontour models export our-organs.safetensors

    Args:
        model: a model file, or the name of a shipped model
        out: where to write it; by default beside the model file, as NAME.onnx
    """
    from oncontour.errors import ConfigError, ModelError, OutputError
    from oncontour.files import check_writable
    from oncontour.learn.card import find, is_ours
    from oncontour.learn.exported import beside, is_sealed
    from oncontour.libraries import is_installed

    if not all(map(is_installed, ("torch", "monai", "onnx"))):
        hint = "pip install 'oncontour[train,onnx]'"
        raise ConfigError("oncontour models export needs torch, monai and onnx, which are not all installed", hint=hint)
    path = find(model)
    if not is_ours(path):
        hint = "somebody else's ONNX is used as it is: oncontour run --model"
        raise ModelError("only a model of ours (.safetensors) is exported", where=str(path), hint=hint)
    target = out or beside(path)
    if target.suffix != ".onnx":
        raise ConfigError(f"an exported net ends in .onnx, not in {target.suffix!r}", where=str(target), hint="choose another --out")
    if target.exists() and not is_sealed(target):
        hint = "move it away, or choose another --out"
        raise OutputError("this was not made by oncontour, and would be replaced", where=str(target), hint=hint)
    check_writable(target.parent)
    from oncontour.learn.export import export as write

    return f"written: {write(path, target)}"

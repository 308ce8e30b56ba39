"""The net that the plans of an nnU-Net describe: the new format ("architecture") and that of nnU-Net 2.0 to 2.3."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from oncontour.contour.external.values import Values, last_word, listed, named, number, wholes
from oncontour.errors import ModelError
from oncontour.libraries import why
from oncontour.nets.nnunet import NnUNet

_CONVOLUTIONS = ("n_stages", "features_per_stage", "conv_op", "kernel_sizes", "strides", "conv_bias")
_BLOCKS = ("n_conv_per_stage", "n_blocks_per_stage", "n_conv_per_stage_decoder", "block", "bottleneck_channels", "stem_channels")
_OTHERS = ("norm_op", "norm_op_kwargs", "dropout_op", "dropout_op_kwargs", "nonlin", "nonlin_kwargs", "nonlin_first", "deep_supervision")
_ARGUMENTS = (*_CONVOLUTIONS, *_BLOCKS, *_OTHERS)
"""What ``arch_kwargs`` may hold; anything else could change the net without changing its weights."""


def build_net(configuration: Values, channels: int, classes: int, where: Path) -> NnUNet:
    """The net that a configuration of ``plans.json`` describes, in the new format ("architecture") or the old ("UNet_class_name")."""
    try:
        kind, arguments = _architecture(configuration)
        stages = wholes([arguments["n_stages"]])[0]
        dims = len(listed(configuration["patch_size"]))
        blocks = arguments["n_conv_per_stage" if kind == "PlainConvUNet" else "n_blocks_per_stage"]
        return NnUNet(
            channels,
            classes,
            kind="plain" if kind == "PlainConvUNet" else "residual",
            widths=_wholes(arguments["features_per_stage"], stages),
            kernels=[_wholes(k, dims) for k in _each(arguments["kernel_sizes"], stages)],
            strides=[_wholes(s, dims) for s in _each(arguments["strides"], stages)],
            encoder=_wholes(blocks, stages),
            decoder=_wholes(arguments["n_conv_per_stage_decoder"], stages - 1),
            bias=bool(arguments.get("conv_bias", False)),
            norm=_norm(arguments["norm_op"]),
            norm_options=named(arguments.get("norm_op_kwargs") or {}),
            slope=_slope(arguments["nonlin"], named(arguments.get("nonlin_kwargs") or {})),
        )
    except (ModelError, MemoryError):
        raise
    except Exception as error:  # torch raises many kinds for numbers that make no net
        raise ModelError(
            f"the plans do not describe a net that can be built ({type(error).__name__}: {why(error)})", where=str(where)
        ) from error


def _architecture(configuration: Values) -> tuple[str, Values]:
    arguments: Values
    if "architecture" in configuration:
        architecture = named(configuration["architecture"])
        kind, arguments = last_word(architecture["network_class_name"]), named(architecture["arch_kwargs"])
    else:
        kind, arguments = str(configuration["UNet_class_name"]), _old_plans(configuration)
    if kind not in ("PlainConvUNet", "ResidualEncoderUNet"):
        raise ModelError(f"a net of kind {kind}; PlainConvUNet and ResidualEncoderUNet can be read", hint="export it to ONNX")
    if unknown := sorted(name for name in arguments if name not in _ARGUMENTS and arguments[name]):
        raise ModelError(f"a net with {', '.join(unknown)}, which cannot be read", hint="export it to ONNX")
    for option in ("block", "bottleneck_channels", "stem_channels", "nonlin_first"):
        if arguments.get(option) and "BasicBlockD" not in str(arguments[option]):
            raise ModelError(f"a net with {option}={arguments[option]!r}, which cannot be read", hint="export it to ONNX")
    return kind, arguments


def _old_plans(c: Values) -> Values:
    """Arguments of the net from plans of nnU-Net 2.0 to 2.3."""
    encoder = listed(c["n_conv_per_stage_encoder"])
    base, most = wholes([c["UNet_base_num_features"], c["unet_max_num_features"]])
    widths = [min(base * 2**n, most) for n in range(len(encoder))]
    return {
        "n_stages": len(encoder),
        "features_per_stage": widths,
        "kernel_sizes": c["conv_kernel_sizes"],
        "strides": c["pool_op_kernel_sizes"],
        "n_conv_per_stage": encoder,
        "n_blocks_per_stage": encoder,
        "n_conv_per_stage_decoder": c["n_conv_per_stage_decoder"],
        "conv_bias": True,
        "norm_op": "InstanceNorm",
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "nonlin": "torch.nn.LeakyReLU",
    }


_MOST_STAGES = 32


def _each(value: object, count: int) -> list[object]:
    if count > _MOST_STAGES:
        raise ValueError(f"{count} stages or axes, at most {_MOST_STAGES}")
    out = list(value) if isinstance(value, list | tuple) else [value] * count
    if len(out) != count:
        raise ValueError(f"{value} should have {count} entries")
    return out


def _wholes(value: object, count: int) -> list[int]:
    return wholes(_each(value, count))


def _norm(name: object) -> Literal["instance", "batch"]:
    if "InstanceNorm" in str(name):
        return "instance"
    if "BatchNorm" in str(name):
        return "batch"
    raise ValueError(f"normalisation {name}")


def _slope(name: object, options: Values) -> float:
    kind = last_word(name)
    if kind not in ("LeakyReLU", "ReLU"):
        raise ValueError(f"activation {name}")
    return number(options.get("negative_slope", 0.01)) if kind == "LeakyReLU" else 0.0

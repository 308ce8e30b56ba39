"""A MONAI bundle as a contourer: ``configs/metadata.json``, ``configs/inference.json`` (or .yaml), ``models/model.pt``.

A bundle's configuration is a program: strings that begin with ``$`` are Python to be evaluated. None is evaluated here. Plain values,
references (``@name``, ``@name#part``) and ``$`` before a plain literal are understood; the net must be one of MONAI's (NETS below),
preprocessing made of the steps below, the inferer a sliding window. What is not understood is refused by name; ``oncontour.json`` in the
bundle's folder can replace it with plain values, for example ``{"pixdim": [1.5, 1.5, 1.5]}``.
*Differs:* probabilities, not labels, are brought to the case's grid; post-processing other than the activation is left to our own tidying.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from oncontour.case import Case
from oncontour.engine import Backend, Engine
from oncontour.errors import ModelError
from oncontour.ops.windows import Blend
from oncontour.tasks.outside import Outside, axes_of, card_of, fit, image_of, load_tensors, permuted, read_json, tensors_in
from oncontour.tasks.single import load_torchscript
from oncontour.volume import Volume

NETS = ("UNet", "BasicUNet", "BasicUNetPlusPlus", "DynUNet", "SegResNet", "SegResNetVAE", "AttentionUnet", "VNet", "UNETR", "SwinUNETR")
"""Nets of MONAI that a bundle may name."""
_NO_EFFECT = (
    "LoadImaged",
    "EnsureChannelFirstd",
    "AddChanneld",
    "AsChannelFirstd",
    "EnsureTyped",
    "ToTensord",
    "CastToTyped",
    "SpatialPadd",
    "DivisiblePadd",
)
_DEEPEST = 20
Step = Callable[[Volume], Volume]


def is_bundle(path: Path) -> bool:
    """Whether ``path`` is the folder of a MONAI bundle."""
    return path.is_dir() and (path / "configs" / "metadata.json").is_file()


def read_bundle(folder: Path, *, backend: Backend = "auto", threads: int | None = None, trust: bool = False) -> Outside:
    """The model in a bundle's folder. TorchScript (``models/model.ts``) is used where there is no ``model.pt``, and only with ``trust``.

    Raises ModelError where something is missing, is code, or is not known.
    """
    metadata, config = read_json(folder / "configs" / "metadata.json"), _Config.of(folder)
    labels, mode = _labels(metadata, folder), config.activation()
    image = _image(metadata)
    window = config.window()
    net, weights = _net(folder, config, trust)
    compiled: Backend = "torch" if weights.suffix == ".ts" else backend
    engine = Engine.load(net, (1, 1, *window), backend=compiled, threads=threads)
    steps, spacing = config.steps()

    def prepare(case: Case) -> Volume:
        volume = image_of(case, image)
        volume = volume.to(permuted(volume.geometry, (2, 1, 0)))  # MONAI's arrays are (x, y, z)
        for step in steps:
            volume = step(volume)
        return Volume(volume.array.astype(np.float32)[None], volume.geometry)

    kept = labels[1:] if mode == "softmax" else labels
    return Outside(
        card=card_of(str(metadata.get("name") or folder.name), "MONAI bundle", kept, spacing, [weights]),
        labels=kept,
        prepare=prepare,
        predict=engine,
        window=window,
        backend=engine.backend,
        overlap=config.overlap(),
        mode=mode,
        blend=config.blend(),
        pad=config.pad(),
        notes=config.left_out(),
    )


def _labels(metadata: Mapping[str, Any], folder: Path) -> tuple[str, ...]:
    """Names of all channels, the background too."""
    try:
        channels = metadata["network_data_format"]["outputs"]["pred"]["channel_def"]
        numbers = sorted(int(n) for n in channels)
        if numbers != list(range(len(numbers))):
            raise ValueError(f"channels {numbers}")
        return tuple(str(channels[str(n)]) for n in numbers)
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(
            f"metadata.json does not say what the channels are ({type(error).__name__}: {error})",
            where=str(folder),
            hint="add network_data_format.outputs.pred.channel_def",
        ) from error


def _image(metadata: Mapping[str, Any]) -> str:
    inputs = metadata["network_data_format"].get("inputs", {}).get("image", {})
    return "mr" if str(inputs.get("modality", "CT")).upper().startswith("MR") else "ct"


def _net(folder: Path, config: _Config, trust: bool) -> tuple[Any, Path]:
    tensors, script = folder / "models" / "model.pt", folder / "models" / "model.ts"
    if tensors.is_file():
        net = config.net()
        fit(net, tensors_in(load_tensors(tensors), tensors), tensors)
        return net, tensors
    if script.is_file():
        return load_torchscript(script, trust=trust), script
    raise ModelError("neither models/model.pt nor models/model.ts is here", where=str(folder), hint="fetch the bundle with its large files")


@dataclass(frozen=True)
class _Config:
    """``inference.json`` read as plain values."""

    values: Mapping[str, Any]
    where: str

    @classmethod
    def of(cls, folder: Path) -> _Config:
        configs = folder / "configs"
        own = read_json(folder / "oncontour.json") if (folder / "oncontour.json").is_file() else {}
        if (configs / "inference.json").is_file():
            return cls({**read_json(configs / "inference.json"), **own}, str(configs / "inference.json"))
        for name in ("inference.yaml", "inference.yml"):
            if (configs / name).is_file():
                import yaml

                try:
                    values = yaml.safe_load((configs / name).read_text(encoding="utf-8"))
                except (yaml.YAMLError, ValueError, RecursionError) as error:
                    raise ModelError(f"this is no YAML ({error})", where=str(configs / name)) from error
                return cls({**values, **own}, str(configs / name))
        raise ModelError("configs/inference.json is missing", where=str(folder))

    def plain(self, value: Any, depth: int = 0) -> Any:
        """``value`` with references followed. Raises ModelError for code."""
        if depth > _DEEPEST:
            raise ModelError("references run in a circle", where=self.where)
        if isinstance(value, str) and value.startswith("@"):
            return self.plain(self._referred(value), depth + 1)
        if isinstance(value, str) and value.startswith("$"):
            try:
                return ast.literal_eval(value[1:])
            except (ValueError, SyntaxError, RecursionError, MemoryError) as error:
                raise ModelError(
                    f"{value!r} is code, which is not run", where=self.where, hint="give the value it stands for in oncontour.json"
                ) from error
        if isinstance(value, Mapping):
            return {key: self.plain(item, depth + 1) for key, item in value.items()}
        if isinstance(value, list):
            return [self.plain(item, depth + 1) for item in value]
        return value

    def _referred(self, reference: str) -> Any:
        value: Any = self.values
        for part in reference[1:].replace("::", "#").split("#"):
            try:
                value = value[int(part)] if isinstance(value, list) else value[part]
            except (KeyError, IndexError, TypeError, ValueError) as error:
                raise ModelError(f"{reference!r} refers to nothing", where=self.where) from error
        return value

    def transforms(self, name: str) -> list[Mapping[str, Any]]:
        """The steps of ``preprocessing`` or ``postprocessing``, not yet made plain."""
        group = self.values.get(name)
        steps = group.get("transforms") if isinstance(group, Mapping) else group
        if isinstance(steps, str):
            steps = self._referred(steps) if steps.startswith("@") else None
        if not isinstance(steps, list):
            raise ModelError(f"{name} is no list of transforms", where=self.where)
        return [step for step in steps if isinstance(step, Mapping) and not step.get("_disabled_")]

    def net(self) -> Any:
        """The net, built but without weights."""
        for key in ("network_def", "network", "net"):
            described = self.values.get(key)
            if isinstance(described, Mapping) and "_target_" in described:
                break
        else:
            raise ModelError("network_def is missing or is code", where=self.where, hint="use a bundle with models/model.ts, or ONNX")
        arguments = self.plain(described)
        kind = str(arguments.pop("_target_")).rsplit(".", 1)[-1]
        if kind not in NETS:
            raise ModelError(f"a net of kind {kind!r}; known are {', '.join(NETS)}", where=self.where, hint="use models/model.ts, or ONNX")
        from monai.networks import nets

        try:
            return getattr(nets, kind)(**{key: value for key, value in arguments.items() if not key.startswith("_")})
        except (TypeError, ValueError, AssertionError) as error:
            raise ModelError(f"{kind} does not take these settings ({error})", where=self.where) from error

    # ---- before the net

    def steps(self) -> tuple[list[Step], tuple[float, ...]]:
        """What is done to the image, and the spacing it ends with (empty: its own)."""
        out: list[Step] = []
        spacing: tuple[float, ...] = ()
        for described in self.transforms("preprocessing"):
            kind = str(described.get("_target_", "")).rsplit(".", 1)[-1]
            if kind in _NO_EFFECT:
                continue
            make = _STEPS.get(kind)
            if make is None:
                raise ModelError(f"preprocessing step {kind!r} is not known; known are {sorted(_STEPS)}", where=self.where, hint="use ONNX")
            arguments = self.plain({key: value for key, value in described.items() if key not in ("_target_", "keys", "mode")})
            try:
                out.append(make(arguments))
                spacing = tuple(float(s) for s in arguments["pixdim"]) if kind == "Spacingd" else spacing
            except (KeyError, TypeError, ValueError) as error:
                raise ModelError(f"{kind} with settings that cannot be used ({type(error).__name__}: {error})", where=self.where) from error
        return out, spacing

    # ---- the net's windows

    def _inferer(self) -> Mapping[str, Any]:
        inferer = self.values.get("inferer")
        if not isinstance(inferer, Mapping) or "SlidingWindowInferer" not in str(inferer.get("_target_", "")):
            raise ModelError("the inferer is no SlidingWindowInferer", where=self.where, hint="use ONNX with a JSON beside it")
        return inferer

    def window(self) -> tuple[int, int, int]:
        size = self.plain(self._inferer().get("roi_size"))
        if not isinstance(size, Sequence) or len(size) != 3 or not all(isinstance(n, int) and n > 0 for n in size):
            raise ModelError(f"roi_size must be three positive numbers, not {size}", where=self.where)
        return size[0], size[1], size[2]

    def overlap(self) -> float:
        value = self.plain(self._inferer().get("overlap", 0.25))
        return float(value[0] if isinstance(value, Sequence) else value)

    def blend(self) -> Blend:
        return "auto" if str(self._inferer().get("mode", "constant")).lower().endswith("gaussian") else "flat"

    def pad(self) -> float | None:
        inferer = self._inferer()
        return None if inferer.get("padding_mode") in ("replicate", "reflect") else float(inferer.get("cval", 0.0))

    # ---- after the net

    def activation(self) -> str:
        """``softmax`` or ``sigmoid``."""
        for described in self.transforms("postprocessing"):
            if str(described.get("_target_", "")).endswith("Activationsd"):
                return "sigmoid" if described.get("sigmoid") else "softmax"
        return "softmax"

    def left_out(self) -> tuple[str, ...]:
        usual = ("Activationsd", "AsDiscreted", "Invertd", "SaveImaged", "EnsureTyped", "ToTensord", "CopyItemsd")
        kinds = [str(described.get("_target_", "")).rsplit(".", 1)[-1] for described in self.transforms("postprocessing")]
        return tuple(f"the bundle's step {kind} after the net was left out" for kind in kinds if kind not in usual)


def _oriented(a: Mapping[str, Any]) -> Step:
    axes = axes_of(a["axcodes"], "Orientationd")
    return lambda volume: volume.to(volume.geometry.reorient(axes))


def _spaced(a: Mapping[str, Any]) -> Step:
    spacing = [float(s) for s in a["pixdim"]]

    def step(volume: Volume) -> Volume:
        wanted = [new if new > 0 else old for new, old in zip(spacing, volume.geometry.spacing_mm, strict=True)]
        return volume.to(volume.geometry.resample(wanted), fill=float(volume.array.min()))

    return step


def _ranged(a: Mapping[str, Any]) -> Step:
    low, high = float(a["a_min"]), float(a["a_max"])
    first, last = (float(a[key]) if a.get(key) is not None else None for key in ("b_min", "b_max"))
    if low >= high:
        raise ValueError(f"a_min {low}, a_max {high}")

    def step(values: Any) -> Any:
        out = (values - low) / (high - low)
        if first is not None and last is not None:
            out = out * (last - first) + first
            return np.clip(out, first, last) if a.get("clip") else out
        return out

    return lambda volume: volume.map(step)


def _normalised(a: Mapping[str, Any]) -> Step:
    def step(values: Any) -> Any:
        counted = values[values != 0] if a.get("nonzero") else values
        mean = a["subtrahend"] if a.get("subtrahend") is not None else counted.mean()
        spread = a["divisor"] if a.get("divisor") is not None else counted.std()
        out = (values - mean) / (spread or 1.0)
        return np.where(values != 0, out, values) if a.get("nonzero") else out

    return lambda volume: volume.map(step)


def _scaled(a: Mapping[str, Any]) -> Step:
    if a.get("factor") is not None:
        return lambda volume: volume.map(lambda values: values * (1 + float(a["factor"])))
    low, high = float(a.get("minv", 0.0)), float(a.get("maxv", 1.0))

    def step(values: Any) -> Any:
        least, most = values.min(), values.max()
        return (values - least) / ((most - least) or 1.0) * (high - low) + low

    return lambda volume: volume.map(step)


def _cropped(a: Mapping[str, Any]) -> Step:
    if a.get("select_fn") is not None:
        raise ValueError("select_fn is code")

    def step(volume: Volume) -> Volume:
        there = np.argwhere(volume.array > 0)
        if not len(there):
            return volume
        return volume.to(volume.geometry.crop(there.min(axis=0), there.max(axis=0) + 1))

    return step


_STEPS: dict[str, Callable[[Mapping[str, Any]], Step]] = {
    "Orientationd": _oriented,
    "Spacingd": _spaced,
    "ScaleIntensityRanged": _ranged,
    "NormalizeIntensityd": _normalised,
    "ScaleIntensityd": _scaled,
    "CropForegroundd": _cropped,
}
"""Preprocessing that is understood: from the transform's settings to a step from Volume to Volume."""

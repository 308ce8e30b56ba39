"""A MONAI bundle as a contourer: ``configs/metadata.json``, ``configs/inference.json`` (or .yaml), ``models/model.pt``.

A bundle's configuration is a program: strings that begin with ``$`` are Python to be evaluated. None is evaluated here. Plain values,
references (``@name``, ``@name#part``) and ``$`` before a plain literal are understood; the net must be one of MONAI's (NETS below),
preprocessing made of the steps below, the inferer a sliding window. What is not understood, a step or one of its settings, is refused by
name; ``oncontour.json`` in the bundle's folder can replace it with plain values, for example ``{"pixdim": [1.5, 1.5, 1.5]}``. A bundle
without ``Orientationd`` does not say which way its voxels run in the patient: ``oncontour.json`` must, as ``{"axes": "RAS"}`` (x, y, z run
to ...) or ``{"axes": "own"}`` for each case's own order, as MONAI does.
*Differs:* probabilities, not labels, are brought to the case's grid; the image is blurred before it is resampled to larger voxels, so that
what is finer is averaged; post-processing other than activation and threshold is left to our own tidying.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from oncontour.contour.external.base import (
    OWN_ORDER,
    Outside,
    card_of,
    check_window,
    fit,
    image_of,
    load_tensors,
    permuted,
    read_json,
    said_beside,
    sized,
    tensors_in,
)
from oncontour.contour.external.bundle_steps import HARMLESS, NO_EFFECT, STEPS, Step, oriented
from oncontour.contour.external.onnx import load_torchscript
from oncontour.contour.external.values import Values, last_word, named, number, numbers
from oncontour.core.case import Case
from oncontour.core.volume import Volume
from oncontour.documents import MAX_VALUES, read_yaml
from oncontour.errors import FormatError, LimitError, ModelError
from oncontour.learn.engine import Backend, Engine
from oncontour.libraries import why
from oncontour.ops.windows import Blend

if TYPE_CHECKING:
    from torch import nn

NETS = ("UNet", "BasicUNet", "BasicUNetPlusPlus", "DynUNet", "SegResNet", "SegResNetVAE", "AttentionUnet", "VNet", "UNETR", "SwinUNETR")
"""Nets of MONAI that a bundle may name."""
_DEEPEST = 20


def is_bundle(path: Path) -> bool:
    """Whether ``path`` is the folder of a MONAI bundle."""
    return path.is_dir() and (path / "configs" / "metadata.json").is_file()


def read_bundle(folder: Path, *, backend: Backend = "auto", threads: int | None = None, trust: bool = False) -> Outside:
    """The model in a bundle's folder. TorchScript (``models/model.ts``) is used where there is no ``model.pt``, and only with ``trust``.

    Raises ModelError where something is missing, is code, or is not known.
    """
    metadata, config = read_json(folder / "configs" / "metadata.json"), _Config.of(folder)
    labels, (mode, threshold) = _labels(metadata, folder), config.decision()
    if mode == "softmax" and len(labels) < 2:
        raise ModelError(f"one channel ({labels[0]}) and no sigmoid: there is nothing to choose from", where=config.where)
    image = _image(metadata, str(folder / "configs" / "metadata.json"))
    window = config.window()
    check_window(window, config.where)
    steps, spacing = config.steps()
    net, weights = _net(folder, config, trust)
    compiled: Backend = "torch" if weights.suffix == ".ts" else backend
    engine = Engine.load(net, (1, 1, *window), backend=compiled, threads=threads)
    remarks = (*config.left_out(), *([OWN_ORDER.format("bundle")] if config.own_order() else []))

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
        threads=engine.threads,
        overlap=config.overlap(),
        mode=mode,
        threshold=threshold,
        blend=config.blend(),
        pad=config.pad(),
        notes=remarks,
    )


def _within(values: Values, *keys: str) -> Values:
    for key in keys:
        values = named(values[key])
    return values


def _labels(metadata: Values, folder: Path) -> tuple[str, ...]:
    """Names of all channels, the background too."""
    try:
        channels = _within(metadata, "network_data_format", "outputs", "pred", "channel_def")
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


def _image(metadata: Values, where: str) -> str:
    inputs = named(named(named(metadata["network_data_format"]).get("inputs", {})).get("image", {}))
    modality = str(inputs.get("modality", "CT")).upper()
    if not modality.startswith(("CT", "MR")):
        raise ModelError(
            f"a bundle for images of modality {modality!r}; CT and MR can be given",
            where=where,
            hint="where these are CT or MR all the same, say so there: network_data_format.inputs.image.modality",
        )
    return "mr" if modality.startswith("MR") else "ct"


def _net(folder: Path, config: _Config, trust: bool) -> tuple[nn.Module, Path]:
    tensors, script = folder / "models" / "model.pt", folder / "models" / "model.ts"
    if tensors.is_file():
        weights = tensors_in(load_tensors(tensors), tensors)
        net = sized(config.net, weights)
        fit(net, weights, tensors)
        return net, tensors
    if script.is_file():
        return load_torchscript(script, trust=trust), script
    raise ModelError("neither models/model.pt nor models/model.ts is here", where=str(folder), hint="fetch the bundle with its large files")


@dataclass(frozen=True)
class _Config:
    """``inference.json`` read as plain values."""

    values: Values
    where: str

    @classmethod
    def of(cls, folder: Path) -> _Config:
        configs = folder / "configs"
        own = said_beside(folder)
        if (configs / "inference.json").is_file():
            return cls({**read_json(configs / "inference.json"), **own}, str(configs / "inference.json"))
        for name in ("inference.yaml", "inference.yml"):
            if (configs / name).is_file():
                values = read_yaml(configs / name)
                if not isinstance(values, dict):
                    raise FormatError(f"expected a YAML mapping, found {type(values).__name__}", where=str(configs / name))
                return cls({**values, **own}, str(configs / name))
        raise ModelError("configs/inference.json is missing", where=str(folder))

    def plain(self, value: object) -> object:
        """``value`` with references followed. Raises ModelError for code and for references that run in a circle, LimitError where they
        stand for more than MAX_VALUES."""
        return self._plain(value, 0, [MAX_VALUES])

    def _plain(self, value: object, depth: int, left: list[int]) -> object:
        left[0] -= 1
        if left[0] < 0:
            raise LimitError(f"references stand for more than {MAX_VALUES} values once they are followed", where=self.where)
        if depth > _DEEPEST:
            raise ModelError("references run in a circle", where=self.where)
        if isinstance(value, str) and value.startswith("@"):
            return self._plain(self._referred(value), depth + 1, left)
        if isinstance(value, str) and value.startswith("$"):
            try:
                return ast.literal_eval(value[1:])
            except (ValueError, SyntaxError, RecursionError, MemoryError) as error:
                raise ModelError(
                    f"{value!r} is code, which is not run", where=self.where, hint="give the value it stands for in oncontour.json"
                ) from error
        if isinstance(value, Mapping):
            return {key: self._plain(item, depth + 1, left) for key, item in value.items()}
        if isinstance(value, list):
            return [self._plain(item, depth + 1, left) for item in value]
        return value

    def _referred(self, reference: str) -> object:
        value: object = self.values
        for part in reference[1:].replace("::", "#").split("#"):
            try:
                value = value[int(part)] if isinstance(value, list) else named(value)[part]
            except (KeyError, IndexError, TypeError, ValueError) as error:
                raise ModelError(f"{reference!r} refers to nothing", where=self.where) from error
        return value

    def transforms(self, name: str) -> list[Values]:
        """The steps of ``preprocessing`` or ``postprocessing``, not yet made plain."""
        group = self.values.get(name)
        steps: object = group.get("transforms") if isinstance(group, Mapping) else group
        if isinstance(steps, str):
            steps = self._referred(steps) if steps.startswith("@") else None
        if not isinstance(steps, list):
            raise ModelError(f"{name} is no list of transforms", where=self.where)
        return [step for step in steps if isinstance(step, Mapping) and not self._off(step)]

    def _off(self, step: Values) -> bool:
        off = self.plain(step.get("_disabled_", False))
        return off.strip().lower() == "true" if isinstance(off, str) else bool(off)

    def _image_key(self) -> str:
        """What the image is called among the things that steps are done to."""
        for described in self.transforms("preprocessing"):
            keys = _names(self.plain(described.get("keys", ())))
            if keys:
                return keys[0]
        return "image"

    def net(self) -> nn.Module:
        """The net, built but without weights."""
        for key in ("network_def", "network", "net"):
            described = self.values.get(key)
            if isinstance(described, Mapping) and "_target_" in described:
                break
        else:
            raise ModelError("network_def is missing or is code", where=self.where, hint="use a bundle with models/model.ts, or ONNX")
        arguments = named(self.plain(described))
        kind = last_word(arguments["_target_"])
        if kind not in NETS:
            raise ModelError(f"a net of kind {kind!r}; known are {', '.join(NETS)}", where=self.where, hint="use models/model.ts, or ONNX")
        from monai.networks import nets

        try:
            made: nn.Module = getattr(nets, kind)(**{key: value for key, value in arguments.items() if not key.startswith("_")})
        except (ModelError, MemoryError):
            raise
        except Exception as error:  # MONAI and torch raise many kinds for settings that make no net
            raise ModelError(f"{kind} does not take these settings ({why(error)})", where=self.where) from error
        return made

    # ---- before the net

    def steps(self) -> tuple[list[Step], tuple[float, ...]]:
        """What is done to the image, and the spacing it ends with (empty: its own)."""
        out: list[Step] = []
        spacing: tuple[float, ...] = ()
        key, turned = self._image_key(), False
        for described in self.transforms("preprocessing"):
            kind = last_word(described.get("_target_", ""))
            keys = _names(self.plain(described.get("keys", key)))
            if kind in NO_EFFECT or key not in keys:
                continue
            if kind not in STEPS:
                raise ModelError(f"preprocessing step {kind!r} is not known; known are {sorted(STEPS)}", where=self.where, hint="use ONNX")
            make, known = STEPS[kind]
            asked = {name: value for name, value in described.items() if name != "keys" and not name.startswith("_")}
            arguments = dict(named(self.plain(asked)))
            if unknown := sorted(set(arguments) - {*known, *HARMLESS}):
                raise ModelError(f"{kind} with {', '.join(unknown)}, which is not understood", where=self.where, hint="use ONNX")
            try:
                if arguments.pop("source_key", key) != key:
                    raise ValueError("source_key is not the image")
                out.append(make({name: _for_image(value, keys, key) if name == "mode" else value for name, value in arguments.items()}))
                spacing = tuple(numbers(arguments["pixdim"])) if kind == "Spacingd" else spacing
            except (KeyError, TypeError, ValueError) as error:
                raise ModelError(f"{kind} with settings that cannot be used ({type(error).__name__}: {error})", where=self.where) from error
            turned = turned or kind == "Orientationd"
        return out if turned else [*self._said_order(), *out], spacing

    def own_order(self) -> bool:
        """Whether voxels are given in the case's own order, because that was asked for."""
        kinds = [last_word(described.get("_target_", "")) for described in self.transforms("preprocessing")]
        return "Orientationd" not in kinds and self.values.get("axes") == "own"

    def _said_order(self) -> list[Step]:
        """The step that ``oncontour.json`` gives a bundle without Orientationd. Raises ModelError where it gives none."""
        axes = self.values.get("axes")
        if axes is None:
            raise ModelError(
                "nothing says which way the bundle's voxels run in the patient (no Orientationd): guessed, left could be right",
                where=self.where,
                hint='write oncontour.json in the bundle\'s folder: {"axes": "RAS"} where x, y, z ran to right, anterior, superior in what '
                'it was trained on; {"axes": "own"} takes each case as it lies in its file, as MONAI does',
            )
        return [] if axes == "own" else [oriented({"axcodes": axes})]

    # ---- the net's windows

    def _inferer(self) -> Values:
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
        return number(value[0] if isinstance(value, list | tuple) else value)

    def blend(self) -> Blend:
        return "auto" if str(self._inferer().get("mode", "constant")).lower().endswith("gaussian") else "auto_flat"

    def pad(self) -> float | None:
        inferer = self._inferer()
        return None if inferer.get("padding_mode") in ("replicate", "reflect") else number(inferer.get("cval", 0.0))

    # ---- after the net

    def decision(self) -> tuple[str, float]:
        """(``softmax`` or ``sigmoid``, the probability from which a structure is drawn). Raises ModelError where the steps do not tell."""
        activation, argmax, threshold = "", False, None
        for described in self.transforms("postprocessing"):
            kind = last_word(described.get("_target_", ""))
            if kind not in ("Activationsd", "AsDiscreted"):
                continue
            said = {name: _first(self.plain(described.get(name))) for name in ("sigmoid", "softmax", "other", "argmax", "threshold")}
            if kind == "Activationsd":
                if said["other"] is not None or bool(said["sigmoid"]) == bool(said["softmax"]):
                    raise ModelError("Activationsd is neither a sigmoid nor a softmax alone", where=self.where, hint="use ONNX")
                activation = "sigmoid" if said["sigmoid"] else "softmax"
            if kind == "AsDiscreted":
                argmax = argmax or bool(said["argmax"])
                threshold = threshold if said["threshold"] is None else said["threshold"]
        if argmax or (threshold is None and not activation):
            return "softmax", 0.5
        if not activation or (activation == "softmax" and threshold is not None):
            raise ModelError(
                f"a threshold of {threshold} on what {activation or 'the net answers'} gives", where=self.where, hint="use ONNX with a JSON"
            )
        level = 0.5 if threshold is None else threshold
        if isinstance(level, bool) or not isinstance(level, int | float) or not 0 < level < 1:
            raise ModelError(f"a threshold is a probability, not {level!r}", where=self.where)
        return activation, float(level)

    def left_out(self) -> tuple[str, ...]:
        usual = ("Activationsd", "AsDiscreted", "Invertd", "SaveImaged", "EnsureTyped", "ToTensord", "CopyItemsd")
        kinds = [last_word(described.get("_target_", "")) for described in self.transforms("postprocessing")]
        return tuple(f"the bundle's step {kind} after the net was left out" for kind in kinds if kind not in usual)


def _names(keys: object) -> list[str]:
    return [keys] if isinstance(keys, str) else [str(key) for key in keys] if isinstance(keys, Sequence) else []


def _first(value: object) -> object:
    """The first of several values, one a key: of the net's answer there is one."""
    return value[0] if isinstance(value, list) and value else value


def _for_image(value: object, keys: Sequence[str], key: str) -> object:
    """Of values that stand one a key the image's."""
    return value[keys.index(key)] if isinstance(value, list) and len(value) == len(keys) else value

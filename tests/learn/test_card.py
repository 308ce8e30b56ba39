"""A model file is data: no card has code run, none is believed unchecked, and what was changed is refused."""

from __future__ import annotations

import hashlib
import json
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from oncontour import cli
from oncontour.contour.inputs import ContourSettings
from oncontour.contour.task import ContourTask
from oncontour.errors import ModelError
from oncontour.learn.card import NOT_COVERED, checked_card, find, read_card, shapes, shipped, with_card
from oncontour.learn.fit import fit
from oncontour.learn.named_models import at_home, portable
from oncontour.learn.task import load_task, save_model
from oncontour.learn.train_settings import TrainSettings
from oncontour.phantom import head_neck
from oncontour.quality.calibrate import after_training
from oncontour.quality.inputs import AssessSettings
from oncontour.quality.predict import load_assessor
from oncontour.quality.score import REPLACED, load, score
from oncontour.quality.task import AssessTask
from oncontour.risk.task import RiskSettings, RiskTask
from tests.conftest import ROOT
from tests.phantoms import patient

NAMES = ("Parotid_L", "Parotid_R")
CONTOUR = ContourSettings(NAMES, net_options={"widths": [4, 8, 8]}, spacing_mm=(6.0, 5.0, 5.0), window=(16, 16, 16), draws=4)
ASSESS = AssessSettings(NAMES, net_options={"width": 8, "depth": 1, "stem": [4, 4, 8]}, spacing_mm=(6, 5, 5), window=(16, 16))
RISK = RiskSettings(("xerostomia",), net_options={"widths": [4, 4, 4, 4], "embedding": 4}, window=(8, 8, 8), members=1)
OUTSIDE = """
import torch
from oncontour.nets.unet import UNet3d
print("IMPORTED")
class Ours(UNet3d):
    pass
def function(*words, **options):
    print("CALLED")
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models")
    for task in (ContourTask(CONTOUR), AssessTask(ASSESS), RiskTask(RISK)):
        save_model(task, folder / f"{task.name}.safetensors")
    return {path.stem: path for path in folder.iterdir()}


@pytest.fixture(scope="module")
def ct(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return patient(tmp_path_factory.mktemp("patient") / "someone", head_neck(0, (9, 7, 7), 1.0, (16, 32, 32)))


def parts(path: Path) -> tuple[dict[str, Any], dict[str, Any], bytes]:
    """(card, table of tensors, tensor bytes) of a model file, read by the format's own rules."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    return json.loads(header.pop("__metadata__")["card"]), header, data[8 + length :]


def put(path: Path, card: str | dict[str, Any], table: Any, weights: bytes) -> Path:
    """A model file whose weights have their hash, and whose card nothing covers, as an earlier version wrote them."""
    if isinstance(card, dict):
        card = json.dumps({name: value for name, value in card.items() if name != "file_sha256"})
    text = table if isinstance(table, bytes) else json.dumps({"__metadata__": {"card": card}, **table}).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + weights)
    return path


def changed(source: Path, target: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    card, table, weights = parts(source)
    change(card)
    return put(target, card, table, weights)


def sentence(words: list[object], code: int, capsys: pytest.CaptureFixture[str]) -> str:
    """What a command line that ends with ``code`` says on stderr: one sentence."""
    capsys.readouterr()
    found = cli.main([str(word) for word in words])
    told = capsys.readouterr().err
    assert (found, told.count("\n")) == (code, 1), told
    assert "nobody expected" not in told
    return told


# ---- hashes


def test_the_hashes_by_hand(models: dict[str, Path]) -> None:
    card, table, weights = parts(models["contour"])
    stated = card.pop("file_sha256")
    assert card["sha256"] == hashlib.sha256(weights).hexdigest()
    text = json.dumps({"card": card, "tensors": table}, sort_keys=True, separators=(",", ":"))
    assert stated == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize("place", ["metrics", "limits", "trained_on", "names of tensors"])
def test_a_changed_card_is_refused(
    place: str, models: dict[str, Path], ct: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its weights are as they were; what it says of itself, or which weights are whose, is not."""
    card, table, weights = parts(models["contour"])
    stated = card["file_sha256"]
    if place == "metrics":
        card["metrics"] = {"DSC": {"all": {"mean": 0.999}}}
    elif place == "limits":
        card["limits"] = "none"
    elif place == "trained_on":
        card["made"]["trained_on"] = []
    else:
        same = [name for name in table if table[name]["shape"] == [8]]
        table[same[0]], table[same[1]] = table[same[1]], table[same[0]]
    text = json.dumps({"__metadata__": {"card": json.dumps(card)}, **table}).encode()
    path = tmp_path / "m.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + weights)
    for words in (["info", path], ["run", ct, "--out", tmp_path / "out", "--model", path]):
        told = sentence(words, 3, capsys)
        assert "card was changed" in told
        assert stated[:16] in told
    assert not (tmp_path / "out").exists()


def test_a_file_of_an_earlier_version_is_read_and_says_that_nothing_covers_its_card(
    models: dict[str, Path], ct: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = changed(models["contour"], tmp_path / "old.safetensors", lambda card: None)
    assert cli.main(["info", str(old), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["notes"] == [NOT_COVERED]
    words = ["run", ct, "--model", old, "--backend", "torch", "--assess", "false", "--out"]
    assert cli.main([str(word) for word in [*words, tmp_path / "out"]]) == 0
    record = json.loads((tmp_path / "out" / "report.json").read_text())
    assert record["models"][0]["file_sha256"] == ""
    first, *of_the_drawing = record["models"][0]["notes"]
    assert first == NOT_COVERED
    assert f"contour: {NOT_COVERED}" in record["warnings"]
    words[3] = models["contour"]
    assert cli.main([str(word) for word in [*words, tmp_path / "new"]]) == 0
    record = json.loads((tmp_path / "new" / "report.json").read_text())
    assert record["models"][0]["file_sha256"] == read_card(models["contour"]).file_sha256
    assert record["models"][0]["notes"] == of_the_drawing
    assert of_the_drawing, "what was tidied away is told beside what is to be known of the file"


def test_a_card_that_nothing_covers_is_warned_of_whatever_the_model_is_for(
    models: dict[str, Path], ct: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On the screen of the command that uses it, and in its record."""
    quality, risk = (changed(models[name], tmp_path / f"{name}.safetensors", lambda card: None) for name in ("assess", "risk"))
    capsys.readouterr()
    assert cli.main([str(word) for word in ["assess", ct, ct, "--out", tmp_path / "judged", "--model", quality]]) == 0
    assert f"warning: assess: {NOT_COVERED}" in capsys.readouterr().out.splitlines()
    words = ["run", ct, "--out", tmp_path / "out", "--model", models["contour"], "--backend", "torch", "--assess", "false", "--risk", risk]
    assert cli.main([str(word) for word in words]) == 0
    assert f"warning: risk: {NOT_COVERED}" in capsys.readouterr().out.splitlines()
    assert f"risk: {NOT_COVERED}" in json.loads((tmp_path / "out" / "report.json").read_text())["warnings"]


def test_the_card_of_an_asked_model_is_warned_of_too(models: dict[str, Path], tmp_path: Path) -> None:
    old = changed(models["contour"], tmp_path / "old.safetensors", lambda card: card.update(name="old"))
    torch.manual_seed(0)
    save_model(AssessTask(replace(ASSESS, opinion=str(old))), tmp_path / "asks.safetensors")
    _, (told,) = score(head_neck(0, (6, 5, 5), 1.0, (32, 48, 48)), load_assessor(tmp_path / "asks.safetensors", backend="torch"))
    assert told["notes"][0] == f"old, the reference model: {NOT_COVERED}"


@pytest.mark.parametrize("name", REPLACED)
def test_models_that_are_no_more_say_what_took_their_place(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match=rf"hn-quality took the place of {name}.*name hn-quality"):
        load(name)
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    save_model(AssessTask(ASSESS), tmp_path / name)
    found = load(name, backend="torch")
    assert found is not None, "a file of one's own may be called so"


@pytest.mark.parametrize("name", sorted(shipped()))
def test_shipped_cards_are_covered(name: str) -> None:
    card = checked_card(find(name))
    assert len(card.file_sha256) == 64


def test_a_new_card_leaves_every_tensor_byte(models: dict[str, Path], tmp_path: Path) -> None:
    before = models["contour"].read_bytes()
    card, after = with_card(before, replace(read_card(models["contour"]), limits="für niemanden", made={"by_number": {10: 1, 9: 2}}))
    (tmp_path / "m.safetensors").write_bytes(after)
    assert parts(tmp_path / "m.safetensors")[1:] == parts(models["contour"])[1:]
    assert checked_card(tmp_path / "m.safetensors").file_sha256 == card.file_sha256
    assert card.sha256 == read_card(models["contour"]).sha256


# ---- classes


@pytest.fixture
def ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of the user's own; its name is new in each test, as an allowed class is allowed for good."""
    name = f"ours_{tmp_path.name.replace('-', '_')}"
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / f"{name}.py").write_text(OUTSIDE)
    monkeypatch.syspath_prepend(str(tmp_path / "lib"))
    return name


@pytest.mark.parametrize("place", ["net", "task"])
def test_a_card_has_nothing_imported_or_called(
    place: str, ours: str, models: dict[str, Path], ct: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for target in (f"{ours}:Ours", f"{ours}:function", "builtins:print", "os:system"):

        def name_it(card: dict[str, Any], target: str = target) -> None:
            (card["settings"] if place == "net" else card)[place] = target

        path = changed(models["contour"], tmp_path / "m.safetensors", name_it)
        assert cli.main(["run", str(ct), "--out", str(tmp_path / "out"), "--model", str(path)]) == 3
        told = capsys.readouterr()
        assert f"--allow_class {target}" in told.err
        assert told.out == ""
    assert ours not in sys.modules


def test_the_demo_has_the_way_out_that_it_names(
    ours: str, models: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An outside class that is allowed is looked for: this one is no net of the kind, which is said instead."""
    path = changed(models["risk"], tmp_path / "m.safetensors", lambda card: card["settings"].update(net=f"{ours}:Ours"))
    words: list[object] = ["demo", "--source", "mean", "--out", tmp_path / "demo", "--risk", path]
    assert f"repeat with --allow_class {ours}:Ours" in sentence(words, 3, capsys)
    assert "not run unasked" not in sentence([*words, "--allow_class", f"{ours}:Ours"], 3, capsys)


def test_an_outside_net_of_the_user_trains_and_is_used_where_the_user_names_it(
    ours: str, ct: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In processes of their own: what was allowed in one is not allowed in the next."""
    config = tmp_path / "train.yaml"
    options = {"structures": list(NAMES), "net": f"{ours}:Ours", "net_options": {"widths": [4, 8]}}
    options |= {"spacing_mm": [6, 5, 5], "window": [16, 16, 16], "draws": 2, "augment": {"flip_left_right": False}}
    config.write_text(json.dumps({"settings": options, "training": {"epochs": 1, "validation": 0, "threads": 1}}))
    patient(tmp_path / "cohort" / "a", head_neck(0, (6, 5, 5), 1.0, (32, 48, 48)))

    def call(*words: object) -> subprocess.CompletedProcess[str]:
        code = f"import sys; sys.path.insert(0, {str(tmp_path / 'lib')!r}); from oncontour.cli import main; sys.exit(main(sys.argv[1:]))"
        return subprocess.run([sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True, check=False)

    done = call("train", "contour", tmp_path / "cohort", "--out", tmp_path / "run", "--config", config)
    assert done.returncode == 0, done.stderr
    run = [
        "run",
        ct,
        "--model",
        tmp_path / "run" / "model.safetensors",
        "--backend",
        "torch",
        "--assess",
        "false",
        "--out",
        tmp_path / "out",
    ]
    done = call(*run)
    assert (done.returncode, done.stdout) == (3, ""), done.stderr
    assert not (tmp_path / "out").exists()
    done = call(*run, "--allow_class", f"{ours}:Ours")
    assert done.returncode == 0, done.stderr
    assert "IMPORTED" in done.stdout


@pytest.mark.parametrize("name", ["ours", "ours:", ":Ours", "ours.py:Ours()", "a b:C"])
def test_what_names_no_class_is_not_allowed(name: str, ct: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "module:Class" in sentence(["run", ct, "--out", tmp_path / "out", "--allow-class", name], 2, capsys)


def test_an_allowed_function_is_no_class(ours: str) -> None:
    from oncontour.classes import allow
    from oncontour.nets import make_net

    with pytest.raises(ModelError, match="not run unasked"):
        make_net(f"{ours}:Ours", 1, 1)
    allow(f"{ours}:function")
    with pytest.raises(ModelError, match="no class"):
        make_net(f"{ours}:function", 1, 1)
    allow(f"{ours}:Ours")
    assert type(make_net(f"{ours}:Ours", 1, 1)).__name__ == "Ours"


# ---- values


def deep(levels: int) -> list[Any]:
    out: list[Any] = []
    for _ in range(levels):
        out = [out]
    return out


def setting(**values: Any) -> Callable[[dict[str, Any]], object]:
    return lambda card: card["settings"].update(values)


def made(**values: Any) -> Callable[[dict[str, Any]], object]:
    return lambda card: card["made"].update(values)


WRONG: dict[str, tuple[str, Callable[[dict[str, Any]], object], str]] = {
    "settings a list": ("contour", lambda c: c.update(settings=[1, 2]), "settings is settings by name, not [1, 2]"),
    "nested": ("contour", setting(net_options={"widths": deep(40)}), "nested too deeply"),
    "an unknown field": ("contour", lambda c: c.update(run="rm"), "it holds 'run'"),
    "no settings": ("contour", lambda c: c.pop("settings"), "it lacks 'settings'"),
    "an unknown setting": ("contour", setting(wings=2), "wings"),
    "no structures": ("contour", lambda c: c["settings"].pop("structures"), "without structures"),
    "name a number": ("contour", lambda c: c.update(name=3), "name is a name, not 3"),
    "half a letter": ("contour", lambda c: c.update(name="a\ud800"), "cannot be read"),
    "structures text": ("contour", lambda c: c.update(structures="Parotid_L"), "structures is a list of different names"),
    "structures numbers": ("contour", lambda c: c.update(structures=[1, 2]), "structures is a list of different names, not [1, 2]"),
    "structures twice": ("contour", setting(structures=["Parotid_L", "Parotid_L"]), "different structures"),
    "sides exchanged": ("contour", lambda c: c.update(structures=["Parotid_R", "Parotid_L"]), "structures is ['Parotid_L', 'Parotid_R']"),
    "another spacing": ("contour", lambda c: c.update(spacing_mm=[3, 5, 5]), "spacing_mm is [6.0, 5.0, 5.0]"),
    "spacing 0": ("contour", lambda c: (c.update(spacing_mm=[]), setting(spacing_mm=[6, 0, 5])(c)), "0.01 to 100 mm, not [6, 0, 5]"),
    "spacing tiny": ("contour", lambda c: (c.update(spacing_mm=[]), setting(spacing_mm=[6, 1e-6, 5])(c)), "0.01 to 100 mm"),
    "spacing NaN": ("contour", lambda c: (c.update(spacing_mm=[]), setting(spacing_mm=[6, float("nan"), 5])(c)), "each a number, not"),
    "spacing of two": ("contour", setting(spacing_mm=[6, 5]), "a list of 3, each a number, not [6, 5]"),
    "neighbours negative": ("contour", setting(neighbours=-1), "neighbours=-1"),
    "neighbours half": ("contour", setting(neighbours=0.5), "settings.neighbours is a whole number, not 0.5"),
    "mirror a number": ("contour", setting(mirror=1), "settings.mirror is true or false, not 1"),
    "window text": ("contour", setting(window=["16", "16", "16"]), "each a whole number"),
    "window huge": ("contour", setting(window=[1 << 12] * 3), "268435456 voxels"),
    "hu endless": ("contour", setting(hu=[-1e400, 300]), "each a number, not [-inf, 300]"),
    "threshold 2": ("contour", setting(threshold=2), "threshold is a probability"),
    "loss unknown": ("contour", setting(loss="mine"), "one of dice_bce, paper, not 'mine'"),
    "augment a list": ("contour", setting(augment=[]), "settings.augment"),
    "augment unknown": ("contour", setting(augment={"wings": 2}), "settings.augment holds any of"),
    "no such net": ("contour", setting(net="unet9"), "no net 'unet9'"),
    "another net": ("contour", setting(net="deeplab", net_options={}, window=[1, 16, 16]), "larger than the"),
    "widths huge": ("contour", setting(net_options={"widths": [8000, 8000, 8000]}), "larger than the"),
    "widths of 10^9": ("contour", setting(net_options={"widths": [10**9] * 3}), "numbers up to 8192"),
    "widths negative": ("contour", setting(net_options={"widths": [-4, 8, 8]}), "no net that can be built"),
    "widths none": ("contour", setting(net_options={"widths": []}), "no net that can be built"),
    "widths many": ("contour", setting(net_options={"widths": [1] * 1000}), "at most 64 entries"),
    "widths fractions": ("contour", setting(net_options={"widths": [4.5, 8, 8]}), "no net that can be built"),
    "widths others": ("contour", setting(net_options={"widths": [4, 8, 7]}), "describes another net than the file holds"),
    "options unknown": ("contour", setting(net_options={"wings": 2}), "wings"),
    "options a list": ("contour", setting(net_options=[1]), "settings.net_options is values by name, not [1]"),
    "options of options": ("contour", setting(net_options={"widths": {"a": 1}}), "made of numbers"),
    "levels endless": ("contour", setting(net="unet", net_options={"levels": 8000}, window=[1, 16, 16]), "larger than the"),
    "trained_on text": ("contour", made(trained_on="pt_1"), "made.trained_on is a list of different names"),
    "trained_on objects": ("contour", made(trained_on=[{}]), "made.trained_on is a list of different names"),
    "hash a number": ("contour", lambda c: c.update(sha256=5), "sha256 is 64 digits"),
    "depth huge": ("assess", setting(net_options={**ASSESS.net_options, "depth": 8000}), "larger than the"),
    "heads unknown": ("assess", setting(heads=["dsc", "wings"]), "heads are dsc and any of"),
    "weights text": ("assess", setting(weights={"dsc": "1"}), "settings.weights is values by name"),
    "opinion endless": ("assess", setting(opinion="x" * 5000), "settings.opinion is the name of a model"),
    "opinion no file's name": ("assess", setting(opinion="x" * 300), "describes another net than the file holds"),
    "opinion a number": ("assess", setting(opinion=3), "settings.opinion is text, not 3"),
    "beyond endless": ("assess", setting(beyond=10**6), "1000 slices"),
    "offsets text": ("assess", made(calibration={"offsets": {"all": "0.1"}}), "made.calibration.offsets.* is a number, not '0.1'"),
    "offsets NaN": ("assess", made(calibration={"offsets": {"all": float("nan")}}), "made.calibration.offsets.* is a number, not nan"),
    "bounds a list": ("assess", made(calibration={"inputs": [1]}), "made.calibration.inputs is values by name, not [1]"),
    "a bound a number": ("assess", made(calibration={"inputs": {"own": 5}}), "made.calibration.inputs.* is values by name, not 5"),
    "a bound's offsets text": (
        "assess",
        made(calibration={"inputs": {"own": {"offsets": {"all": "x"}}}}),
        "inputs.*.offsets.* is a number, not 'x'",
    ),
    "a bound's area endless": (
        "assess",
        made(calibration={"inputs": {"own": {"area": float("inf")}}}),
        "inputs.*.area is a number",
    ),
    "outline text": ("assess", made(calibration={"outline": "1"}), "made.calibration.outline is a number, not '1'"),
    "a bound's coverage 2": ("assess", made(calibration={"inputs": {"own": {"coverage": 2}}}), "inputs.*.coverage is a part of one, not 2"),
    "a bound's patients half": ("assess", made(calibration={"inputs": {"own": {"patients": 0.5}}}), "patients is a whole number from 0"),
    "method a list": ("assess", made(calibration={"method": ["x"]}), "made.calibration.method is text, not ['x']"),
    "bounds in bounds": ("assess", made(calibration={"inputs": {"own": {"inputs": {}}}}), "inputs is no part of a calibration for one set"),
    "coverage 1": ("assess", setting(coverage=1), "coverage"),
    "members endless": ("risk", setting(members=10**9), "larger than the"),
    "shift endless": ("risk", setting(shift=10**6), "268435456 voxels"),
    "window negative": ("risk", setting(window=[-8, 8, 8]), "a window is"),
    "risk a list": ("risk", made(risk=[1]), "made.risk is values by name"),
    "threshold text": ("risk", made(risk={"toxicities": {"xerostomia": {"threshold": "low"}}}), "a part of one, or null, not 'low'"),
    "kind unknown": ("risk", setting(net_options={**RISK.net_options, "kind": "5d"}), "5d"),
    "features without scale": ("risk", setting(features=["V20Gy"]), "a centre and a scale"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_value_is_refused_in_a_sentence(case: str, models: dict[str, Path], tmp_path: Path) -> None:
    kind, change, says = WRONG[case]
    with pytest.raises(ModelError) as caught:
        load_task(changed(models[kind], tmp_path / "m.safetensors", change))
    told = str(caught.value)
    assert says in told
    assert str(tmp_path) in told
    assert len(told.splitlines()) == 1


@pytest.mark.parametrize(
    "case", ["settings a list", "neighbours negative", "widths huge", "offsets text", "members endless", "opinion endless"]
)
def test_a_wrong_value_ends_a_run_before_its_result(
    case: str, models: dict[str, Path], ct: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kind, change, says = WRONG[case]
    path = changed(models[kind], tmp_path / "m.safetensors", change)
    option = {"contour": "--model", "assess": "--quality", "risk": "--risk"}[kind]
    more = [] if kind == "contour" else ["--model", models["contour"]]
    told = sentence(["run", ct, "--out", tmp_path / "out", option, path, *more], 3, capsys)
    assert says in told
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("length", [300, 6000])
def test_a_name_longer_than_any_file_s_is_no_model(length: int, ct: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["info", "x" * length], ["run", ct, "--out", tmp_path / "out", "--model", "x" * length]):
        told = sentence(words, 3, capsys)
        assert "no model 'xxx" in told
        assert len(told) < 500


def test_figures_of_any_form_are_shown(models: dict[str, Path], ct: Path, tmp_path: Path) -> None:
    """What a card says of its tests ends no run, whatever it is; a mean with its interval is told as people write it."""
    right = {"mean": 0.5, "interval_95": [0.25, 0.75], "patients": 3}
    odd: list[dict[str, Any]] = [{**right, "interval_95": one} for one in (5, [1], None, ["a", "b"], [0.1, 0.2, 0.3])]
    odd += [{**right, "mean": one} for one in ("x", None, [0.5], 10**400, {})] + [{**right, "patients": [{}]}]
    figures = {f"odd{n}": one for n, one in enumerate(odd)} | {"right": right}
    path = changed(models["contour"], tmp_path / "m.safetensors", lambda card: card.update(metrics={"DSC": figures, "of": [None, [{}]]}))
    words = ["run", ct, "--model", path, "--backend", "torch", "--assess", "false", "--out", tmp_path / "out"]
    assert cli.main([str(word) for word in words]) == 0
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "right: 0.50 (0.25 to 0.75, 3 patients)" in page
    assert "odd0: mean: 0.5, interval 95: 5, patients: 3" in page
    assert "odd6: mean: none, interval 95: 0.25, 0.75, patients: 3" in page


def test_a_net_larger_than_its_file_takes_no_memory(models: dict[str, Path], tmp_path: Path) -> None:
    """Of 3 x 8000 channels the net would have 12 GB; an address space of 1 GiB beyond what is there suffices to refuse it."""
    path = changed(models["contour"], tmp_path / "m.safetensors", setting(net_options={"widths": [8000, 8000, 8000]}))
    code = (
        "import resource, sys; from pathlib import Path; import torch, safetensors.torch; from oncontour.learn.task import load_task\n"
        "import oncontour.contour.task, oncontour.learn.build; from oncontour.errors import ModelError\n"
        "used = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 30),) * 2)\n"
        "try:\n    load_task(sys.argv[1])\n"
        "except ModelError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False)
    assert "larger than the" in done.stdout, done.stderr


TENSORS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "overlap": (lambda t: t[min(t)].update(data_offsets=t[max(t)]["data_offsets"]), "lies in|overlap|damaged"),
    "a lie about the format": (lambda t: t["head.bias"].update(dtype="F64"), "of 2 numbers lies in 4 bytes"),
    "an unknown format": (lambda t: t["head.bias"].update(dtype="C64"), "'head.bias' is described wrongly"),
    "negative": (lambda t: t["head.bias"].update(shape=[-2]), "'head.bias' is described wrongly"),
    "endless": (lambda t: t["head.bias"].update(shape=[2**62, 2**62]), "'head.bias' is described wrongly"),
    "a gap": (lambda t: t.pop("head.bias"), "overlap, or leave gaps|the file has"),
    "one more": (lambda t: t.update(more={"dtype": "F16", "shape": [0], "data_offsets": [0, 0]}), "more is missing"),
    "another shape": (lambda t: t["head.bias"].update(shape=[1, 2]), "head.bias is (2,), in the file (1, 2)"),
    "a list": (lambda t: t.update({"head.bias": [1]}), "'head.bias' is described wrongly"),
}


@pytest.mark.parametrize("case", TENSORS)
def test_a_table_of_tensors_that_lies_is_refused(case: str, models: dict[str, Path], tmp_path: Path) -> None:
    change, says = TENSORS[case]
    card, table, weights = parts(models["contour"])
    change(table)
    put(tmp_path / "m.safetensors", card, table, weights)
    with pytest.raises(ModelError) as caught:
        load_task(tmp_path / "m.safetensors")
    assert any(word in str(caught.value) for word in says.split("|")), caught.value


@pytest.mark.parametrize(
    "header",
    [
        b"[" * 100_000,
        b"{}",
        b"[]",
        b"null",
        b'{"a":' * 3000,
        b'{"__metadata__": 5}',
        b'{"__metadata__": {"card": ' + b'"[[[["}}',
        b"\xff\xfe{\x00}\x00",
    ],
    ids=["nested", "empty", "list", "null", "nested objects", "metadata a number", "card nested", "another encoding"],
)
def test_a_header_that_is_none_is_refused(header: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = put(tmp_path / "m.safetensors", "", header, b"")
    assert str(path) in sentence(["info", path], 3, capsys)
    path = put(tmp_path / "m.safetensors", "[" * 100_000, {}, b"")
    assert "nested too deeply" in sentence(["info", path], 3, capsys)


def test_a_name_that_stands_twice_is_refused(models: dict[str, Path], tmp_path: Path) -> None:
    """Which of the two counts would be any reader's choice."""
    card, table, weights = parts(models["contour"])
    text = json.dumps(card)[:-1] + ', "name": "another"}'
    with pytest.raises(ModelError, match="cannot be read"):
        read_card(put(tmp_path / "m.safetensors", text, table, weights))


def test_weights_that_are_no_numbers_are_refused(models: dict[str, Path], tmp_path: Path) -> None:
    card, table, weights = parts(models["contour"])
    start = table["head.bias"]["data_offsets"][0]
    weights = weights[:start] + b"\x00\x7e" + weights[start + 2 :]  # NaN in 16 bits
    card["sha256"] = hashlib.sha256(weights).hexdigest()
    with pytest.raises(ModelError, match=r"head\.bias are no numbers"):
        load_task(put(tmp_path / "m.safetensors", card, table, weights))


def test_shapes_are_those_of_the_net(models: dict[str, Path]) -> None:
    net = load_task(models["assess"]).net
    assert shapes(models["assess"]) == {name: tuple(value.shape) for name, value in net.state_dict().items()}


# ---- where things lie


def test_what_a_training_leaves_says_nowhere_where_it_lay(models: dict[str, Path], tmp_path: Path) -> None:
    """Checkpoint, model, logs: no folder of this machine, packed or not, though a model by its path was asked for an opinion."""
    torch.manual_seed(0)
    settings = replace(ASSESS, opinion=str(models["contour"]), variants=1, draws=8)
    cases = [head_neck(seed, (6, 5, 5), 1.0, (32, 48, 48)) for seed in range(2)]
    once = TrainSettings(epochs=1, batch=2, validation=0, threads=1)
    done = fit(AssessTask(settings), cases, tmp_path / "run", once, snapshots=(1,), finish=after_training)
    files = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert {"last.ckpt", "model.safetensors", "settings.json", "metrics.csv"} <= {path.name for path in files}
    for path in files:
        texts = {path.name: path.read_bytes()}
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                texts |= {name: archive.read(name) for name in archive.namelist()}
        for name, text in texts.items():
            for place in (tmp_path, models["contour"].parent, ROOT, Path.home()):
                assert str(place).encode() not in text, (path, name)
    assert read_card(done.model).settings["opinion"].endswith("contour.safetensors")
    assert load_task(done.model).settings.opinion == str(models["contour"].resolve())
    again = fit(AssessTask(settings), cases, tmp_path / "run", once, finish=after_training)
    assert again.card == done.card, "the same run goes on"


def test_the_way_to_an_asked_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = tmp_path / "seg" / "m.safetensors"
    asked.parent.mkdir()
    asked.touch()
    kept = portable({"opinion": str(asked)}, tmp_path / "runs" / "quality")
    assert kept == {"opinion": "../../seg/m.safetensors"}
    assert at_home(kept, tmp_path / "runs" / "quality") == kept, "no such folder: nothing leads there"
    (tmp_path / "runs" / "quality").mkdir(parents=True)
    assert at_home(kept, tmp_path / "runs" / "quality") == {"opinion": str(asked.resolve())}
    monkeypatch.chdir(tmp_path)
    assert portable({"opinion": "seg/m.safetensors"}, Path("runs")) == {"opinion": "../seg/m.safetensors"}
    for name in ("hn-organs", "", "nowhere.safetensors"):
        assert portable({"opinion": name}, tmp_path) == at_home({"opinion": name}, tmp_path) == {"opinion": name}

"""From a cohort of phantoms to a simulated table, a model, and one patient's risk: the three commands as they are typed."""

import json

import numpy as np
import pytest

from oncontour import cli
from oncontour.commands.simulate import simulate
from oncontour.core.case import Case
from oncontour.errors import CohortError, ConfigError
from oncontour.io.cohort import Cohort
from oncontour.phantom import head_neck
from oncontour.risk.cohort import cases, gather
from oncontour.risk.inputs import View
from oncontour.risk.outcome_table import read_outcomes
from oncontour.risk.virtual_patients import Hospital, Toxicity
from tests.phantoms import cohort, patient

PASSED_OVER = "passed over: image files in [...]; those of structures are read from masks alone"


@pytest.fixture(scope="module")
def patients(tmp_path_factory):
    folder = cohort(tmp_path_factory.mktemp("cohort"), 5)
    for one in folder.iterdir():
        patient(one / "more", head_neck(0, (6, 5, 5), 1.0, (4, 4, 4)).without_structures())  # image files that nobody reads
    return folder


@pytest.fixture(scope="module")
def made(patients, tmp_path_factory):
    """The command's own table."""
    out = tmp_path_factory.mktemp("simulated") / "out"
    config = out.parent / "simulation.yaml"
    config.write_text(
        "hospitals:\n- {name: home, share: 0.6, variants: 12, prevalence: 0.4}\n"
        "- {name: second, share: 0.4, variants: 12, noise_gy: 1.0, grid_mm: 6.0, prevalence: 0.5}\n"
    )
    assert cli.main(["simulate", "outcomes", str(patients), "--out", str(out), "--config", str(config), "--seed", "3"]) == 0
    return out


@pytest.fixture(scope="module")
def model(patients, made, tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    small = ["--settings.net_options", '{"widths": [4, 8, 8, 8], "embedding": 8}', "--settings.window", "[8,16,16]"]
    words = ["train", "risk", str(patients), "--outcomes", str(made / "outcomes.csv"), "--out", str(out), "--hospital", "home"]
    more = ["--settings.facts", "chemo,age", "--epochs", "2", "--training.batch", "8", "--training.threads", "1", "--settings.members", "2"]
    assert cli.main([*words, *small, *more]) == 0
    return out


def test_the_table_is_told_as_simulated_and_splits_by_original(made, capsys):
    table = read_outcomes(made / "outcomes.csv", facts=["chemo", "age"])
    assert table.simulated
    assert table.hospitals == ("home", "second")
    by_place = {place: {p.original for p in table.of(place).people} for place in table.hospitals}
    assert not by_place["home"] & by_place["second"]
    assert (len(by_place["home"]), len(by_place["second"])) == (3, 2)
    told = json.loads((made / "simulation.json").read_text())
    assert told["title"] == "simulated outcomes"
    assert [note for note in told["notes"] if "passed over" in note] == [f"of 5 patients: {PASSED_OVER}"]
    risks = np.array([p.risks["esophagitis_g2"] for p in table.of("home").people])
    assert risks.mean() == pytest.approx(0.4, abs=1e-3)
    assert 0.5 < told["bayes_auc"]["esophagitis_g2"]["home"] <= 1


def test_a_simulation_replaces_nothing_unasked(patients, made, capsys):
    """Neither the cohort itself, nor a folder with other things, nor an earlier table."""
    before = sorted(path.name for path in patients.iterdir())
    for out, says in (
        (patients, "would replace the cohort itself"),
        (made.parent, "holds other things (out, simulation.yaml)"),
        (made, "a result already"),
    ):
        assert cli.main(["simulate", "outcomes", str(patients), "--out", str(out)]) == 5
        assert says in capsys.readouterr().err
    assert sorted(path.name for path in patients.iterdir()) == before


def test_a_dose_in_centigray_makes_no_outcomes():
    """Its patients would have a risk of 1, and the hospital's intercept would take it from the others."""
    made = [head_neck(n, (6, 5, 5), 1.0, (32, 48, 48)) for n in range(3)]
    dose = made[1].images["dose"]
    made[1] = made[1].with_images({"dose": dose.map(lambda gy: gy * 100)})
    found = simulate(made, [Toxicity()], [Hospital("home", 1.0, 4)], 0)
    assert {p.source for p in found.outcomes.people} == {made[0].id, made[2].id}
    (note,) = [note for note in found.notes if "centigray" in note]
    assert note.startswith(f"{made[1].id} was left out")


def test_patients_without_the_organ_are_told_together():
    made = [head_neck(n, (6, 5, 5), 1.0, (32, 48, 48)) for n in range(7)]
    bare = [one.without_structures().with_masks({"Larynx": one.mask("Larynx")}) for one in made[:6]]
    (note,) = simulate([*bare, made[6]], [Toxicity()], [Hospital("home", 1.0, 6)], 0).notes
    assert note.startswith("6 without Esophagus were left out: phantom-head-neck-000, ")
    assert note.endswith(" and 1 more")
    with pytest.raises(CohortError, match=r"would be without patients: 0 of the cohort can be used .6 without Esophagus were left out"):
        simulate(bare, [Toxicity()], [Hospital("home", 1.0, 6)], 0)


def test_the_same_seed_gives_the_same_table_and_another_another():
    made = [head_neck(n, (6, 5, 5), 1.0, (32, 48, 48)) for n in range(3)]
    tables = [simulate(made, [Toxicity()], [Hospital("home", 1.0, 6)], seed) for seed in (0, 0, 1)]
    assert tables[0].outcomes == tables[1].outcomes
    assert tables[0].outcomes != tables[2].outcomes
    assert "SIMULATED OUTCOMES" in str(tables[0])


def test_several_toxicities_share_their_patients():
    made = [head_neck(n, (6, 5, 5), 1.0, (32, 48, 48)) for n in range(2)]
    late = Toxicity("belderbos", "esophagitis-g2-belderbos-2005", wall=0.0)
    found = simulate(made, [Toxicity(), late], [Hospital("home", 1.0, 10, missing=0.3)], 0).outcomes
    assert found.toxicities == ("esophagitis_g2", "belderbos")
    assert {len(p.outcomes) for p in found.people} == {0, 1, 2}
    assert all(set(p.risks) == {"esophagitis_g2", "belderbos"} for p in found.people)


def test_hospitals_without_patients_or_with_one_name_are_refused():
    made = [head_neck(0, (6, 5, 5), 1.0, (32, 48, 48))]
    with pytest.raises(CohortError, match="hospital home would be without patients: 0"):
        simulate([made[0].without_structures()], [Toxicity()], [Hospital("home", 1.0, 2)], 0)
    with pytest.raises(ConfigError, match="different names"):
        simulate(made, [Toxicity()], [Hospital("a", 0.5), Hospital("a", 0.5)], 0)
    with pytest.raises(ConfigError, match="sum to 1"):
        simulate(made, [Toxicity()], [Hospital("a", 0.8), Hospital("b", 0.5)], 0)


def test_virtual_patients_are_made_again_as_the_table_says(patients, made):
    """What the model sees of a virtual patient carries the dose of which the table tells the risk: scaled, and on the hospital's terms."""
    table = read_outcomes(made / "outcomes.csv", facts=["chemo", "age"])
    whole = Cohort.open(patients)
    for person, case in cases(table.of("home"), whole):
        most = whole[person.source].images["dose"].array.max() * person.made["scale"]
        assert case.images["dose"].array.max() <= most * 1.001
        assert case.facts["simulated"]
        assert case.facts["chemo"] == person.facts["chemo"]
        break
    view = View("Esophagus", (6.0, 4.0, 4.0), (8, 16, 16))
    found = gather(table.of("second"), whole, view, features=False)
    assert len(found.patients) == len(table.of("second").people)
    whose = {person.source for person in table.of("second").people}
    assert found.left_out == ()
    assert found.remarks == (f"of {len(whose)} patients: {PASSED_OVER}",)


def test_one_patient_that_cannot_be_used_does_not_stop_the_others(patients, made):
    table = read_outcomes(made / "outcomes.csv")
    view = View("Esophagus", (6.0, 4.0, 4.0), (8, 16, 16))
    here = table.of("home").people[0].source
    found = gather(table, Cohort.open(patients).subset([here]), view, features=False)
    assert {p.original for p in found.patients} == {here}
    assert found.remarks == (f"of {here}: {PASSED_OVER}",)
    assert len(found.left_out) == 4
    assert all("no patient" in sentence for sentence in found.left_out)
    with pytest.raises(CohortError, match="no patient of the table can be used"):
        gather(table.of("second"), Cohort.open(patients).subset([here]), view, features=False)


def test_what_was_remarked_on_reading_stands_beside_the_run_and_on_the_screen(patients, made, tmp_path, capsys):
    words = ["train", "risk", str(patients), "--outcomes", str(made / "outcomes.csv"), "--out", str(tmp_path), "--hospital", "second"]
    small = ["--settings.net_options", '{"widths": [4, 8, 8, 8], "embedding": 8}', "--settings.window", "[8,16,16]", "--epochs", "1"]
    assert cli.main([*words, *small, "--settings.dosiomics", "false", "--settings.members", "1", "--training.threads", "1"]) == 0
    told = capsys.readouterr()
    assert f"of 2 patients: {PASSED_OVER}\n" in told.err
    assert PASSED_OVER not in told.out
    assert json.loads((tmp_path / "settings.json").read_text())["notes"] == [f"of 2 patients: {PASSED_OVER}"]


def test_training_says_simulated_wherever_it_is_read(model):
    from oncontour.learn.card import read_card

    card = read_card(model / "model.safetensors")
    assert card.made["simulated_outcomes"] is True
    assert card.limits.startswith("SIMULATED OUTCOMES")
    assert len(card.settings["features"]) > 0
    assert (model / "tripod.md").read_text().startswith("# Simulated outcomes: risk model model")


def test_one_patient_s_risk_with_its_files(patients, model, tmp_path, capsys):
    out = tmp_path / "out"
    words = ["risk", str(patients / "phantom-000"), "--model", str(model / "model.safetensors"), "--out", str(out)]
    assert cli.main([*words, "--facts", '{"chemo": 1}']) == 0
    told = capsys.readouterr().out
    assert told.startswith("SIMULATED OUTCOMES")
    assert "esophagitis_g2" in told
    assert "Not known of the patient: age" in told
    record = json.loads((out / "risk.json").read_text())
    assert record["title"].startswith("SIMULATED OUTCOMES")
    assert record["notes"][0] == PASSED_OVER
    assert f"note: {PASSED_OVER}" in told
    one = record["toxicities"]["esophagitis_g2"]
    assert 0 <= one["low"] <= one["probability"] <= one["high"] <= 1
    assert {file.name for file in out.iterdir()} == {"risk.json", "risk.png", "dvh.png"}
    assert cli.main(words) == 5, "a result is not replaced unasked"
    assert cli.main([*words, "--overwrite"]) == 0


@pytest.mark.parametrize(
    ("facts", "says"),
    [
        ('{"chem": 1}', "knows no fact chem"),
        ('{"Esophagus": 1}', "knows no fact Esophagus"),
        ('{"site": "mouth"}', "site is one of oral cavity, pharynx, larynx, not 'mouth'"),
        ('{"baseline_dysphagia_grade": 7}', "baseline_dysphagia_grade is one of 0, 1, 2, 3, 4, 5, not 7"),
        ('{"age": "old"}', "age is a number to this model, not 'old'"),
    ],
)
def test_a_fact_that_would_count_for_nothing_is_refused(facts, says, tmp_path, capsys):
    assert cli.main(["risk", str(tmp_path), "--model", "esophagitis-simulated", "--facts", facts]) == 2
    assert says in capsys.readouterr().err


def test_facts_in_words_reach_the_published_models(patients, model, tmp_path, capsys):
    """Xerostomia after LIPP by pencil: all of both parotids and submandibular glands at 25 Gy, and mild complaints before."""
    from oncontour.core.geometry import Geometry
    from oncontour.core.volume import Volume
    from oncontour.io import write

    grid = Geometry.regular((8, 12, 12), (6.0, 5.0, 5.0))
    masks = {}
    for n, name in enumerate(("Parotid_L", "Parotid_R", "Glnd_Submand_L", "Glnd_Submand_R", "Esophagus")):
        array = np.zeros(grid.shape, bool)
        array[2:6, 2:10, 2 * n + 1] = True
        masks[name] = Volume(array, grid)
    images = {"ct": Volume(np.zeros(grid.shape, np.int16), grid), "dose": Volume(np.full(grid.shape, 25, np.float32), grid)}
    write(Case("p", images, masks), tmp_path / "p", format="nifti")
    words = ["risk", str(tmp_path / "p"), "--model", str(model / "model.safetensors"), "--facts", '{"baseline_xerostomia": "mild"}']
    assert cli.main(words) == 0
    log_odds = -2.2951 + 0.0996 * (5 + 5) + 0.0182 * 25 + 0.4950
    assert f"{100 / (1 + np.exp(-log_odds)):.1f} %  xerostomia grade 2 or more" in capsys.readouterr().out


def test_from_dicom_and_with_a_dose_of_another_frame(patients, model, tmp_path, capsys):
    """The same patient as DICOM gives the same risk; with an RTDOSE of another frame of reference there is none, and it is said why."""
    import pydicom

    from oncontour.commands.risk import load
    from oncontour.io import read, write

    folder = tmp_path / "dicom"
    case = read(patients / "phantom-000")
    write(case, folder, format="dicom")
    task = load(model / "model.safetensors")
    risks = [task.predict(one).risk.toxicities["esophagitis_g2"].probability for one in (case, read(folder))]
    assert risks[1] == pytest.approx(risks[0], abs=0.03)
    dose = pydicom.dcmread(folder / "RTDOSE.dcm")
    dose.FrameOfReferenceUID = "1.2.3.4"
    dose.save_as(folder / "RTDOSE.dcm")
    assert cli.main(["risk", str(folder), "--model", str(model / "model.safetensors")]) == 2
    told = capsys.readouterr().err
    assert "no dose to use" in told
    assert "frame of reference" in told
    assert told.count("\n") == 1


def test_a_table_of_one_class_and_a_model_for_something_else(patients, model, tmp_path, capsys):
    table = tmp_path / "real.csv"
    table.write_text("patient,late\n" + "".join(f"phantom-00{n},1\n" for n in range(5)))
    assert cli.main(["train", "risk", str(patients), "--outcomes", str(table), "--out", str(tmp_path / "run")]) == 2
    assert "late is 1 in all 5 patients" in capsys.readouterr().err
    assert cli.main(["risk", str(patients / "phantom-000"), "--model", "hn-organs"]) == 3
    assert "made to contour, not to tell a risk" in capsys.readouterr().err
    assert cli.main(["risk", str(tmp_path / "nobody"), "--model", str(model / "model.safetensors"), "--out", str(tmp_path / "o")]) == 2


def test_real_outcomes_by_the_same_command(patients, tmp_path):
    from oncontour.learn.card import read_card

    table = tmp_path / "real.csv"
    table.write_text("patient,late\n" + "".join(f"phantom-00{n},{n % 2}\n" for n in range(5)))
    small = ["--settings.net_options", '{"widths": [4, 8, 8, 8], "embedding": 8}', "--settings.window", "[8,16,16]"]
    words = ["train", "risk", str(patients), "--outcomes", str(table), "--out", str(tmp_path / "run"), "--epochs", "1"]
    assert cli.main([*words, *small, "--settings.members", "1", "--settings.dosiomics", "false", "--training.batch", "4"]) == 0
    card = read_card(tmp_path / "run" / "model.safetensors")
    assert card.made["simulated_outcomes"] is False
    assert card.limits == ""
    assert card.settings["toxicities"] == ["late"]

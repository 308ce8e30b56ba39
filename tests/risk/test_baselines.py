"""Small learners and feature selection: against the conditions of an optimum, by pencil, and nothing outside the training fold."""

import numpy as np
import pytest

from oncontour.errors import InputError
from oncontour.metrics.classify import auc
from oncontour.risk.baselines import boosted, grouped_folds, lasso, logistic, ridge
from oncontour.risk.feature_selection import Chosen, Selection, mrmr, relevance, select


@pytest.fixture(scope="module")
def made():
    """200 patients of 50 originals; the outcome follows columns 0 and 1, the other eight are noise."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 10))
    y = (rng.random(200) < 1 / (1 + np.exp(-(1.5 * x[:, 0] - 1.0 * x[:, 1])))).astype(float)
    return x, y, [f"p{n // 4}" for n in range(200)]


def test_logistic_meets_the_conditions_of_its_optimum(made):
    """With l1, the gradient of every weight is -l1 sign(w), and no larger than l1 where the weight is 0 (Karush-Kuhn-Tucker)."""
    x, y, _ = made
    model = logistic(x, y, l1=0.03, l2=0.0)
    gradient = x.T @ (model.probability(x) - y) / len(y)
    kept = model.weights != 0
    assert 0 < kept.sum() < 10
    assert gradient[kept] == pytest.approx(-0.03 * np.sign(model.weights[kept]), abs=1e-4)
    assert (np.abs(gradient[~kept]) <= 0.03 + 1e-4).all()
    assert model.probability(x).mean() == pytest.approx(y.mean(), abs=1e-5), "the intercept is free"


def test_two_by_two_by_pencil():
    """Events 30 of 100 without and 60 of 100 with: the weight is the log odds ratio."""
    x = np.repeat([0.0, 1.0], 100)[:, None]
    y = np.concatenate([np.arange(100) < 30, np.arange(100) < 60]).astype(float)
    model = logistic(x, y, l2=0.0)
    assert model.intercept == pytest.approx(np.log(0.3 / 0.7), abs=1e-3)
    assert model.weights[0] == pytest.approx(np.log((0.6 / 0.4) / (0.3 / 0.7)), abs=2e-3)


def test_lasso_ridge_and_trees_find_what_is_there(made):
    x, y, groups = made
    sparse = lasso(x, y, groups)
    assert {0, 1} <= set(np.flatnonzero(sparse.weights))
    rng = np.random.default_rng(5)
    new = rng.normal(size=(400, 10))
    had = rng.random(400) < 1 / (1 + np.exp(-(1.5 * new[:, 0] - 1.0 * new[:, 1])))
    best = auc(1.5 * new[:, 0] - new[:, 1], had)
    for model in (sparse, ridge(x, y, groups), boosted(x, y)):
        assert best - 0.06 < auc(model.probability(new), had) <= best + 0.02


def test_trees_find_what_no_line_can():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(600, 3))
    y = ((x[:, 0] > 0) ^ (x[:, 1] > 0)).astype(float)
    assert auc(boosted(x[:400], y[:400], depth=2).probability(x[400:]), y[400:]) > 0.9
    assert auc(logistic(x[:400], y[:400]).probability(x[400:]), y[400:]) < 0.65
    assert (boosted(x, y).probability(x) == boosted(x, y).probability(x)).all(), "the same seed, the same trees"


def test_folds_keep_originals_together():
    groups = ["a", "a", "b", "c", "c", "d"]
    parts = grouped_folds(groups, 3)
    assert sorted(n for _, apart in parts for n in apart) == list(range(6))
    for learned, apart in parts:
        assert not {groups[n] for n in learned} & {groups[n] for n in apart}
    assert len(grouped_folds(groups, 10)) == 4


@pytest.mark.parametrize(
    ("x", "y", "says"),
    [
        (np.zeros((3, 2)), np.zeros(3), "all 3 patients are without the outcome"),
        (np.full((2, 1), np.nan), np.array([0.0, 1.0]), "1 features hold a NaN"),
        (np.zeros((3, 2)), np.zeros(2), "equally long"),
    ],
)
def test_nothing_to_learn_is_said(x, y, says):
    with pytest.raises(InputError, match=says):
        logistic(x, y)


# ---- selection


def rows(x):
    return [{f"f{n}": float(v) for n, v in enumerate(row)} for row in x]


def test_mrmr_prefers_the_second_opinion():
    """f0 and its near copy f1 are the most relevant, f2 says something else: after f0 comes f2."""
    rng = np.random.default_rng(2)
    y = (np.arange(300) < 120).astype(float)
    f0 = y + 0.8 * rng.normal(size=300)
    x = np.stack([f0, f0 + 0.3 * rng.normal(size=300), 0.7 * y + rng.normal(size=300)], axis=1)
    assert np.argsort(relevance(x, y)).tolist() == [2, 1, 0]
    assert mrmr(x, y, 2) == [0, 2]
    assert relevance(x, y)[0] == pytest.approx(abs(2 * auc(f0, y) - 1))


def test_each_step_drops_what_it_should(made):
    x, y, groups = made
    table = rows(np.c_[x, 2 * x[:, 0] + 1e-6, np.full(200, 3.0), np.where(np.arange(200) < 30, np.nan, x[:, 2])])
    chosen = select(table, y, groups, Selection(count=4))
    assert chosen.dropped["not known of enough patients"] == 1
    assert chosen.dropped["does not vary"] == 1
    assert chosen.dropped["another says the same"] == 1
    assert {"f0", "f1"} <= set(chosen.names)
    assert len(chosen.names) == 4
    assert {"f0", "f1"} <= set(select(table, y, groups, Selection("mrmr+lasso", count=6)).names)
    assert len(select(table, y, groups, Selection("none")).names) == 10


def test_others_patients_decide_nothing(made):
    x, y, groups = made
    train = select(rows(x[:150]), y[:150], groups[:150])
    spoiled = x.copy()
    spoiled[150:] = 1e6
    again = select(rows(spoiled[:150]), y[:150], groups[:150])
    assert train == again
    values, notes = train.apply(rows(spoiled[150:]))
    assert np.isfinite(values).all()
    assert not notes


def test_a_feature_that_is_nan_is_said_and_counts_as_average(made):
    x, y, groups = made
    chosen = select(rows(x), y, groups, Selection(count=2))
    row = dict.fromkeys(chosen.names, 1.0)
    row[chosen.names[0]] = np.nan
    values, notes = chosen.apply([row])
    assert values[0, 0] == 0
    assert notes == [f"feature {chosen.names[0]} is not defined on 1 of 1: the training patients' median stands in"]
    with pytest.raises(InputError, match="was not computed"):
        chosen.apply([{}])
    assert Chosen(("a",), (1.0,), (2.0,)).apply([{"a": 5.0}])[0][0, 0] == 2


def test_one_class_and_no_feature_are_refused():
    with pytest.raises(InputError, match="all 3 patients are with the outcome"):
        select(rows(np.arange(6.0).reshape(3, 2)), [1, 1, 1], "abc")
    with pytest.raises(InputError, match="known of enough"):
        select(rows(np.full((3, 2), np.nan)), [0, 1, 1], "abc")
    with pytest.raises(InputError, match="varies"):
        select(rows(np.ones((3, 2))), [0, 1, 1], "abc")

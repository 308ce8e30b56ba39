"""The error tree: what is in it, what it says, and that it survives the way between processes."""

from __future__ import annotations

import inspect
import multiprocessing
import pickle
import re

import pytest

from oncontour import errors

KINDS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.OncontourError)]


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.__name__)
def test_every_error_pickles_whole(kind: type[errors.OncontourError]) -> None:
    error = kind("got 3, wanted 4", where="slice 17", hint="export again")
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is kind
    assert (back.what, back.where, back.hint, str(back)) == (error.what, error.where, error.hint, str(error))


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.__name__)
def test_the_tree_in_the_docstring_is_the_tree(kind: type[errors.OncontourError]) -> None:
    assert kind.__name__ in str(errors.__doc__)
    assert kind.__doc__
    assert 1 <= kind.exit_code <= 5


def test_the_exit_codes_in_the_docstring_are_true() -> None:
    listed = re.findall(r"├── (\w+) +(\d)|└── (\w+) +(\d)", str(errors.__doc__))
    codes = {a or c: int(b or d) for a, b, c, d in listed}
    assert codes == {"InputError": 2, "GeometryError": 2, "ModelError": 3, "TrainingError": 4, "OutputError": 5}
    assert all(getattr(errors, name).exit_code == code for name, code in codes.items())
    assert all(kind.exit_code == 2 for kind in KINDS if issubclass(kind, errors.InputError))


def test_message_shows_only_what_there_is() -> None:
    assert str(errors.DoseError("a NaN")) == "a NaN"
    assert str(errors.DoseError("a NaN", where="frame 3")) == "a NaN [frame 3]"
    assert str(errors.DoseError("a NaN", hint="recompute it")) == "a NaN. Way out: recompute it"


def test_what_was_done_travels_with_what_was_not() -> None:
    error = errors.IncompleteError("1 of 3 patients", where="here", done="a table")
    back = pickle.loads(pickle.dumps(error))
    assert (str(back), back.done, back.exit_code) == ("1 of 3 patients [here]", "a table", 2)


def _fails() -> None:
    raise errors.SeriesError("gap of 6 mm", where="slice 3", hint="export again")


def test_an_error_of_a_worker_arrives_as_it_was() -> None:
    with (
        multiprocessing.get_context("spawn").Pool(1) as pool,
        pytest.raises(errors.SeriesError, match=r"gap of 6 mm \[slice 3\]") as caught,
    ):
        pool.apply(_fails)
    assert caught.value.hint == "export again"

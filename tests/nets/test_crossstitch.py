"""The paper's networks: how many weights each has (published code, layer by layer), what comes out where, and what flows between."""

import pytest
import torch

from oncontour.errors import ModelError
from oncontour.nets import make_net
from oncontour.nets.crossstitch import MARGINS, STRIDES, Stitch

SINGLE, DOUBLE = (23, 45, 91), (16, 32, 64)
CLASSES, FIELD = 5, 3
ALONE = {"join": "single", "widths": SINGLE}
PAIR = {"join": "stitch", "widths": DOUBLE, "outputs": (CLASSES, FIELD)}
COUNTS = {
    "Seg a": (779_436, 1, CLASSES, ALONE),
    "Seg b": (780_057, 2, CLASSES, ALONE),
    "Seg c": (780_678, 3, CLASSES, ALONE),
    "Reg a": (779_733, 2, FIELD, ALONE),
    "Reg b": (780_354, 3, FIELD, ALONE),
    "Dense": (781_164, 3, CLASSES + FIELD, {"join": "dense", "widths": SINGLE, "outputs": (CLASSES, FIELD)}),
    "SEDD": (722_936, 3, CLASSES + FIELD, {"join": "sedd", "widths": DOUBLE, "outputs": (CLASSES, FIELD)}),
    "cross-stitch a": (779_144, 3, CLASSES + FIELD, PAIR | {"inputs": ((0,), (0, 1))}),
    "cross-stitch b": (779_576, 3, CLASSES + FIELD, PAIR | {"inputs": ((0,), (0, 1, 2))}),
    "cross-stitch c": (780_008, 3, CLASSES + FIELD, PAIR | {"inputs": ((0, 2), (0, 1, 2))}),
}


@pytest.mark.parametrize("name", COUNTS)
def test_the_papers_nets_have_its_number_of_weights(name: str) -> None:
    count, channels, outputs, options = COUNTS[name]
    net = make_net("crossstitch", channels, outputs, padded=False, deep=True, **options)
    assert sum(p.numel() for p in net.parameters()) == count


def test_96_voxels_without_padding_give_56_30_and_17() -> None:
    net = make_net("crossstitch", 3, 8, widths=(2, 2, 2), padded=False, deep=True, **{k: v for k, v in PAIR.items() if k != "widths"})
    with torch.no_grad():
        answers = net.eval().answers(torch.zeros(1, 3, 96, 96, 96))
    assert [[tuple(task.shape[1:]) for task in level] for level in answers] == [
        [(channels, n, n, n) for channels in (CLASSES, FIELD)] for n in (56, 30, 17)
    ]


@pytest.mark.parametrize(("padded", "margins"), [(False, MARGINS), (True, (0, 0, 0))])
def test_each_output_voxel_sees_around_the_input_voxel_that_it_lies_on(padded: bool, margins: tuple[int, ...]) -> None:
    """By the reach of the gradient: it is centred where the margins say, to the step of the nearest-neighbour up-sampling."""
    torch.manual_seed(0)
    net = make_net("crossstitch", 1, 1, widths=(2, 2, 2), padded=padded, deep=True).eval()
    for level, (stride, margin) in enumerate(zip(STRIDES, margins, strict=True)):
        x = torch.randn(1, 1, 96, 44, 44, requires_grad=True)
        y = net.answers(x)[level][0]
        n = y.shape[2] // 2 // (4 // stride) * (4 // stride)  # one that the coarsest grid has too
        (grad,) = torch.autograd.grad(y[0, 0, n].sum(), x)
        reached = grad[0, 0].abs().sum(dim=(1, 2)).nonzero().squeeze(1)
        middle = (int(reached.min()) + int(reached.max())) / 2
        assert abs(middle - (margin + stride * n)) <= 2


def test_a_unit_at_the_identity_leaves_tasks_apart_and_one_swapped_exchanges_them() -> None:
    unit, (a, b) = Stitch(4, identity=True), torch.randn(2, 1, 4, 2, 2, 2)
    with torch.no_grad():
        kept = unit([a, b])
        assert torch.allclose(kept[0], 0.9 * a + 0.1 * b, atol=1e-6)
        unit.weight.copy_(torch.tensor([[0.0, 1.0], [1.0, 0.0]]).expand(4, 2, 2))
        swapped = unit([a, b])
    assert torch.equal(swapped[0], b)
    assert torch.equal(swapped[1], a)


def test_the_papers_units_start_at_half_and_differ_from_map_to_map() -> None:
    torch.manual_seed(0)
    weight = Stitch(2000, identity=False).weight.detach()
    assert abs(float(weight.mean()) - 0.5) < 0.01
    assert 0.15 < float(weight.std()) < 0.25
    assert float(weight.min()) >= 0
    assert float(weight.max()) <= 1


def test_without_units_the_tasks_share_nothing_and_with_them_they_do() -> None:
    torch.manual_seed(0)
    net = make_net("crossstitch", 2, 4, join="stitch", outputs=(1, 3), inputs=((0,), (1,)), widths=(2, 2, 2)).eval()
    x = torch.randn(1, 2, 8, 8, 8, requires_grad=True)
    (grad,) = torch.autograd.grad(net(x)[:, 0].sum(), x)
    assert float(grad[:, 1].abs().sum()) > 0
    with torch.no_grad():
        for unit in net.stitches:
            unit.weight.copy_(torch.eye(2).expand_as(unit.weight))
    (grad,) = torch.autograd.grad(net(x)[:, 0].sum(), x)
    assert float(grad[:, 1].abs().sum()) == 0


@pytest.mark.parametrize(
    "options",
    [
        {"join": "stitch"},
        {"join": "single", "outputs": (2, 2)},
        {"join": "dense", "outputs": (3, 3)},
        {"join": "stitch", "outputs": (1, 3), "inputs": ((0,), (5,))},
        {"join": "stitch", "outputs": (1, 3), "inputs": ((0,),)},
        {"widths": (2, 2)},
    ],
)
def test_options_that_make_no_net_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ModelError):
        make_net("crossstitch", 2, 4, **options)


def test_a_window_too_small_without_padding_is_refused() -> None:
    with pytest.raises(ValueError, match="44 or more"):
        make_net("crossstitch", 1, 1, padded=False, widths=(2, 2, 2))(torch.zeros(1, 1, 40, 44, 44))

"""What every row of NETS must do; a new net is tested by having a row."""

import pytest
import torch

from oncontour.errors import ModelError
from oncontour.nets import NETS, make_net

SIZE = {2: (32, 48), 3: (32, 32, 48)}


@pytest.fixture(params=sorted(NETS))
def name(request):
    torch.manual_seed(0)
    return request.param


def test_logits_have_the_input_size(name):
    net = make_net(name, 3, 5).eval()
    with torch.no_grad():
        assert net(torch.zeros(2, 3, *SIZE[net.dims])).shape == (2, 5, *SIZE[net.dims])


def test_every_weight_learns(name):
    net = make_net(name, 1, 2).train()
    x = torch.randn(2, 1, *SIZE[net.dims])
    (net(x) * torch.randn(2, 2, *SIZE[net.dims])).sum().backward()
    dead = [key for key, p in net.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
    assert not dead


def test_a_size_that_does_not_fit_is_named_with_the_one_that_does(name):
    net = make_net(name, 1, 1)
    with pytest.raises(ValueError, match="pad to"):
        net(torch.zeros(1, 1, *(n + 1 for n in SIZE[net.dims])))


def test_unknown_nets_and_options_are_refused():
    with pytest.raises(ModelError, match="no net 'x'"):
        make_net("x", 1, 1)
    with pytest.raises(ModelError, match="does not take"):
        make_net("unet", 1, 1, wings=2)

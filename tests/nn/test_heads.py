"""Heads and auto-context: names, shapes, and a first net that stays as it was."""

from __future__ import annotations

import pytest
import torch

from emloom.errors import InputError
from emloom.nn.heads import AutoContext, MultiHead
from emloom.nn.reshape import crop
from emloom.nn.unet import UNetSpec

ONE = ((3, 3, 3),)
SAME = UNetSpec(features=(3, 4), factors=((2, 2, 2),), kernels=(ONE, ONE))
SAME_THIRDS = UNetSpec(features=(3, 4), factors=((1, 3, 2),), kernels=(ONE, ONE))
# Its context is no multiple of the lattice of SAME_THIRDS: pooling windows do not meet by themselves.
SAME_SHORT = UNetSpec(features=(3, 4), factors=((2, 2, 2),), kernels=(((1, 1, 1),), ONE))
VALID = UNetSpec(features=(3, 4), factors=((2, 2, 2),), kernels=(ONE, ONE), padding="valid")
VALID_DEEP = UNetSpec(features=(3, 4, 4), factors=((2, 3, 2), (2, 1, 2)), kernels=(ONE,) * 3, padding="valid")


def chain(first: UNetSpec, second: UNetSpec, include_raw: bool) -> AutoContext:
    torch.manual_seed(1)
    lsds = MultiHead(first, {"lsds": 10})
    return AutoContext(lsds, MultiHead(second, {"affinities": 3}, 10 + include_raw), include_raw)


def shown_for(net: AutoContext, cells: int) -> torch.Tensor:
    shape = [cells * n + 2 * c for n, c in zip(net.lattice, net.context, strict=True)]
    return torch.randn(1, 1, *shape, generator=torch.Generator().manual_seed(2))


def test_heads_answer_by_name_at_full_resolution():
    spec = SAME.model_copy(update={"stem": (1, 2, 2)})
    net = MultiHead(spec, {"affinities": 9, "lsds": 10}, in_channels=2)
    out = net(torch.randn(2, 2, 4, 8, 8))
    assert {name: tuple(t.shape) for name, t in out.items()} == {
        "affinities": (2, 9, 4, 8, 8),
        "lsds": (2, 10, 4, 8, 8),
    }
    assert net.channels == {"affinities": 9, "lsds": 10}
    assert net.lattice == (2, 4, 4)


@pytest.mark.parametrize("heads", [{}, {"affinities": 0}])
def test_a_net_without_answers_is_refused(heads):
    with pytest.raises(InputError, match="at least one"):
        MultiHead(SAME, heads)


@pytest.mark.parametrize("include_raw", [False, True])
@pytest.mark.parametrize(
    ("first", "second"),
    [(SAME, SAME), (SAME_SHORT, SAME_THIRDS), (VALID, VALID), (VALID, VALID_DEEP), (VALID_DEEP, VALID)],
)
def test_auto_context_interior_is_forward_cropped_and_tiles_agree(first, second, include_raw):
    net = chain(first, second, include_raw).eval()
    x = shown_for(net, 2)
    with torch.inference_mode():
        inside = net.interior(x)["affinities"]
        full = net(x)["affinities"]
        expected = crop(full, net.context) if net.padding == "same" else full
        torch.testing.assert_close(inside, expected, rtol=0, atol=1e-5)
        assert inside.shape[2:] == tuple(2 * n for n in net.lattice)
        step = net.lattice
        part = x[:, :, step[0] :, : -step[1] or None, step[2] :]
        tile = net.interior(part)["affinities"]
        torch.testing.assert_close(tile, inside[:, :, step[0] :, : step[1], step[2] :], rtol=0, atol=1e-5)


def test_auto_context_of_the_published_net_reproduces_its_shapes():
    with torch.device("meta"):
        net = chain(UNetSpec.mtlsd(), UNetSpec.mtlsd(), include_raw=True)
        out = net(torch.empty(1, 1, 328, 328, 328))
    assert net.context == (128, 128, 128)
    assert net.input_shape((72, 72, 72)) == (328, 328, 328)
    assert out["affinities"].shape == (1, 3, 72, 72, 72)


@pytest.mark.parametrize(("first", "second"), [(SAME, SAME), (VALID, VALID)])
@pytest.mark.parametrize("head", ["affinities", "lsds"])
def test_each_net_learns_from_its_own_loss_only(first, second, head):
    net = chain(first, second, include_raw=True)
    net(shown_for(net, 1))[head].sum().backward()
    learning = net.second if head == "affinities" else net.first
    for part in (net.first, net.second):
        assert all((p.grad is not None) == (part is learning) for p in part.parameters())


def test_both_nets_answer_for_the_same_voxels():
    net = chain(VALID, VALID_DEEP, include_raw=True)
    assert net.channels["lsds"] == 10
    out = net(shown_for(net, 2))
    assert out["lsds"].shape[2:] == out["affinities"].shape[2:]
    inside = net.interior(shown_for(net, 2))
    assert inside["lsds"].shape[2:] == inside["affinities"].shape[2:]


def test_nets_that_do_not_fit_together_are_refused():
    lsds = MultiHead(SAME, {"lsds": 10})
    with pytest.raises(InputError, match="named 'lsds'"):
        AutoContext(MultiHead(SAME, {"affinities": 3}), MultiHead(SAME, {"affinities": 3}, 10))
    with pytest.raises(InputError, match="is shown 11"):
        AutoContext(lsds, MultiHead(SAME, {"affinities": 3}, 10), include_raw=True)
    with pytest.raises(InputError, match="one padding"):
        AutoContext(lsds, MultiHead(VALID, {"affinities": 3}, 10))

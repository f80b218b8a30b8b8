"""Every kind of autoencoder by its name, what they share, and what the page says about them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor

from emloom.errors import InputError
from emloom.nn.autoencoders import (
    AtrousAutoencoderSpec,
    AutoencoderSpec,
    FCNAutoencoderSpec,
    MultiResolutionSpec,
    UNetAutoencoderSpec,
    VariationalSpec,
    autoencoder,
)
from emloom.nn.cost import multiply_adds
from emloom.spec import Spec

PAGE = (Path(__file__).parents[2] / "docs" / "autoencoders.md").read_text(encoding="utf-8")
SMALL = MultiResolutionSpec(f=1, n_latent=3)
SPECS = [
    FCNAutoencoderSpec.of(1, levels=3, pooling="blurpool"),
    AtrousAutoencoderSpec.of(1, levels=3, flat_levels=1),
    UNetAutoencoderSpec.of(1, levels=3, merge="concatenate", skips=(True, False)),
    SMALL,
    SMALL.model_copy(update={"skip": False, "in_channels": 2}),
    VariationalSpec(network=SMALL),
]


class Job(Spec):
    """A job with an autoencoder."""

    network: AutoencoderSpec


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.kind)
def test_every_spec_names_its_net(spec):
    assert Job.from_yaml(Job(network=spec).to_yaml()).network == spec
    torch.manual_seed(0)
    net = autoencoder(spec).eval()
    assert net.spec == spec
    x = torch.randn(2, getattr(spec, "in_channels", 1), *net.rule.first)
    with torch.inference_mode():
        answer = net(x)
        reconstruction = answer if isinstance(answer, Tensor) else answer.reconstruction
        assert reconstruction.shape == x.shape
        latent = net.latent(x)
        assert latent.shape[0] == 2
        assert torch.equal(net.latent(x), latent)
    wrong = [n - 1 for n in net.rule.first]
    with pytest.raises(InputError, match=re.escape(f"use {net.rule.first}")):
        net(torch.zeros(1, x.shape[1], *wrong))


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.kind)
def test_weights_come_back_from_their_state(spec):
    torch.manual_seed(0)
    net, other = autoencoder(spec).eval(), autoencoder(spec).eval()
    x = torch.randn(1, getattr(spec, "in_channels", 1), *net.rule.first)
    with torch.inference_mode():
        assert not torch.allclose(net.latent(x), other.latent(x))
        other.load_state_dict(net.state_dict())
        assert torch.equal(net.latent(x), other.latent(x))


def test_a_kind_that_does_not_exist_is_refused():
    with pytest.raises(InputError, match="did you mean 'atrous_autoencoder'"):
        Job.from_dict({"network": {"kind": "atrous_autoencodr"}})


# ---- the page ---------------------------------------------------------------------------------------------------


def test_the_example_of_the_page_runs():
    (example,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.S | re.M)
    names: dict[str, object] = {}
    exec(compile(example, "docs/autoencoders.md", "exec"), names)
    assert names["size"] == (1, 96, 96)
    assert bool(names["loss"].isfinite())
    assert all(p.grad is not None for p in names["net"].parameters())


def count(text: str) -> int:
    return int(text.replace(",", ""))


def test_the_numbers_of_parameters_on_the_page_are_the_real_ones():
    rows = re.findall(r"^\| (\d+) \| ([\d,]+) \| ([\d,]+) \|$", PAGE, re.M)
    assert len(rows) == 4
    for width, same, joined in rows:
        spec = UNetAutoencoderSpec.of(int(width))
        assert (count(same), count(joined)) == (spec.parameters, spec.concatenated().parameters)


def test_the_costs_on_the_page_are_the_real_ones():
    rows = re.findall(r"^\| .*`(\S.*?)` \| (\d+) \| ([\d,]+) \| ([\d,]+) \| ([\d.]+) M \|$", PAGE, re.M)
    assert len(rows) == 7
    for fields, patch, encoder, decoder, cost in rows:
        spec = eval(f"MultiResolutionSpec({fields})")
        assert spec.patch == int(patch)
        with torch.device("meta"):
            net = autoencoder(spec).eval()
            x = torch.empty(1, 1, 1, spec.patch, spec.patch)
        parts = (net.encoder, net.decoder)
        assert [sum(p.numel() for p in part.parameters()) for part in parts] == [count(encoder), count(decoder)]
        assert sum(multiply_adds(net.encoder, x).values()) / 1e6 == pytest.approx(float(cost), abs=0.05)


def test_the_work_of_each_shape_on_the_page_is_the_real_one():
    rows = dict(re.findall(r"^\| `(\w+)` \| .* \| ([\d.]+) G \|$", PAGE, re.M))
    assert len(rows) == 3
    for kind, cost in rows.items():
        with torch.device("meta"):
            net, x = (
                autoencoder(Job.from_dict({"network": {"kind": kind}}).network),
                torch.empty(1, 1, 1, 256, 256),
            )
        assert sum(multiply_adds(net, x).values()) / 1e9 == pytest.approx(float(cost), rel=2e-3)


def test_every_option_is_explained():
    for spec in (FCNAutoencoderSpec, UNetAutoencoderSpec, MultiResolutionSpec):
        for name in set(spec.model_fields) - {"kind", "in_channels"}:
            assert re.search(rf"\b{name}\b", PAGE), f"{spec.__name__}.{name} is not on the page"

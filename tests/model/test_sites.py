"""The table of sites says what the model does: each row is held to the model itself."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from micro import random_tokens, small_model

from sparsity_lab.model.sites import (
    GATED_NODE_SITES,
    HEAD_SITES,
    MATRICES,
    NODE_SITES,
    NODES,
    STREAM_SITES,
    SUBLAYERS,
    WRITES,
    Site,
    sublayer_boundary,
)
from sparsity_lab.model.taps import Record, at_site, chain, with_residuals


def test_a_config_that_names_sites_starts_without_torch() -> None:
    code = (
        "import sys, sparsity_lab.model.config, sparsity_lab.model.sites, sparsity_lab.importers.imported\n"
        "sys.exit(bool({'torch', 'numba', 'pandas', 'lightning'} & sys.modules.keys()))"
    )
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


def test_the_node_sites_are_all_but_two() -> None:
    assert set(GATED_NODE_SITES) == set(Site) - {Site.RESID, Site.ATTN_PATTERN}
    assert list(GATED_NODE_SITES) == [site for site in Site if site in NODES]  # the flat order of nodes
    assert list(NODE_SITES) == [site for site in GATED_NODE_SITES if site is not Site.MLP_GATE]


@pytest.mark.parametrize("gated", [False, True])
def test_matrices_join_the_sites_that_they_name(gated: bool) -> None:
    model = small_model(n_head=3, positions="concatenated", d_pos=4, gated_mlp=gated)
    assert [matrix.name for matrix in model.config.matrices] == [
        name for name, module in model.blocks[0].named_modules() if isinstance(module, torch.nn.Linear)
    ]
    assert {matrix.name for matrix in MATRICES} >= {matrix.name for matrix in model.config.matrices}
    for matrix in model.config.matrices:
        weight_oi = model.blocks[1].get_parameter(f"{matrix.name}.weight")
        assert weight_oi.shape == (model.config.width(matrix.target), model.config.width(matrix.source))
        assert matrix.name.split(".")[0] == NODES[matrix.source].sublayer == NODES[matrix.target].sublayer


@pytest.mark.parametrize("site", GATED_NODE_SITES)
def test_a_change_at_a_site_reaches_those_it_is_read_by_first_and_nothing_before_its_sublayer(
    site: Site,
) -> None:
    model = small_model(activation_fraction=1.0, gated_mlp=True, positions="rotary")
    tokens_bt = random_tokens(3, 9)
    plain, changed = Record(GATED_NODE_SITES), Record(GATED_NODE_SITES)
    streams = with_residuals(model, tokens_bt, plain)[1]
    more = at_site(site, 1, lambda x_btc: x_btc + 1)
    changed_streams = with_residuals(model, tokens_bt, chain(more, changed))[1]
    moved = {place for place, x in plain.values.items() if not torch.equal(x, changed.values[place])}
    moved_streams = [b for b, x in streams.items() if not torch.equal(x, changed_streams[b])]
    begins = sublayer_boundary(site, 1)
    assert begins == 2 + SUBLAYERS.index(NODES[site].sublayer)
    assert moved_streams == list(range(begins + 1, 5))  # all that comes after the sublayer
    assert all(layer == 1 for _, layer in moved)
    read = {matrix.target for matrix in MATRICES if matrix.source is site}
    assert {(target, 1) for target in read} <= moved
    if site in STREAM_SITES:
        boundary = NODES[site].stream
        assert boundary == begins - 2 + (site in WRITES.values())


def test_the_channels_of_head_sites_are_divided_among_the_heads() -> None:
    config = small_model(n_head=3).config
    assert [site for site in NODE_SITES if config.width(site) == 3 * config.d_head] == list(HEAD_SITES)

"""Circuits beside the whole model's run: values of the other prompt, and frozen norms."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from micro import (
    PLANTED,
    evaluator_of,
    planted_model,
    question,
    questions,
    quick_masks,
    quick_pruning,
    small_model,
)

from sparsity_lab.circuits.beside_whole import beside_whole, other_positions
from sparsity_lab.circuits.circuit import Node
from sparsity_lab.circuits.compaction import compact
from sparsity_lab.circuits.nodes import NodeLayout
from sparsity_lab.circuits.search import find_circuits
from sparsity_lab.model.sites import Site
from sparsity_lab.model.taps import Record, ablate, at_site
from sparsity_lab.tasks.batch import by_length, first_pairs, logit_difference

SHAPES: list[dict[str, Any]] = [{}, {"norm": "layer"}, {"positions": "concatenated", "d_pos": 4}]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("other_prompt", "freeze_norm"), [(True, False), (False, True), (True, True)])
def test_a_circuit_of_all_nodes_is_the_whole_model(
    shape: dict[str, Any], other_prompt: bool, freeze_norm: bool
) -> None:
    model, batch = small_model(**shape), question(6)
    everything_n = torch.ones(NodeLayout(model.config).size, dtype=torch.bool)
    tap = ablate(NodeLayout(model.config), everything_n, torch.zeros(len(everything_n)))
    beside = beside_whole(model, other_prompt, freeze_norm)
    torch.testing.assert_close(logit_difference(beside, batch, tap), logit_difference(model, batch))


def test_one_dropped_node_takes_the_other_prompts_value() -> None:
    """Compared with a tap that exchanges the node's values by hand; prompts of one length."""
    model, batch = small_model(), question(6)
    layout = NodeLayout(model.config)
    kept_n = torch.ones(layout.size, dtype=torch.bool)
    place = layout.slices[Site.ATTN_V, 0].start + 3
    kept_n[place] = False
    record = Record({Site.ATTN_V})
    model(batch.tokens_bt, record)
    other_bt = record.values[Site.ATTN_V, 0][..., 3].roll(6, 0)

    def exchange(x_btc: torch.Tensor) -> torch.Tensor:
        x_btc = x_btc.clone()
        x_btc[..., 3] = other_bt
        return x_btc

    expected_b = logit_difference(model, batch, at_site(Site.ATTN_V, 0, exchange))
    zeros_n = torch.zeros(layout.size)
    found_b = logit_difference(beside_whole(model, True, False), batch, ablate(layout, kept_n, zeros_n))
    torch.testing.assert_close(found_b, expected_b)
    assert not torch.allclose(found_b, logit_difference(model, batch))


def test_without_nodes_a_prompt_gets_the_other_prompts_answer() -> None:
    """Nothing differs in the pair's last tokens, and no node of the prompt's own is left."""
    model = small_model(bigram="none")
    evaluator = evaluator_of(model, quick_pruning(ablation="other_prompt"))
    batch = evaluator.data.test
    empty_n = torch.zeros(NodeLayout(model.config).size, dtype=torch.bool)
    half = len(batch.label_b) // 2
    whole_b = logit_difference(model, batch)
    torch.testing.assert_close(evaluator.logit_difference(empty_n, batch), whole_b.roll(half))


def test_pairs_of_unequal_length_are_aligned_at_both_ends() -> None:
    tokens_bt = torch.tensor([[1, 2, 3, 8, 9, 0], [1, 2, 4, 5, 8, 9]])  # the first prompt has five tokens
    found_bt = other_positions(tokens_bt, torch.tensor([4, 5]))
    assert found_bt[0, :5].tolist() == [0, 1, 3, 4, 5]
    assert found_bt[1].tolist() == [0, 1, 2, 2, 3, 4]


def test_a_longer_beginning_of_the_other_prompt() -> None:
    tokens_bt = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]])  # one prompt begins with the whole of the other
    found_bt = other_positions(tokens_bt, torch.tensor([1, 3]))
    assert found_bt[0, :2].tolist() == [0, 1]
    assert found_bt[1].tolist() == [0, 1, 1, 1]


def test_pairs_stay_whole_in_parts() -> None:
    batch = question(9)
    batch = replace(batch, last_b=torch.arange(18) % 4)
    seen = []

    def note(part: Any) -> torch.Tensor:
        seen.append(part)
        return part.last_b.double()

    torch.testing.assert_close(by_length(batch, 4, note, whole_pairs=True), batch.last_b.double())
    for part in seen:
        assert part.label_b.tolist() == [0] * (len(part.label_b) // 2) + [1] * (len(part.label_b) // 2)


def test_a_frozen_norm_divides_by_the_whole_models_scale() -> None:
    """Dropping a node that writes a constant shifts the stream; the norm's scale does not follow."""
    model, batch = small_model(n_layer=1, activation_fraction=1.0), first_pairs(question(6), 2)
    layout = NodeLayout(model.config)
    kept_n = torch.ones(layout.size, dtype=torch.bool)
    kept_n[layout.slices[Site.ATTN_OUT, 0]] = False
    values_n = torch.full((layout.size,), 3.0)
    whole, found = Record({Site.RESID, Site.MLP_IN}), Record({Site.RESID, Site.MLP_IN})
    model(batch.tokens_bt, whole)
    tap = ablate(layout, kept_n, values_n)

    def both(site: Site, layer: int, x_btc: torch.Tensor) -> torch.Tensor:
        return found(site, layer, tap(site, layer, x_btc))

    beside_whole(model, False, True)(batch.tokens_bt, both)
    stream_btd, whole_btd = found.values[Site.RESID, 1], whole.values[Site.RESID, 1]
    weight_d = model.blocks[0].get_parameter("mlp.read.norm.weight")
    expected_btd = stream_btd / whole_btd.square().mean(-1, keepdim=True).sqrt() * weight_d
    torch.testing.assert_close(found.values[Site.MLP_IN, 0], expected_btd)


@pytest.mark.parametrize(("other_prompt", "freeze_norm"), [(True, False), (False, True), (True, True)])
def test_compaction_changes_nothing(other_prompt: bool, freeze_norm: bool) -> None:
    model, batch = small_model(), question(6)
    layout = NodeLayout(model.config)
    kept_n = torch.rand(layout.size, generator=torch.Generator().manual_seed(1)) < 0.6
    kept_n[layout.slices[Site.MLP_OUT, 1]] = False  # a whole sublayer is frozen
    values_n = torch.zeros(layout.size) if other_prompt else torch.randn(layout.size)
    beside, tap = beside_whole(model, other_prompt, freeze_norm), ablate(layout, kept_n, values_n)
    narrow = compact(beside, kept_n, values_n)
    found_b, expected_b = logit_difference(narrow, batch, tap), logit_difference(beside, batch, tap)
    torch.testing.assert_close(found_b, expected_b, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("changes", [{"ablation": "other_prompt"}, {"freeze_norm": True}])
def test_the_search_finds_the_planted_circuit(changes: dict[str, Any]) -> None:
    model, pruning = planted_model(), quick_pruning(targets=(0.15,), **changes)
    evaluator = evaluator_of(model, pruning, data=questions())
    found = find_circuits(evaluator, "planted", "planted", quick_masks(), pruning).circuits
    planted = tuple(Node(layer=layer, site=site, channel=channel) for layer, site, channel in PLANTED)
    assert found[0].nodes == planted
    assert found[0].provenance["ablation"] == pruning.ablation
    assert found[0].provenance.get("freeze_norm", False) == pruning.freeze_norm


@pytest.mark.parametrize("other", [{"selection": "calibrated"}, {"edges": "prune"}])
def test_settings_that_do_not_fit_the_other_prompt_are_refused(other: dict[str, Any]) -> None:
    with pytest.raises(Exception, match=r"other_prompt.*allowed") as error:
        quick_pruning(ablation="other_prompt", **other)
    assert "\n" not in str(error.value)

"""Passes that begin at a node's sublayer answer as passes from the start do."""

from typing import Any

import pytest
import torch
from micro import random_tokens, small_model

from sparsity_lab.circuits.leave_one_out import differences_without_each
from sparsity_lab.circuits.nodes import NodeLayout, mean_activations
from sparsity_lab.model.taps import ablate
from sparsity_lab.tasks.batch import TaskBatch, logit_difference


@pytest.mark.parametrize("changes", [{}, {"positions": "learned"}, {"positions": "concatenated", "d_pos": 4}])
def test_a_node_less_is_the_same_from_the_nodes_sublayer_on(changes: dict[str, Any]) -> None:
    model = small_model(**changes)
    means_n = mean_activations(model, [random_tokens(9, 9, seed=1)])
    layout = NodeLayout(model.config)
    kept_n = torch.rand(layout.size, generator=torch.Generator().manual_seed(2)) < 0.4
    assert all(kept_n[place].any() for place in layout.slices.values())
    batch = TaskBatch(
        tokens_bt=random_tokens(10, 9),
        last_b=torch.tensor([8, 3, 5, 8, 2, 7, 4, 4, 6, 8]),
        answers_b2=torch.tensor([[1, 2], [3, 4]] * 5),
        label_b=torch.tensor([0, 1] * 5),
    )
    found_kb = differences_without_each(model, kept_n, means_n, batch, False, rows=4)
    nodes = kept_n.nonzero().flatten()
    assert found_kb.shape == (len(nodes), 10)
    whole_b = logit_difference(model, batch, ablate(layout, kept_n, means_n))
    for node, found_b in zip(nodes, found_kb, strict=True):
        tap = ablate(layout, kept_n.index_fill(0, node[None], False), means_n)
        torch.testing.assert_close(found_b, logit_difference(model, batch, tap), rtol=1e-4, atol=1e-5)
    assert (found_kb - whole_b).abs().amax(1).gt(1e-3).sum() > len(nodes) / 2

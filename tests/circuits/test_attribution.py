"""Attribution against what it must equal: the change a gate makes, and integrated gradients' completeness."""

import torch
from micro import planted_model, question, random_tokens, small_model
from torch import Tensor

from sparsity_lab.circuits.attribution import attribution
from sparsity_lab.circuits.nodes import NodeLayout, mean_activations
from sparsity_lab.model.sites import Site, Tap
from sparsity_lab.model.taps import ablate, scale_nodes
from sparsity_lab.model.transformer import Transformer
from sparsity_lab.tasks.batch import TaskBatch, logit_difference


def lead(model: Transformer, batch: TaskBatch, tap: Tap | None = None) -> Tensor:
    sign_b = torch.where(batch.label_b == 0, 1.0, -1.0)
    return (sign_b * logit_difference(model, batch, tap)).mean()


def test_a_gradient_is_the_slope_of_the_lead_in_a_gate() -> None:
    model = planted_model()
    layout, batch = NodeLayout(model.config), question(8)
    means_n = mean_activations(model, [random_tokens(20, 8)])
    found_n = attribution(model, means_n, batch, "gradient")
    for site, channel in ((Site.ATTN_V, 0), (Site.MLP_IN, 3)):
        node = layout.slices[site, 0].start + channel
        gates = []
        for step in (-1e-2, 1e-2):
            gate_n = torch.ones(layout.size).index_fill(0, torch.tensor([node]), 1 + step)
            gates.append(lead(model, batch, scale_nodes(layout, gate_n, means_n)))
        torch.testing.assert_close(found_n[node], (gates[1] - gates[0]) / 2e-2, rtol=1e-2, atol=1e-3)


def test_integrated_gradients_add_up_to_the_whole_change() -> None:
    model = small_model(activation_fraction=1.0)
    layout, batch = NodeLayout(model.config), question(8)
    means_n = mean_activations(model, [random_tokens(20, 8)])
    found_n = attribution(model, means_n, batch, "integrated", steps=64)
    nothing = ablate(layout, torch.zeros(layout.size, dtype=torch.bool), means_n)
    torch.testing.assert_close(
        found_n.sum(), lead(model, batch) - lead(model, batch, nothing), rtol=0.05, atol=0.05
    )

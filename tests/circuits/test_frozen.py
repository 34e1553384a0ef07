"""What the nodes outside a circuit are frozen at, by `pruning.ablation`."""

from dataclasses import replace

import pytest
import torch
from micro import question, small_model

from sparsity_lab.circuits.config import Ablation, PruningConfig
from sparsity_lab.circuits.evaluator import TaskData
from sparsity_lab.circuits.finders.masks import Config as MasksConfig
from sparsity_lab.circuits.frozen import frozen_values
from sparsity_lab.circuits.nodes import NodeLayout, mean_activations
from sparsity_lab.circuits.search import make_evaluator
from sparsity_lab.model.sites import Site
from sparsity_lab.model.taps import Record


def test_zero_and_the_means_over_text() -> None:
    model, train = small_model(), question(4, 0)
    means_n = mean_activations(model, [train.tokens_bt[:2]])
    assert torch.equal(frozen_values("mean", model, means_n, train), means_n)
    assert not frozen_values("zero", model, means_n, train).any()


def test_the_means_over_prompts_leave_out_the_padding() -> None:
    model, train = small_model(), question(4, 0)
    shorter_b = train.last_b - torch.arange(len(train.last_b)) % 2
    train = replace(train, last_b=shorter_b)
    means_n = frozen_values("task_mean", model, torch.zeros(NodeLayout(model.config).size), train)
    values = []
    for tokens_t, last in zip(train.tokens_bt, shorter_b.tolist(), strict=True):
        record = Record(frozenset({Site.MLP_NEURON}))
        model(tokens_t[None, : last + 1], record)
        values.append(record.values[Site.MLP_NEURON, 0][0])
    place = NodeLayout(model.config).slices[Site.MLP_NEURON, 0]
    torch.testing.assert_close(means_n[place], torch.cat(values).mean(0))


@pytest.mark.parametrize("ablation", ["mean", "zero", "task_mean"])
def test_the_search_freezes_what_the_setting_says(ablation: Ablation) -> None:
    model = small_model()
    data = TaskData(*(question(4, seed) for seed in (0, 1, 2)))
    means_n = mean_activations(model, [data.test.tokens_bt])
    pruning = PruningConfig(ablation=ablation)
    evaluator = make_evaluator(model, means_n, data, MasksConfig(), pruning)
    assert torch.equal(evaluator.means_n, frozen_values(ablation, model, means_n, data.train))

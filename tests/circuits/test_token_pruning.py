"""Token pruning: the embeddings that a circuit does not need become their mean."""

import pytest
import torch
from micro import (
    VOCABULARY,
    evaluator_of,
    planted_model,
    question,
    quick_masks,
    quick_pruning,
    random_tokens,
    small_model,
)

from sparsity_lab.circuits.config import PruningConfig
from sparsity_lab.circuits.difference import circuit_difference
from sparsity_lab.circuits.evaluator import score
from sparsity_lab.circuits.nodes import NodeLayout
from sparsity_lab.circuits.search import find_circuits
from sparsity_lab.circuits.token_pruning import keep_tokens, token_effects
from sparsity_lab.core.config import validate
from sparsity_lab.core.errors import UserError


@pytest.mark.parametrize("ablation", ["mean", "zero"])
def test_the_tokens_that_decide_are_kept_and_no_others(ablation: str) -> None:
    pruning = quick_pruning(targets=[0.15], retries=0, tokens="prune", ablation=ablation)
    evaluator = evaluator_of(planted_model(), pruning)
    (circuit,) = find_circuits(evaluator, "question", "planted", quick_masks(), pruning).circuits
    assert circuit.tokens is not None
    assert circuit.tokens.tokens
    assert set(circuit.tokens.tokens) <= {1, 2}  # the first token of a prompt, which decides
    assert circuit.tokens.select.selection_loss <= 0.15
    table = evaluator.model.embedding.weight.clone()
    for token in set(range(VOCABULARY)) - set(circuit.tokens.tokens):
        mean = evaluator.model.embedding.weight.mean(0)
        table[token] = 0 * mean if ablation == "zero" else mean
    other = planted_model()
    other.embedding.weight.copy_(table)
    kept_n, batch = NodeLayout(other.config).mask(circuit.nodes), evaluator.data.test
    found = circuit_difference(other, kept_n, evaluator.means_n, batch, evaluator.closed)
    assert score(found, batch.label_b, circuit.tokens.calibration).model_dump() == pytest.approx(
        circuit.tokens.test.model_dump()
    )


def test_the_estimate_is_the_slope_of_the_loss() -> None:
    """Of a token's way from its own embedding to that of a dropped one, a small part is taken."""
    evaluator = evaluator_of(small_model(1, activation_fraction=1.0), quick_pruning())
    kept_n = torch.rand(len(evaluator.means_n), generator=torch.Generator().manual_seed(0)) < 0.8
    frozen_d = evaluator.model.embedding.weight.mean(0)
    effect_v = token_effects(evaluator, kept_n, frozen_d)
    assert not effect_v[[0, 3, 4]].any()  # in no prompt
    before, step, other = evaluator.select_loss(kept_n), 1e-2, small_model(1, activation_fraction=1.0)
    for token in (1, 5):
        weight_vd = evaluator.model.embedding.weight.clone()
        weight_vd[token] += step * (frozen_d - weight_vd[token])
        other.embedding.weight.copy_(weight_vd)
        difference = circuit_difference(other, kept_n, evaluator.means_n, evaluator.data.select, True)
        after = score(difference, evaluator.data.select.label_b, evaluator.calibration(difference))
        assert after.selection_loss - before == pytest.approx(step * effect_v[token].item(), rel=0.2)


def test_a_tied_unembedding_keeps_its_weights() -> None:
    model = small_model(tied_embeddings=True)
    reading = keep_tokens(model, torch.arange(VOCABULARY) < 3)
    assert reading.unembedding.weight is model.embedding.weight
    tokens_bt = random_tokens(4, 5).clamp(max=2)
    assert torch.equal(reading(tokens_bt), model(tokens_bt))
    assert not torch.equal(reading(question(2).tokens_bt), model(question(2).tokens_bt))


def test_it_is_refused_where_dropped_nodes_take_other_values() -> None:
    with pytest.raises(UserError, match=r"tokens: 'prune'.*other_prompt, allowed: all"):
        validate(PruningConfig, {"ablation": "other_prompt", "tokens": "prune"}, "pruning")

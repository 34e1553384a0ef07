"""Prune the token embeddings that a circuit reads, after any finder (`pruning.tokens=prune`).

A node's mask is the same for all tokens. Here the tokens of the vocabulary are masked too: a dropped token
keeps its place in the prompt, but its embedding becomes the mean embedding of the vocabulary, or zero with
ablation zero. The bigram table still reads every token. Gao et al. (2025) have no such masks.

1. Estimate to first order how much the selection loss rises when each token is dropped.
2. Drop tokens in ascending order of this estimate, as many as the target allows (found by bisection).
3. Do the same in ascending order of the estimate's size, and take the order that drops more, since the
   estimate is wrong for tokens that matter much (`dropping.py`).
4. Repeat until no token can be dropped.

A token that is in no selection pair is dropped, and its effect shows in the test scores alone. The nodes are
those found with all tokens. Masks learned together with those of the nodes might give other nodes.

Shape suffixes: n all nodes, v vocabulary, k kept tokens, d d_model.
"""

import copy
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from sparsity_lab.circuits.circuit import Circuit, PrunedTokens
from sparsity_lab.circuits.closing import with_children
from sparsity_lab.circuits.dropping import most_droppable
from sparsity_lab.circuits.evaluator import CircuitEvaluator, two_way_loss
from sparsity_lab.circuits.nodes import NodeLayout
from sparsity_lab.model.taps import ablate
from sparsity_lab.model.transformer import Transformer
from sparsity_lab.tasks.batch import logit_difference


def prune_tokens(evaluator: CircuitEvaluator, circuit: Circuit, rounds: int = 4) -> Circuit:
    """Return `circuit` with `tokens` set to the fewest tokens found that meet its target."""
    kept_n = NodeLayout(evaluator.model.config).mask(circuit.nodes)
    kept_v = torch.ones(evaluator.model.vocab_size, dtype=torch.bool)
    zero = circuit.provenance.get("ablation") == "zero"

    def reading(kept_v: Tensor) -> CircuitEvaluator:
        return replace(evaluator, model=keep_tokens(evaluator.model, kept_v, zero))

    def misses(kept_v: Tensor, token_k: Tensor, index_k: Tensor) -> bool:
        fewer_v = kept_v.index_fill(0, token_k[index_k], False)
        return reading(fewer_v).select_loss(kept_n) > circuit.target

    for _ in range(rounds):
        token_k = kept_v.nonzero().flatten()
        effect_k = token_effects(reading(kept_v), kept_n, _frozen(evaluator.model, zero))[token_k]
        size, order_k = most_droppable(effect_k, partial(misses, kept_v, token_k))
        kept_v = kept_v.index_fill(0, token_k[order_k[:size]], False)
        if size in (0, len(order_k)):
            break
    calibration, select, test = reading(kept_v).scores(kept_n)
    tokens = tuple(kept_v.nonzero().flatten().tolist())
    found = PrunedTokens(tokens=tokens, calibration=calibration, select=select, test=test)
    return circuit.model_copy(update={"tokens": found})


def keep_tokens(model: Transformer, kept_v: Tensor, zero: bool = False) -> Transformer:
    """Return a copy of `model` in which the tokens outside `kept_v` have the mean embedding, or zero.

    A tied unembedding keeps its weights.
    """
    table_vd = torch.where(kept_v[:, None], model.embedding.weight.detach(), _frozen(model, zero))
    return _with_embedding(model, nn.Parameter(table_vd, requires_grad=False))


def token_effects(evaluator: CircuitEvaluator, kept_n: Tensor, frozen_d: Tensor) -> Tensor:
    """Return a first-order estimate of the rise in selection loss when each token is dropped (v).

    `frozen_d` is the embedding of a dropped token.
    """
    select, layout = evaluator.data.select, NodeLayout(evaluator.model.config)
    table_vd = nn.Parameter(evaluator.model.embedding.weight.detach().clone())
    model = _with_embedding(evaluator.compacted(kept_n), table_vd)
    logit_diff_b = logit_difference(model, select, ablate(layout, kept_n, evaluator.means_n))
    calibration = evaluator.calibration(logit_diff_b.detach())
    loss = two_way_loss(calibration.scale * logit_diff_b + calibration.shift, select.label_b)
    (slope_vd,) = torch.autograd.grad(loss, table_vd)
    return (slope_vd * (frozen_d - table_vd.detach())).sum(1)


def _frozen(model: Transformer, zero: bool) -> Tensor:
    weight_vd = model.embedding.weight.detach()
    return torch.zeros_like(weight_vd[0]) if zero else weight_vd.mean(0)


def _with_embedding(model: Transformer, table_vd: nn.Parameter) -> Transformer:
    embedding = copy.copy(model.embedding)
    embedding._parameters = {"weight": table_vd}
    return with_children(model, embedding=embedding)

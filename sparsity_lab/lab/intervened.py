"""A model that runs on text, possibly under interventions. Interventions chain; none changes the model.

Shape suffixes: b rows, t tokens, c channels of a site, v vocabulary, n all nodes.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from sparsity_lab.circuits.circuit import Circuit, Scores
from sparsity_lab.circuits.closing import close
from sparsity_lab.circuits.evaluator import IDENTITY, score
from sparsity_lab.circuits.nodes import NodeLayout
from sparsity_lab.core.errors import UserError
from sparsity_lab.data.tokenizer import Tokenizer
from sparsity_lab.evidence.circuit_under_test import activations
from sparsity_lab.lab.cache import Cache
from sparsity_lab.lab.interventions import (
    Intervention,
    Nodes,
    at_values,
    kept,
    node_mask,
    patched,
    resampled,
    site_slice,
)
from sparsity_lab.lab.questions import Question, Questions
from sparsity_lab.model.sites import Site, Tap
from sparsity_lab.model.taps import Record, chain
from sparsity_lab.model.transformer import Transformer
from sparsity_lab.stages.opened import Folder
from sparsity_lab.tasks.batch import TaskBatch, by_length

Text = str | Sequence[str] | Sequence[int] | Tensor
"""One text, several texts, or token ids: (t) for one text, (b, t) for several."""
By = Literal["mean", "zero", "resample"] | float | Tensor
ROWS = 64  # prompts that are scored together


@dataclass(frozen=True, kw_only=True, repr=False)
class Intervened:
    """The model of a folder and the interventions in force, in order. `questions` encodes pairs for it."""

    folder: Folder
    questions: Questions
    interventions: tuple[Intervention, ...] = ()
    closed: Transformer | None = None

    def __repr__(self) -> str:
        return f"{self.folder.path}, {len(self.interventions)} interventions"

    @property
    def model(self) -> Transformer:
        """The model that runs: the folder's, or its closed copy after `keep` of a closed circuit."""
        return self.folder.model if self.closed is None else self.closed

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer.

        Raises:
            UserError: the opened folder has none.
        """
        return self.questions.tokenizer

    @cached_property
    def layout(self) -> NodeLayout:
        """The flat order of the model's nodes."""
        return NodeLayout(self.model.config)

    @property
    def means(self) -> Tensor:
        """Mean of every node over validation text, in flat order (n).

        Raises:
            UserError: the opened folder has neither means nor text.
        """
        return self.folder.means_n

    def mean(self, site: str, layer: int) -> Tensor:
        """Mean of each channel of a site in one layer, (c).

        Raises:
            UserError: the model has no such site or layer.
        """
        return self.means[site_slice(self.layout, layer, site)]

    def mask(self, nodes: Nodes) -> Tensor:
        """Return a boolean vector over all nodes (n) that is true at `nodes`.

        Raises:
            UserError: a node is not in this model, or `nodes` is a circuit that was found in another model.
        """
        own, other = self.folder.model_hash, nodes.model_hash if isinstance(nodes, Circuit) else None
        if None not in (own, other) and own != other:
            raise UserError(
                f"circuit: found in a model of hash {other}; {self.folder.path} has {own}; to use its nodes "
                "here, pass circuit.nodes"
            )
        return node_mask(self.layout, nodes)

    def tokens(self, text: Text) -> Tensor:
        """Encode texts as int64 (b, t). Shorter texts are padded on the right with the end-of-text token.

        Raises:
            UserError: the text is empty, longer than n_ctx, or not of the shapes and values allowed.
        """
        allowed = "a string, a list of strings, or token ids"
        if isinstance(text, str):
            text = [text]
        if not isinstance(text, Sequence | Tensor):
            raise UserError(f"text: {type(text).__name__}: allowed: {allowed}")
        if isinstance(text, Tensor):
            if text.dim() not in (1, 2) or text.is_floating_point():
                raise UserError(f"text: a tensor {tuple(text.shape)}; allowed: integer ids, (t) or (b, t)")
            rows = text.reshape(-1, text.shape[-1]).tolist()
        elif text and all(isinstance(part, str) for part in text):
            rows = [self.tokenizer.encode(str(part)) for part in text]
        elif text and all(isinstance(part, int) for part in text):
            rows = [list(text)]
        else:
            raise UserError(f"text: allowed: {allowed}; for several rows of ids, a tensor (b, t)")
        self._check(rows)
        width = max(map(len, rows))
        if all(len(row) == width for row in rows):
            return torch.tensor(rows)
        end = self.tokenizer.end_of_text
        return torch.tensor([[*row, *[end] * (width - len(row))] for row in rows])

    def _check(self, rows: Sequence[Sequence[int]]) -> None:
        longest, n_ctx = max(map(len, rows), default=0), self.model.config.n_ctx
        if not min(map(len, rows), default=0):
            raise UserError("text: empty; at least one token is needed")
        if longest > n_ctx:
            raise UserError(f"text: {longest} tokens: too long; this model's n_ctx is {n_ctx}")
        wrong = [id for row in rows for id in row if not 0 <= id < self.model.vocab_size]
        if wrong:
            raise UserError(f"text: token id {wrong[0]}: allowed: 0 to {self.model.vocab_size - 1}")

    @torch.no_grad()
    def logits(self, text: Text) -> Tensor:
        """Compute next-token logits: (t, v) for one text, (b, t, v) for several.

        Raises:
            UserError: the text cannot be run; see `tokens`.
        """
        tokens_bt = self.tokens(text)
        logits_btv = self.model(tokens_bt, self._tap(tokens_bt))
        return logits_btv[0] if _is_one(text) else logits_btv

    @torch.no_grad()
    def cache(self, text: Text, sites: Collection[str] | str | None = None) -> Cache:
        """Run the model and return its activations at `sites`: one name, several, or all by default.

        Raises:
            UserError: the text cannot be run, or a site is unknown.
        """
        gated = self.model.config.gated_mlp
        there = [site.value for site in Site if gated or site is not Site.MLP_GATE]
        wanted = there if sites is None else [sites] if isinstance(sites, str) else list(sites)
        if unknown := [site for site in wanted if site not in there]:
            raise UserError(f"sites: {unknown[0]!r}: allowed: {', '.join(there)}")
        record = Record(frozenset(map(Site, wanted)))
        tokens_bt = self.tokens(text)
        logits_btv = self.model(tokens_bt, chain(self._tap(tokens_bt), record))
        values = {key: x[0] if _is_one(text) else x for key, x in record.values.items()}
        shown = [[self._shown(id) for id in row] for row in tokens_bt.tolist()]
        return Cache(
            values, logits_btv[0] if _is_one(text) else logits_btv, shown[0] if _is_one(text) else shown
        )

    def _shown(self, id: int) -> str:
        return str(id) if self.folder.tokenizer is None else self.folder.tokenizer.token(id)

    def next_tokens(self, text: str, k: int = 5) -> list[tuple[str, float]]:
        """Return the k most likely next tokens after `text`, with their probabilities.

        Raises:
            UserError: `text` is not one text or cannot be run, or `k` is less than 1.
        """
        if not isinstance(text, str):
            raise UserError("text: allowed: one string; logits takes several texts, and token ids")
        if k < 1:
            raise UserError(f"k: {k}: allowed: 1 or more")
        top = self.logits(text)[-1].softmax(-1).topk(min(k, self.model.vocab_size))
        return [(self._shown(int(id)), float(p)) for p, id in zip(*top, strict=True)]

    def ablate(self, nodes: Nodes, by: By = "mean", seed: int = 0) -> "Intervened":
        """Set `nodes` to fixed values at every position.

        `by`: "mean" (over validation text), "zero", a number, a tensor (n) over all nodes, or "resample": a
        row takes the whole model's values on a window of validation text, drawn by `seed` for each row.

        Raises:
            UserError: a node is not in the model, or `by` needs means or text that the folder lacks.
        """
        mask_n = self.mask(nodes)
        if isinstance(by, str) and by == "resample":
            text_wc = torch.cat(list(self.folder.text))
            return self._with(resampled(self.folder.model, self.layout, mask_n, text_wc, seed))
        return self._with(at_values(self.layout, mask_n, self._values(by)))

    def _values(self, by: By) -> Tensor:
        match by:
            case "mean":
                return self.means
            case "zero":
                return torch.zeros(self.layout.size)
            case bool() | str():
                pass
            case int() | float() if math.isfinite(by):
                return torch.full((self.layout.size,), float(by))
            case Tensor() if by.shape == (self.layout.size,) and bool(by.isfinite().all()):
                return by
        shown = f"a tensor {tuple(by.shape)}" if isinstance(by, Tensor) else repr(by)
        numbers = f"a finite number, or a tensor ({self.layout.size},) of them"
        raise UserError(f"by: {shown}: allowed: 'mean', 'zero', 'resample', {numbers}")

    def patch(self, nodes: Nodes, source: Text) -> "Intervened":
        """Set `nodes` to the values they have on `source`, position by position.

        Texts that are then run must have as many tokens as `source`.

        Raises:
            UserError: a node is not in the model, or `source` cannot be run.
        """
        mask_n = self.mask(nodes)
        tokens_bt = self.tokens(source)
        values_btn = activations(self.model, tokens_bt, self._tap(tokens_bt))
        return self._with(patched(self.layout, mask_n, values_btn))

    def keep(self, nodes: Nodes) -> "Intervened":
        """Freeze every node outside `nodes` at its mean; what is left is a circuit (§2.2).

        The others of a circuit are frozen as in its search. If it is closed, weights into them are zero too.

        Raises:
            UserError: a node is not in the model, or it is not known at what the others are frozen.
        """
        kept_n = self.mask(nodes)
        frozen_n = self.questions.frozen(nodes) if isinstance(nodes, Circuit) else self.means
        alone = self._with(kept(self.layout, kept_n, frozen_n))
        is_closed = isinstance(nodes, Circuit) and nodes.closed
        return replace(alone, closed=close(self.model, kept_n)) if is_closed else alone

    @torch.no_grad()
    def score(self, pairs: Question) -> Scores:
        """Return the loss (nats) and accuracy on pairs: a task's test pairs by name, or pairs of your own.

        Raises:
            UserError: the pairs cannot be asked of this model.
        """
        batch = self.questions.batch(pairs)
        return score(by_length(batch, ROWS, self._logit_difference), batch.label_b, IDENTITY)

    def _logit_difference(self, batch: TaskBatch) -> Tensor:
        """Logit of the first answer minus that of the second, (b). Taps see every position."""
        logits_btv = self.model(batch.tokens_bt, self._tap(batch.tokens_bt))
        logits_bv = logits_btv[torch.arange(len(batch.last_b)), batch.last_b]
        first_b, second_b = logits_bv.gather(1, batch.answers_b2).unbind(1)
        return first_b - second_b

    def _tap(self, tokens_bt: Tensor) -> Tap | None:
        made = [make(tokens_bt) for make in self.interventions]
        return chain(*made) if made else None

    def _with(self, intervention: Intervention) -> "Intervened":
        return Intervened(
            folder=self.folder,
            questions=self.questions,
            interventions=(*self.interventions, intervention),
            closed=self.closed,
        )


def _is_one(text: Text) -> bool:
    if isinstance(text, Tensor):
        return text.dim() == 1
    return isinstance(text, str) or (len(text) > 0 and isinstance(text[0], int))

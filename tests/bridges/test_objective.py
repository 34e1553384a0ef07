"""Training beside a frozen model: the terms of the loss, no pass too many, resumption, and the report."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import twelve_steps
from micro import SMALL, VOCABULARY, random_tokens, small_model, write_tokens_folder
from torch import Tensor
from torch.nn import functional as F
from twelve_steps import STEPS

from sparsity_lab.bridges.bridge import Bridge, nmse
from sparsity_lab.bridges.config import BridgeConfig, BridgeWeights
from sparsity_lab.bridges.objective import BridgeObjective, Teacher, make_bridge
from sparsity_lab.bridges.report import (
    mixed_pass,
    random_patterns,
    report_agreement,
    report_bridge,
)
from sparsity_lab.core import metrics
from sparsity_lab.core.config import validate
from sparsity_lab.core.errors import UserError
from sparsity_lab.data.datamodule import TokenDataModule
from sparsity_lab.model.sites import Site
from sparsity_lab.model.taps import with_residuals
from sparsity_lab.model.transformer import Transformer
from sparsity_lab.results.metrics_log import MetricsLog
from sparsity_lab.training.fit import fit
from sparsity_lab.training.module import LanguageModule, gradient_rms
from sparsity_lab.training.objective import cross_entropy
from sparsity_lab.training.sparsity import make_sparsifier
from sparsity_lab.training.sparsity.random_mask import Config as RandomMask
from sparsity_lab.training.sparsity.sparsifier import SparsifierConfig

CONFIG = twelve_steps.CONFIG.model_copy(update={"validations": 1})
SPARSE = twelve_steps.SPARSE.model_copy(update={"kept_fraction": 0.3})
RANDOM = RandomMask(kept_fraction=0.3, at_least=3)
BRIDGE = BridgeConfig(
    activation_fraction=0.5, learning_rate=0.02, weight_decay=0.0, weights=BridgeWeights(), boundaries=None
)
TERMS = [metric.name for metric in metrics.BRIDGING]


def new_objective(model: Transformer, **changes: Any) -> BridgeObjective:
    dense = small_model(5, d_model=8, d_mlp=12, activation_fraction=1.0)
    config = BRIDGE.model_copy(update=changes)
    return BridgeObjective(dense, make_bridge(dense, model, config), config, seed=3)


def new_module(
    seed: int = 0,
    cls: type[LanguageModule] = LanguageModule,
    steps: int = STEPS,
    sparsity: SparsifierConfig = SPARSE,
    **changes: Any,
) -> Any:
    torch.manual_seed(seed)
    model = Transformer(SMALL, VOCABULARY)
    sparsifier = make_sparsifier(sparsity, model, steps, 5)
    return cls(model, new_objective(model, **changes), sparsifier, CONFIG, steps)


def terms_of(module: Any, windows: Tensor, step: int = 0) -> tuple[Tensor, dict[str, Tensor]]:
    found: tuple[Tensor, dict[str, Tensor]] = module.objective(module.model, windows, step, None)
    return found


def train(module: LanguageModule, tokens: Path, folder: Path, **changes: Any) -> dict[str, float]:
    module.config = module.config.model_copy(update=changes)
    data = TokenDataModule(tokens, SMALL.n_ctx, 8, module.n_steps, 7, module.config.validation_windows)
    return fit(module, data, folder, [MetricsLog(folder)], "test")


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tokens_folder(tmp_path_factory.mktemp("tokens"))


def test_the_kl_is_torchs_and_so_is_its_gradient() -> None:
    generator = torch.Generator().manual_seed(0)
    dense_btv, logits_btv = (3 * torch.randn(2, 4, 7, generator=generator) for _ in range(2))
    gradients = []
    for own in (True, False):
        student = logits_btv.clone().requires_grad_()
        if own:
            loss = Teacher(dense_btv).kl(student)
        else:
            loss = F.kl_div(
                student.log_softmax(-1).flatten(0, 1),
                dense_btv.log_softmax(-1).flatten(0, 1),
                log_target=True,
                reduction="batchmean",
            )
        (3 * loss).backward()
        assert student.grad is not None
        gradients.append((loss.item(), student.grad))
    assert gradients[0][0] == pytest.approx(gradients[1][0], rel=1e-5)
    torch.testing.assert_close(gradients[0][1], gradients[1][1])
    assert Teacher(dense_btv).kl(dense_btv).item() == pytest.approx(0, abs=1e-6)


def test_the_loss_is_the_papers_sum() -> None:
    """Each hybrid pass computed the other way about: as a tap that puts the converted stream in its place."""
    module = new_module()
    windows = random_tokens(3, 9)
    tokens_bt = windows[:, :-1]
    dense_btv, dense = with_residuals(module.objective.dense, tokens_bt)
    sparse_btv, sparse = with_residuals(module.model, tokens_bt)

    def with_stream(model: Transformer, boundary: int, stream: Tensor) -> Tensor:
        return model(tokens_bt, lambda site, i, x: stream if (site, i) == (Site.RESID, boundary) else x)

    def kl(logits_btv: Tensor) -> float:
        ratio = dense_btv.log_softmax(-1) - logits_btv.log_softmax(-1)
        return (dense_btv.softmax(-1) * ratio).sum(-1).mean().item()

    expected = dict.fromkeys(TERMS, 0.0)
    for i in range(5):
        encoded, decoded = (
            module.objective.bridge.encode(i, dense[i]),
            module.objective.bridge.decode(i, sparse[i]),
        )
        parts = (
            nmse(encoded, sparse[i]).item(),
            nmse(decoded, dense[i]).item(),
            kl(with_stream(module.model, i, encoded)),
            kl(with_stream(module.objective.dense, i, decoded)),
        )
        expected = {name: expected[name] + part for name, part in zip(TERMS, parts, strict=True)}
    loss, terms = terms_of(module, windows)
    own = cross_entropy(sparse_btv, windows[:, 1:]).item()
    assert {name: value.item() for name, value in terms.items()} == pytest.approx(
        {metrics.TRAIN_LOSS.name: own} | expected, rel=1e-4
    )
    assert loss.item() == pytest.approx(own + sum(expected.values()), rel=1e-4)
    weights = BridgeWeights(cross_entropy=2.0, nmse=0.5, kl_into_sparse=3.0, kl_into_dense=0.0)
    module.objective.config = BRIDGE.model_copy(update={"weights": weights})
    weighted = 2 * own + 0.5 * (expected[TERMS[0]] + expected[TERMS[1]]) + 3 * expected[TERMS[2]]
    assert terms_of(module, windows)[0].item() == pytest.approx(weighted, rel=1e-4)


def test_a_step_computes_each_sublayer_as_often_as_the_sum_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    module = new_module()
    starts: list[tuple[bool, int | None]] = []
    plain = Transformer.forward

    def counted(self: Transformer, *args: Any, **kwargs: Any) -> Tensor:
        start = kwargs.get("start")
        starts.append((self is module.objective.dense, None if start is None else start[0]))
        return plain(self, *args, **kwargs)

    monkeypatch.setattr(Transformer, "forward", counted)
    terms_of(module, random_tokens(2, 9))
    for dense in (True, False):
        assert sorted(i if i is not None else -1 for which, i in starts if which is dense) == [-1, *range(5)]


def test_drawn_boundaries_give_the_sum_on_average_and_the_same_ones_each_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = new_module(boundaries=2)
    drawn = [module.objective.drawn(step) for step in range(500)]
    assert drawn == [module.objective.drawn(step) for step in range(500)]
    assert all(len(set(some)) == 2 and set(some) <= set(range(5)) for some in drawn)
    for i in range(5):
        assert sum(i in some for some in drawn) == pytest.approx(200, abs=50)
    windows = random_tokens(2, 9)
    steps = {tuple(some): step for step, some in enumerate(drawn)}  # every pair, and a step that draws it
    assert len(steps) == 10
    sums = []
    for step in steps.values():
        sums.append(torch.stack([terms_of(module, windows, step)[1][name] for name in TERMS]))
    _, terms = terms_of(new_module(), windows)
    torch.testing.assert_close(torch.stack(sums).mean(0), torch.stack([terms[name] for name in TERMS]))


def test_gradients_reach_the_sparse_model_and_the_bridge_alone_each_with_its_scale() -> None:
    module = new_module()
    loss, _ = terms_of(module, random_tokens(2, 9))
    loss.backward()
    assert all(parameter.grad is None for parameter in module.objective.dense.parameters())
    assert all(parameter.grad is not None for parameter in module.model.parameters())
    assert all(parameter.grad is not None for parameter in module.objective.bridge.parameters())
    module.scale_gradients()
    for part in (module.model, module.objective.bridge):
        assert gradient_rms(list(part.parameters())).item() == pytest.approx(1, rel=1e-5)


def test_training_mends_the_hybrid_passes_and_keeps_the_dense_model(tokens: Path, tmp_path: Path) -> None:
    steps = 60
    module = new_module(steps=steps)
    before = {name: tensor.clone() for name, tensor in module.objective.dense.state_dict().items()}
    windows = list(TokenDataModule(tokens, SMALL.n_ctx, 8, 1, 7, 16).val_dataloader())
    untrained = report_bridge(module.objective.dense, module.model, module.objective.bridge, windows, [])
    final = train(module, tokens, tmp_path, checkpoint_every=100)
    trained = report_bridge(module.objective.dense, module.model, module.objective.bridge, windows, [])
    assert all(
        torch.equal(before[name], tensor) for name, tensor in module.objective.dense.state_dict().items()
    )
    assert trained.dense == untrained.dense
    assert trained.sparse.loss == pytest.approx(final[metrics.VALIDATION_LOSS.name], rel=1e-5)
    for i in range(5):
        now, then = trained.boundaries[i], untrained.boundaries[i]
        assert now.into_sparse.kl < 0.9 * then.into_sparse.kl
        assert now.into_dense.kl < 0.9 * then.into_dense.kl
        assert now.nmse_decode < 0.9 * then.nmse_decode
    for weight, axis in module.model.sparse_weights().values():
        guarded = 0 if axis is None else weight.shape[axis] * min(3, weight.shape[1 - axis])
        assert weight.count_nonzero() == max(round(0.3 * weight.numel()), guarded)
    assert all(
        parameter.count_nonzero() > 0.9 * parameter.numel()
        for parameter in module.objective.bridge.parameters()
    )
    table = (tmp_path / "metrics.csv").read_text().splitlines()
    first = dict(zip(table[0].split(","), table[1].split(","), strict=True))
    assert all(float(first[name]) > 0 for name in TERMS)


def test_any_sparsity_method_can_be_bridged(tokens: Path, tmp_path: Path) -> None:
    module = new_module(sparsity=RANDOM, boundaries=2)
    masks = {name: weight != 0 for name, (weight, _) in module.model.sparse_weights().items()}
    bridge = [parameter.clone() for parameter in module.objective.bridge.parameters()]
    train(module, tokens, tmp_path)
    for name, (weight, _) in module.model.sparse_weights().items():
        if name.endswith("weight"):  # biases start at zero
            assert torch.equal(weight != 0, masks[name])
    trained = list(module.objective.bridge.parameters())
    assert not any(torch.equal(one, other) for one, other in zip(bridge, trained, strict=True))
    model_group, bridge_group = module.configure_optimizers()["lr_scheduler"]["scheduler"].lr_lambdas
    assert model_group(3) == pytest.approx(bridge_group(3) / 0.3**0.5)


class Interrupted(Exception):
    """A power cut."""


class StopsAt(LanguageModule):
    stop = -1

    def on_train_batch_start(self, batch: Tensor, index: int) -> None:
        if self.global_step == self.stop:
            raise Interrupted


@pytest.mark.parametrize("sparsity", [SPARSE, RANDOM], ids=lambda sparsity: sparsity.kind)
def test_an_interrupted_training_goes_on_to_the_same_bridge(
    tokens: Path, tmp_path: Path, sparsity: SparsifierConfig
) -> None:
    whole = new_module(boundaries=3, sparsity=sparsity)
    expected = train(whole, tokens, tmp_path / "whole")
    broken = new_module(cls=StopsAt, boundaries=3, sparsity=sparsity)
    broken.stop = 8
    with pytest.raises(Interrupted):
        train(broken, tokens, tmp_path / "broken")
    resumed = new_module(seed=99, boundaries=3, sparsity=sparsity)
    assert train(resumed, tokens, tmp_path / "broken") == expected
    one, other = whole.state_dict(), resumed.state_dict()
    assert {name.split(".")[0] for name in one} == {"model", "objective"}
    assert all(torch.equal(one[name], other[name]) for name in one)


def identical() -> tuple[Transformer, Bridge]:
    """A model beside itself, and the bridge that changes nothing."""
    model = small_model(activation_fraction=1.0)
    bridge = make_bridge(model, model, BRIDGE.model_copy(update={"activation_fraction": 1.0}))
    with torch.no_grad():
        for parameter in bridge.parameters():
            parameter.copy_(torch.eye(16) if parameter.dim() == 2 else torch.zeros(16))
    return model, bridge


def test_the_report_of_a_perfect_bridge() -> None:
    model, bridge = identical()
    patterns = random_patterns(5, 6, seed=0)
    report = report_bridge(model, model, bridge, [random_tokens(3, 9), random_tokens(1, 9, seed=1)], patterns)
    losses = torch.cat([_losses(model, random_tokens(3, 9)), _losses(model, random_tokens(1, 9, seed=1))])
    assert report.dense.loss == pytest.approx(losses.mean().item(), rel=1e-5)
    assert report.hybrid_excess == pytest.approx([0] * 10, abs=1e-5)
    assert list(report.mixed) == patterns
    assert report.mixed_excess == pytest.approx([0] * 6, abs=1e-5)
    assert all(b.nmse_encode < 1e-9 and b.nmse_decode < 1e-9 for b in report.boundaries)
    loss, kl = report_agreement(model, small_model(1, activation_fraction=1.0), [random_tokens(3, 9)])
    assert loss == pytest.approx(_losses(model, random_tokens(3, 9)).mean().item(), rel=1e-5)
    assert kl > 0.1
    assert report_agreement(model, model, [random_tokens(3, 9)])[1] == pytest.approx(0, abs=1e-6)


def _losses(model: Transformer, windows: Tensor) -> Tensor:
    return F.cross_entropy(model(windows[:, :-1]).transpose(1, 2), windows[:, 1:], reduction="none").mean(1)


@torch.no_grad()
def test_a_mixed_path_crosses_where_its_pattern_changes() -> None:
    module, tokens_bt = new_module(), random_tokens(2, 9)
    dense, sparse, bridge = module.objective.dense, module.model, module.objective.bridge
    assert torch.equal(mixed_pass(dense, sparse, bridge, tokens_bt, "ddddd"), dense(tokens_bt))
    assert torch.equal(mixed_pass(dense, sparse, bridge, tokens_bt, "sssss"), sparse(tokens_bt))
    dense_streams = with_residuals(dense, tokens_bt)[1]
    once = sparse(tokens_bt, start=(2, bridge.encode(2, dense_streams[2])))
    assert torch.equal(mixed_pass(dense, sparse, bridge, tokens_bt, "ddsss"), once)
    streams = with_residuals(sparse, tokens_bt, start=(2, bridge.encode(2, dense_streams[2])))[1]
    twice = dense(tokens_bt, start=(3, bridge.decode(3, streams[3])))
    assert torch.equal(mixed_pass(dense, sparse, bridge, tokens_bt, "ddsdd"), twice)


def test_random_patterns_change_sides_at_least_twice() -> None:
    patterns = random_patterns(5, 8, seed=0)
    assert patterns == random_patterns(5, 8, seed=0)
    assert len(set(patterns)) == 8
    assert all(len(p) == 5 and set(p) == {"d", "s"} and ("dsd" in p or "sds" in p or p) for p in patterns)
    assert all(p.replace("dd", "d").count("ds") + p.count("sd") >= 2 for p in patterns)
    assert len(random_patterns(3, 50, seed=0)) == 2  # dsd and sds


def test_what_cannot_be_bridged_is_told() -> None:
    model = small_model()
    with pytest.raises(UserError, match=r"model.n_layer: 2: the dense model to bridge to has 1"):
        make_bridge(small_model(n_layer=1), model, BRIDGE)
    with pytest.raises(UserError, match=r"vocabulary of 5, this one of 11"):
        make_bridge(Transformer(SMALL, 5), model, BRIDGE)
    with pytest.raises(UserError, match=r"bridge.boundaries: 6: there are 5"):
        make_bridge(model, model, BRIDGE.model_copy(update={"boundaries": 6}))
    with pytest.raises(UserError, match=r"activation_fraction: 0.0: must be above 0 and at most 1"):
        validate(BridgeConfig, BRIDGE.model_dump() | {"activation_fraction": 0.0}, "bridge")
    assert math.isclose(make_bridge(model, model, BRIDGE).shape.k, 8)

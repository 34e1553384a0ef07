"""S1, S2 and S3 for every sparsity method that is found, and resuming to the bit."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from micro import SMALL, write_tokens_folder
from torch import Tensor
from twelve_steps import CONFIG, DENSE, METHOD_FILE, SPARSE, STEPS, new_model, new_module, same, weights

from sparsity_lab.core.config import validate
from sparsity_lab.core.errors import UserError
from sparsity_lab.core.paths import UserPath
from sparsity_lab.data.datamodule import TokenDataModule
from sparsity_lab.model.transformer import Transformer
from sparsity_lab.training.fit import fit
from sparsity_lab.training.module import LanguageModule
from sparsity_lab.training.sparsity import METHODS, make_sparsifier
from sparsity_lab.training.sparsity.amortised import Config as Amortised
from sparsity_lab.training.sparsity.file import Config as FromFile
from sparsity_lab.training.sparsity.random_mask import Config as RandomMask
from sparsity_lab.training.sparsity.sparsifier import BudgetConfig, SparsifierConfig

EXAMPLES = {
    "none": DENSE,
    "magnitude": SPARSE,
    "random_mask": RandomMask(kept_fraction=0.2, at_least=3),
    "amortised": Amortised(
        kept_fraction=0.15, at_least=3, start=3.0, anneal_until=0.5, dense_every=3, candidates=0.5
    ),
    "file": FromFile(path=UserPath(METHOD_FILE), options={"share": 0.5, "at_step": 5}),
}
SPARSE_KINDS = [kind for kind, config in EXAMPLES.items() if config.is_sparse]
BUDGETS = [kind for kind, config in EXAMPLES.items() if isinstance(config, BudgetConfig)]


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tokens_folder(tmp_path_factory.mktemp("tokens"))


def train(module: LanguageModule, tokens: Path, folder: Path) -> dict[str, float]:
    data = TokenDataModule(tokens, SMALL.n_ctx, 8, module.n_steps, 7, 16)
    return fit(module, data, folder, [], "test")


class Interrupted(Exception):
    """A power cut."""


class Noted(LanguageModule):
    """Notes the sparse weights after every step, and stops before step `stop`.

    `moved` are the entries that have been nonzero at any projection until that step.
    """

    stop = -1

    def on_train_start(self) -> None:
        super().on_train_start()
        self.moved: dict[int, dict[str, Tensor]] = {}
        project = self.sparsifier.after_step

        def after_step(model: Transformer, step: int) -> None:
            earlier = self.moved.get(step - 1, {})
            now = {name: weight != 0 for name, weight in sparse_weights(model).items()}
            self.moved[step] = {name: moved | earlier.get(name, moved) for name, moved in now.items()}
            project(model, step)

        self.sparsifier.after_step = after_step  # type: ignore[method-assign]

    def on_train_batch_start(self, batch: Tensor, index: int) -> None:
        if self.global_step == self.stop:
            raise Interrupted

    def on_train_batch_end(self, *args: Any) -> None:
        self.after: dict[int, dict[str, Tensor]] = getattr(self, "after", {})
        self.after[self.global_step] = sparse_weights(self.model)


def sparse_weights(model: Transformer) -> dict[str, Tensor]:
    """A copy of the weights that sparsity applies to."""
    return {name: weight.detach().clone() for name, (weight, _) in model.sparse_weights().items()}


def test_every_method_has_an_example_here() -> None:
    assert sorted(EXAMPLES) == sorted(METHODS)


@pytest.mark.parametrize("kind", SPARSE_KINDS)
def test_s1_after_every_step_as_many_weights_are_nonzero_as_the_kept_fraction_says(
    tokens: Path, tmp_path: Path, kind: str
) -> None:
    module = new_module(EXAMPLES[kind], cls=Noted)
    train(module, tokens, tmp_path)
    assert sorted(module.after) == list(range(1, STEPS + 1))
    for step, found in module.after.items():
        kept = module.sparsifier.kept_fraction(step)
        assert 0 < kept <= 1
        for name, (weight, axis) in module.model.sparse_weights().items():
            at_least = 3 if kind in BUDGETS and axis is not None else 0
            guarded = 0 if axis is None else weight.shape[axis] * min(at_least, weight.shape[1 - axis])
            asked, count = max(round(kept * weight.numel()), guarded), found[name].count_nonzero()
            # a bias starts at zero, and an entry of it stays there until its neuron is among the active ones
            moved = module.moved[step][name]
            if kind == "random_mask":
                moved = moved & module.sparsifier.masks[name]
            assert count == min(asked, moved.count_nonzero()), (step, name)
            if weight.dim() == 2:
                assert count == asked, (step, name)


@pytest.mark.parametrize("kind", EXAMPLES)
def test_s2_a_second_time_changes_nothing_and_no_weight_is_revived_or_changed(kind: str) -> None:
    model = new_model()
    sparsifier = make_sparsifier(EXAMPLES[kind], model, STEPS, 0)
    for step in range(1, STEPS + 1):
        torch.manual_seed(step)
        with torch.no_grad():
            for weight, _ in model.sparse_weights().values():
                weight.add_(torch.randn_like(weight))
        before = sparse_weights(model)
        sparsifier.after_step(model, step)
        once = sparse_weights(model)
        for name, weight in once.items():
            assert torch.equal(weight[weight != 0], before[name][weight != 0])
        sparsifier.after_step(model, step)
        assert same(once, sparse_weights(model))
    assert all((weight == 0).any() for weight in once.values()) == EXAMPLES[kind].is_sparse


@pytest.mark.parametrize("kind", ["none", *BUDGETS])
def test_s3_at_kept_fraction_1_a_method_trains_as_none_does(tokens: Path, tmp_path: Path, kind: str) -> None:
    whole = {"kept_fraction": 1.0} if kind in BUDGETS else {}
    module, dense = new_module(EXAMPLES[kind].model_copy(update=whole)), new_module(DENSE)
    assert train(module, tokens, tmp_path / "a") == train(dense, tokens, tmp_path / "b")
    assert same(weights(module), weights(dense))
    assert not same(weights(module), new_model().state_dict())


@pytest.mark.parametrize("kind", [kind for kind in SPARSE_KINDS if kind != "magnitude"])  # it is in test_fit
def test_an_interrupted_training_goes_on_to_the_same_weights(tokens: Path, tmp_path: Path, kind: str) -> None:
    config = CONFIG.model_copy(update={"checkpoint_every": 6})
    whole, broken = (new_module(EXAMPLES[kind], config, cls=Noted) for _ in range(2))
    expected = train(whole, tokens, tmp_path / "whole")
    broken.stop = 8
    with pytest.raises(Interrupted):
        train(broken, tokens, tmp_path / "broken")
    resumed = new_module(EXAMPLES[kind], config, cls=Noted, model=new_model(99))  # the checkpoint decides
    assert train(resumed, tokens, tmp_path / "broken") == expected
    assert sorted(resumed.after) == list(range(7, STEPS + 1))
    assert same(weights(resumed), weights(whole))


def test_a_random_mask_is_fixed_by_the_seed_and_looks_at_no_weight() -> None:
    config = EXAMPLES["random_mask"]
    models = [new_model(seed) for seed in (0, 1, 2)]
    masks = [
        make_sparsifier(config, model, STEPS, seed).masks  # type: ignore[attr-defined]
        for model, seed in zip(models, (5, 5, 6), strict=True)
    ]
    assert same(masks[0], masks[1])
    assert not any(
        torch.equal(mask, masks[2][name]) for name, mask in masks[0].items() if name.endswith("weight")
    )
    for name, (weight, axis) in models[0].sparse_weights().items():
        assert not weight[~masks[0][name]].any()  # from the start
        if axis is not None:
            assert (masks[0][name].sum(1 - axis) >= 3).all()


@pytest.mark.parametrize("kind", BUDGETS)
def test_a_budget_is_told_once_whatever_the_method(kind: str) -> None:
    cls = METHODS[kind].Config
    for values, told in (
        ({}, f"sparsity: {kind}: give either kept_fraction or nonzeros; the other must be null"),
        ({"nonzeros": 5, "kept_fraction": 0.5}, f"sparsity: {kind}: give either kept_fraction or nonzeros"),
        ({"kept_fraction": 0.0}, "sparsity.kept_fraction: 0.0: must be above 0 and at most 1"),
        ({"kept_fraction": 1.1}, "sparsity.kept_fraction: 1.1: must be above 0 and at most 1"),
        ({"nonzeros": 0}, "sparsity.nonzeros: 0: input should be greater than 0"),
    ):
        with pytest.raises(UserError) as caught:
            validate(cls, values, "sparsity")
        assert str(caught.value).startswith(told)
    with pytest.raises(UserError, match=r"^sparsity.nonzeros: 1000000: this model has \d+ weights$"):
        make_sparsifier(cls(nonzeros=1_000_000), new_model(), STEPS, 0)


def test_the_annealing_ends_within_the_training() -> None:
    with pytest.raises(UserError, match=r"^sparsity.anneal_until: 2.0: must lie between 0 and 1$"):
        validate(METHODS["magnitude"].Config, {"nonzeros": 5, "anneal_until": 2.0}, "sparsity")


def test_kept_fraction_and_nonzeros_name_the_run_and_what_makes_the_weights_is_in_the_identity() -> None:
    labels: list[SparsifierConfig] = [SPARSE, METHODS["magnitude"].Config(nonzeros=700), *EXAMPLES.values()]
    assert [config.label for config in labels[:4]] == ["0.2", "n700", "", "0.2"]
    identities = [str(config.identity()) for config in EXAMPLES.values()]
    assert len(set(identities)) == len(EXAMPLES)
    assert EXAMPLES["magnitude"].identity() == SPARSE.model_dump(mode="json")


def test_configs_are_read_without_torch() -> None:
    modules = "sparsity_lab.training.config, sparsity_lab.training.sparsity, sparsity_lab.bridges.config"
    slow = "{'torch', 'lightning', 'numba', 'pandas'}"
    code = f"import sys, {modules}; sys.exit(bool({slow} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("kind", BUDGETS)
def test_the_other_parts_stay_dense(tokens: Path, tmp_path: Path, kind: str) -> None:
    config = EXAMPLES[kind].model_copy(update={"matrices": ("blocks", "unembedding")})
    module = new_module(config)
    train(module, tokens, tmp_path)
    sparse, all_weights = config.weights(module.model), sparse_weights(module.model)
    assert {name.partition(".")[0] for name in sparse} == {"blocks", "unembedding"}
    for name, weight in all_weights.items():
        assert bool((weight == 0).any()) is (name in sparse), name
    assert module.sparsifier.kept_fraction(STEPS) < 1


@pytest.mark.parametrize("kind", BUDGETS)
def test_a_number_of_nonzeros_counts_the_sparse_parts_alone(kind: str) -> None:
    model = new_model()
    embedding = model.embedding.weight.numel()
    config = METHODS[kind].Config(nonzeros=embedding // 2, matrices=("embedding",))
    assert make_sparsifier(config, model, STEPS, 0).kept_fraction(STEPS) == pytest.approx(0.5, abs=0.01)
    with pytest.raises(UserError, match=rf"^sparsity.nonzeros: {embedding + 1}: this model has {embedding} "):
        make_sparsifier(config.model_copy(update={"nonzeros": embedding + 1}), model, STEPS, 0)
    assert "matrices" in config.identity()
    everything = METHODS[kind].Config(nonzeros=5)
    assert "matrices" not in everything.identity()  # models of the time before this setting are found again
    assert validate(METHODS[kind].Config, config.model_dump(mode="json")) == config


@pytest.mark.parametrize("written", [[], ["blocks", "blocks"], ["mlp"]])
def test_wrong_parts_are_told_in_one_line(written: list[str]) -> None:
    with pytest.raises(UserError, match=r"^sparsity.matrices.*blocks") as caught:
        validate(METHODS["magnitude"].Config, {"nonzeros": 5, "matrices": written}, "sparsity")
    assert "\n" not in str(caught.value)


def test_the_weights_of_each_part_are_counted_without_making_them() -> None:
    model = new_model()
    for part, count in SMALL.weight_counts(model.vocab_size).items():
        config = BudgetConfig(nonzeros=5, matrices=(part,))
        assert count == sum(weight.numel() for weight, _ in config.weights(model).values()), part

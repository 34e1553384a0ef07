"""Every file under conf/ and every point of every sweep composes and validates; mistakes are told."""

import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException, MissingConfigException
from omegaconf import OmegaConf
from twelve_steps import METHOD_FILE

from sparsity_lab.config import RunConfig, from_hydra
from sparsity_lab.core.errors import UserError
from sparsity_lab.model.config import ModelConfig
from sparsity_lab.sweep.composed import sweep_overrides
from sparsity_lab.sweep.optuna_study import distribution
from sparsity_lab.sweep.sweeper import folder_of, grid_jobs, register_sweeper, register_sweeps
from sparsity_lab.training.sparsity import METHODS

CONF = folder_of("conf")

OPTIONS = sorted((path.parent.name, path.stem) for path in CONF.glob("*/*.yaml"))
SWEEP_FILES = sorted(folder_of("sweeps").glob("*.yaml"))
FINDER_FILE = folder_of("conf").parent / "tests" / "own_finder.py"
NEEDED = {
    ("corpus", "folder"): ["corpus.path=texts"],
    ("corpus", "huggingface"): ["corpus.name=some/dataset"],
    ("tokenizer", "files"): ["tokenizer.vocab_bpe=a.bpe", "tokenizer.encoder_json=a.json"],
    ("tokenizer", "folder"): ["tokenizer.path=somewhere"],
    ("model", "released"): ["model.path=somewhere", "sparsity=none"],
    ("model", "gpt2"): ["model.path=somewhere", "sparsity=none"],
    ("model", "llama"): ["model.path=somewhere", "sparsity=none"],
    ("experiment", "released"): ["model.path=somewhere"],
    ("experiment", "gpt2"): ["model.path=somewhere"],
    ("experiment", "llama"): ["model.path=somewhere"],
    ("sparsity", "none"): ["model=dense"],
    ("sparsity", "file"): [f"sparsity.path={METHOD_FILE}", "sparsity.options={share: 0.5}"],
    ("finder", "file"): [f"finder.path={FINDER_FILE}"],
    ("reference", "folder"): ["reference.folder=models/some"],
    ("reference", "gpt2"): ["reference.model.path=somewhere"],
    ("reference", "llama"): ["reference.model.path=somewhere"],
    ("reference", "released"): ["reference.model.path=somewhere"],
    ("bridge", "default"): ["reference=trained"],
    ("steering", "default"): ["reference=trained", "bridge=default"],
}

register_sweeps()
register_sweeper()


@pytest.fixture(autouse=True)
def _hydra() -> Iterator[None]:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield


def config_of(overrides: Sequence[str]) -> RunConfig:
    return from_hydra(compose("config", list(overrides)))


def job_of(overrides: Sequence[str]) -> RunConfig:
    """The config of a sweep's job. Jobs that differ in their seed alone are composed once."""
    seeds = [int(override.removeprefix("seed=")) for override in overrides if override.startswith("seed=")]
    config = _without_seed(tuple(override for override in overrides if not override.startswith("seed=")))
    return config.model_copy(update={"seed": seeds[-1]}) if seeds else config


@cache
def _without_seed(overrides: tuple[str, ...]) -> RunConfig:
    return config_of(overrides)


def told(*overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        config_of(overrides)
    return str(caught.value)


def sweep_points(path: Path) -> tuple[list[list[str]], list[list[str]]]:
    """The overrides of a sweep's trials and jobs."""
    return sweep_overrides([f"+sweep={path.stem}"])


def test_the_defaults_compose_and_name_every_field() -> None:
    config = config_of([])
    composed = OmegaConf.to_container(compose("config"))
    assert isinstance(composed, dict)
    optional = {"reference", "bridge", "steering"}
    assert (set(composed) - {"experiment"}) | optional == set(RunConfig.model_fields)
    assert isinstance(config.model, ModelConfig)
    assert config.model.n_layer >= 2
    assert str(config.root) == "runs"


@pytest.mark.parametrize(
    ("written", "kernels"), [("on", "on"), ("true", "on"), ("off", "off"), ("false", "off")]
)
def test_a_bare_on_or_off_of_yaml_is_the_word(written: str, kernels: str) -> None:
    assert config_of([f"kernels={written}"]).kernels == kernels


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_composes_and_validates(group: str, option: str) -> None:
    config = config_of([f"{group}={option}", *NEEDED.get((group, option), [])])
    assert config.name
    if group in ("corpus", "tokenizer", "sparsity", "logger"):
        assert getattr(config, group).kind == option.removesuffix("_quick")


@pytest.mark.parametrize(
    ("group", "option"),
    [pair for pair in sorted(NEEDED) if pair[0] in ("corpus", "tokenizer", "reference", "finder")],
)
def test_values_that_must_be_given_are_asked_for_by_name(group: str, option: str) -> None:
    keys = [value.partition("=")[0] for value in NEEDED[group, option] if value != "sparsity=none"]
    assert told(f"{group}={option}").splitlines() == sorted(f"{key}: missing" for key in keys)


@pytest.mark.parametrize(
    ("launcher", "plugin"),
    [("slurm", "submitit"), ("slurm_gpu", "submitit"), ("ray_cluster", "ray")],
)
def test_every_launcher_composes_on_its_plugin(launcher: str, plugin: str) -> None:
    pytest.importorskip(f"hydra_plugins.hydra_{plugin}_launcher")
    composed = compose("config", [f"hydra/launcher={launcher}"], return_hydra_config=True)
    assert f"hydra_{plugin}_launcher" in composed.hydra.launcher._target_
    if plugin == "submitit":
        assert composed.hydra.launcher.mem_gb
        assert composed.hydra.launcher.cpus_per_task


@pytest.mark.parametrize(
    "corpus",
    [
        ["corpus=folder", "corpus.path=texts"],
        ["corpus=huggingface", "corpus.name=some/dataset"],
        ["corpus=python_source"],
        ["corpus=tinypython", "corpus.megabytes=1"],
    ],
)
def test_every_experiment_composes_with_another_corpus(corpus: list[str]) -> None:
    for path in sorted(CONF.glob("experiment/*.yaml")):
        needed = NEEDED.get(("experiment", path.stem), [])
        config = config_of([f"experiment={path.stem}", *needed, *corpus])
        assert config.corpus.kind == corpus[0].partition("=")[2]


def test_there_are_sweeps() -> None:
    assert SWEEP_FILES


@pytest.mark.parametrize("path", SWEEP_FILES, ids=lambda path: path.stem)
def test_every_point_of_every_sweep_composes_and_validates(path: Path) -> None:
    trials, points = sweep_points(path)
    configs = [job_of(point) for point in points]
    assert len(configs) > 1
    assert len({config.model_dump_json() for config in configs}) == len(configs), (
        "two points are the same run"
    )
    assert {config.sweep_name for config in configs} == {path.stem}
    assert all(config.model.n_ctx >= 2 for config in configs)
    tried = [job_of(trial) for trial in trials]
    assert not {config.seed for config in tried} & {config.seed for config in configs}
    assert {config.sweep_name for config in tried} <= {f"{path.stem}_rates"}


def study() -> list[RunConfig]:
    return [job_of(job) for job in sweep_overrides(["+sweep=frontier"])[1]]


def test_any_beginning_of_the_study_is_a_study() -> None:
    """One seed of all models first, and the widest models' other seeds last."""
    configs = study()
    models = len(configs) // 3
    assert [config.seed for config in configs[:models]] == [0] * models
    assert {config.name for config in configs[:models]} == {config.name for config in configs}
    widest = [index for index, config in enumerate(configs) if "d1024" in config.name and config.seed > 0]
    assert widest == list(range(len(configs) - len(widest), len(configs)))
    for name in {config.name for config in configs}:
        assert sorted(config.seed for config in configs if config.name == name) == [0, 1, 2]


def test_the_study_has_the_widths_numbers_and_methods_that_it_needs() -> None:
    configs = study()
    numbers: dict[int, set[int]] = {}
    methods: dict[tuple[int, int], set[str]] = {}
    for config in configs:
        assert isinstance(config.model, ModelConfig)
        assert config.trainer.tokens >= 10_000_000
        if config.sparsity.is_sparse:
            nonzeros: Any = getattr(config.sparsity, "nonzeros", None)
            numbers.setdefault(config.model.d_model, set()).add(nonzeros)
            methods.setdefault((config.model.d_model, nonzeros), set()).add(config.sparsity.kind)
    assert sorted(numbers) == [128, 256, 512, 1024]
    assert all(len(found) >= 5 for found in numbers.values())
    assert sum(len(found) == 2 for found in methods.values()) == 2
    dense = {config.model.d_model for config in configs if not config.sparsity.is_sparse}  # type: ignore[union-attr]
    assert (min(dense), max(dense)) == (16, 256)


@pytest.mark.parametrize("path", SWEEP_FILES, ids=lambda path: path.stem)
def test_every_search_draws_what_the_config_takes(path: Path) -> None:
    composed = compose("config", [f"+sweep={path.stem}"], return_hydra_config=True)
    search = composed.hydra.sweeper.search
    for key, text in {} if search is None else search.space.items():
        drawn: Any = distribution(key, text)
        ends = getattr(drawn, "choices", None) or (drawn.low, drawn.high)
        assert len({config_of([f"+sweep={path.stem}", f"{key}={end}"]).model_dump_json() for end in ends}) > 1


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["+model.depth=3"], r"^model.depth: unknown key; allowed: kind, n_layer, d_model"),
        (["+colour=red"], r"^colour: unknown key; allowed: seed, root"),
        (["+corpus.size=3"], r"^corpus.size: unknown key; allowed: .*megabytes"),
        (
            ["model=released", "model.path=x"],
            r"^config: sparsity: an imported model is taken as it is; allowed: sparsity=none",
        ),
        (["model.kind=gpt3"], r"^model: .*gpt3.*'transformer', 'released', 'gpt2', 'llama'"),
        (["model.n_layer=two"], r"^model.n_layer: 'two': input should be a valid integer$"),
        (["model.n_layer=2.5"], r"^model.n_layer: 2.5: input should be a valid integer"),
        (["model.d_model=100"], r"^model: d_model 100 must be a multiple of d_head 16"),
        (["trainer.learning_rate=-1"], r"^trainer.learning_rate: -1: input should be greater than 0$"),
        (["trainer.gradient=scale"], r"^trainer.gradient: 'scale': input should be 'normalise' or 'clip'$"),
        (
            ["sparsity.nonzeros=100000000"],
            r"^sparsity.nonzeros: 100000000: this model has \d+ weights$",
        ),
        (["sparsity.kept_fraction=0.1"], r"^sparsity: magnitude: give either kept_fraction or nonzeros; the"),
        (
            ["sparsity=none", "+sparsity.nonzeros=5"],
            r"^sparsity.nonzeros: unknown key; allowed: kind$",
        ),
        (["sparsity=random_mask", "+sparsity.anneal_until=0.5"], r"^sparsity.anneal_until: unknown key"),
        (["sparsity.kind=sparse"], r"^sparsity.kind=sparse is now sparsity.kind=magnitude$"),
        (["sparsity.kind=spars"], r"^sparsity: .*'spars'.*'file', 'magnitude', 'none', 'random_mask'$"),
        (["sparsity.at_least=-1"], r"^sparsity.at_least: -1: input should be greater than or equal to 0$"),
        (["sparsity=file", "sparsity.path=nowhere.py"], r"^sparsity.path: .*nowhere.py: No such file"),
        (
            ["sparsity=file", f"sparsity.path={METHOD_FILE}", "sparsity.options={share: 0.5, at: 1}"],
            r"^sparsity.options.at: unknown key; allowed: kind, share, at_step$",
        ),
        (
            ["reference=trained", "bridge=default", "sparsity=none", "model=dense"],
            r"^config: bridge needs a sparse model; allowed: sparsity=amortised, sparsity=file, sparsity=mag",
        ),
        (
            ["tasks.names=[with_as,with_ass]"],
            r"^tasks.names: .*unknown or no task \['with_ass'\]; allowed: all, or some of",
        ),
        (["pruning.targets=[0.3,0.1]"], r"^pruning.targets: .*ascending"),
        (["pruning.relative_targets=[0.3,0.1]"], r"^pruning.relative_targets: .*ascending"),
        (["pruning.edges=some"], r"^pruning.edges: 'some': input should be 'all' or 'prune'$"),
        (["+pruning.masks.steps=60"], r"pruning.masks.steps is now finder.steps$"),
        (["+pruning.method=gradient"], r"^pruning.method=gradient is now finder=gradient$"),
        (["finder.steps=0"], r"^finder.steps: 0: input should be greater than 0"),
        (["finder.beta2=1"], r"^finder.beta2: 1: input should be less than 1$"),
        (["+finder.colour=1"], r"^finder.colour: unknown key; allowed: kind, steps, pairs"),
        (["finder=gradient", "finder.slope=x"], r"^finder.slope: 'x': input should be 'gradient' or"),
        (["finder.kind=mask"], r"^finder: .*mask.*'attribution', 'file', 'masks'"),
        (["finder=file", "finder.path=nowhere.py"], r"^finder.path: .*nowhere.py: No such file"),
        (
            ["finder=file", f"finder.path={FINDER_FILE}", "finder.options={colour: 1}"],
            r"^finder.options.colour: unknown key; allowed: kind, ahead, tries$",
        ),
        (
            ["bridge=default"],
            r"^config: bridge needs a reference model: reference=trained or reference=folder$",
        ),
        (
            ["trainer.start=reference"],
            r"^config: trainer.start reference needs a reference model: reference=trained",
        ),
        (["steering=default"], r"^config: steering needs a bridge: bridge=default$"),
        (["reference=trained", "reference.folder=x"], r"^reference: give either folder or model$"),
        (
            ["reference=trained", "reference.model.d_model=20"],
            r"^reference.model: d_model 20 must be a multiple of",
        ),
        (["seed=-1"], r"^seed: -1: input should be greater than or equal to 0"),
        (["corpus.kind=tinypithon"], r"^corpus: .*tinypithon.*'tinypython'"),
        (["trainer.tokens=${nothing}"], r"^trainer.tokens: Interpolation key 'nothing' not found"),
        (
            ["snapshots.fractions=[0.5]"],
            r"^snapshots.fractions: \[0.5\]: must be fractions of training above 0, ascending",
        ),
        (
            ["snapshots.fractions=[0.5,0.25,1.0]"],
            r"^snapshots.fractions: .*ascending, each once, the last of them 1$",
        ),
        (["snapshots.fractions=[0.0,1.0]"], r"^snapshots.fractions: .*above 0"),
        (
            ["model=released", "model.path=x", "sparsity=none", "snapshots.fractions=[0.5,1.0]"],
            r"^config: snapshots.fractions: kind released is not trained; allowed: \[1.0\]$",
        ),
        (["threads=0"], r"^threads: 0: input should be greater than 0"),
        (["kernels=maybe"], r"^kernels: 'maybe': input should be 'on' or 'off'"),
    ],
)
def test_a_wrong_value_is_one_line_with_key_and_what_is_allowed(overrides: list[str], expected: str) -> None:
    message = told(*overrides)
    assert re.search(expected, message), message
    assert "\n" not in message


def test_every_mistake_has_its_own_line() -> None:
    lines = told("model.n_layer=0", "trainer.tokens=x", "+tasks.colour=1").splitlines()
    assert [line.partition(":")[0] for line in lines] == ["model.n_layer", "trainer.tokens", "tasks.colour"]


def test_a_mistyped_group_option_or_sweep_lists_what_there_is() -> None:
    for override, known in (("model=sparce", "sparse"), ("experiment=smok", "smoke")):
        with pytest.raises(MissingConfigException, match=rf"(?s)Available options.*\b{known}\b"):
            compose("config", [override])
    with pytest.raises(HydraException) as caught:
        compose("config", ["+sweep=widht"])
    assert all(path.stem in str(caught.value) for path in SWEEP_FILES)


def test_grids_multiply_by_themselves_and_the_command_line_goes_into_all() -> None:
    grids = [{"a": "1,2", "b": "x"}, {"a": "3", "c": "p,q"}]
    assert grid_jobs(grids, ["d=0,1"]) == [
        ["a=1", "b=x", "d=0"],
        ["a=1", "b=x", "d=1"],
        ["a=2", "b=x", "d=0"],
        ["a=2", "b=x", "d=1"],
        ["a=3", "c=p", "d=0"],
        ["a=3", "c=p", "d=1"],
        ["a=3", "c=q", "d=0"],
        ["a=3", "c=q", "d=1"],
    ]
    assert grid_jobs([], ["d=0,1"]) == [["d=0"], ["d=1"]]
    assert grid_jobs([{"tasks.names": "[a,b]"}], []) == [["tasks.names=[a,b]"]]


def test_a_runs_name_says_kind_width_depth_and_weights() -> None:
    assert config_of(["model.d_model=128", "sparsity.nonzeros=5000"]).name == "sparse-d128-l2-n5000"
    share = config_of(["sparsity.nonzeros=null", "sparsity.kept_fraction=0.05"])
    assert share.name == "sparse-d256-l2-0.05"
    assert config_of(["model=dense", "sparsity=none"]).name == "dense-d64-l2"
    assert config_of(["sparsity=random_mask"]).name == "sparse-d256-l2-random-n100000"
    from_file = ["sparsity=file", f"sparsity.path={METHOD_FILE}", "sparsity.options={share: 0.5}"]
    assert config_of(from_file).name == "sparse-d256-l2-one_shot-one_shot"
    assert config_of([*from_file, "reference=trained", "bridge=default"]).kind == "bridged"


def test_an_imported_models_name_is_one_folder(tmp_path: Path) -> None:
    for folder, name in (("gpt 2/", "gpt_2"), ("m/../my-model", "my-model"), ("a/\u2028", "_")):
        imported = ["model=gpt2", f'model.path="{tmp_path}/{folder}"', "sparsity=none"]
        assert config_of(imported).name == f"gpt2-{name}"


def test_every_sparsity_method_has_its_option() -> None:
    options = {option for group, option in OPTIONS if group == "sparsity"}
    assert options == {*METHODS, "magnitude_quick", "amortised_quick"}  # the methods with other values
    for kind, method in METHODS.items():
        written = set(OmegaConf.to_container(OmegaConf.load(CONF / "sparsity" / f"{kind}.yaml")))  # type: ignore[arg-type]
        assert written == set(method.Config.model_fields)

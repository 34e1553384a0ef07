"""The config of a run's reference model, and what a run with one may ask."""

import pytest
from hydra import compose, initialize_config_dir

from sparsity_lab.config import RunConfig, from_hydra
from sparsity_lab.core.errors import UserError
from sparsity_lab.stages.reference import reference_config
from sparsity_lab.sweep.sweeper import folder_of, register_sweeper

register_sweeper()


def config_of(*overrides: str) -> RunConfig:
    with initialize_config_dir(str(folder_of("conf")), version_base="1.3"):
        return from_hydra(compose("config", list(overrides)))


def test_the_reference_models_config_is_a_whole_runs() -> None:
    config = config_of(
        "reference=trained", "bridge=default", "reference.model.d_model=64", "snapshots.fractions=[0.5,1.0]"
    )
    reference = reference_config(config)
    assert reference is not None
    assert config.reference is not None
    assert (reference.model, reference.trainer) == (config.reference.model, config.reference.trainer)
    assert reference.name == "dense-d64-l2"
    assert (reference.reference, reference.bridge, reference.snapshots.before_the_end) == (None, None, ())
    assert reference.corpus == config.corpus
    assert RunConfig.model_validate(reference.model_dump()) == reference


def test_it_is_validated_and_told_as_the_part_that_it_comes_from() -> None:
    config = config_of("reference=trained")
    assert config.reference is not None
    wrong = config.reference.model_copy(
        update={"trainer": config.trainer.model_copy(update={"start": "reference"})}
    )
    with pytest.raises(UserError, match=r"^reference: .*trainer\.start reference needs a reference model"):
        reference_config(config.model_copy(update={"reference": wrong}))


def test_a_run_without_one_or_with_a_folder_trains_none() -> None:
    assert reference_config(config_of()) is None
    assert reference_config(config_of("reference=folder", "reference.folder=somewhere")) is None


def test_only_tasks_that_there_are_can_be_steered() -> None:
    bridged = ["reference=trained", "bridge=default", "steering=default"]
    with pytest.raises(UserError, match=r"steering\.tasks: unknown task \['nothing'\]; allowed: .*with_as"):
        config_of(*bridged, "steering.tasks=[nothing]")
    assert config_of(*bridged, "steering.tasks=[with_as]").steering is not None

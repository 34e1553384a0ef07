"""The program, as Hydra starts it; what it does is in `pipeline`, imported only when there is work.

python -m sparsity_lab.run experiment=smoke
python -m sparsity_lab.run +sweep=width_l0 -m
"""

import logging
import sys

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from sparsity_lab.base import UserError
from sparsity_lab.sweeper import folder_of, register_sweeper, register_sweeps

log = logging.getLogger(__name__)

register_sweeps()
register_sweeper()


@hydra.main(version_base="1.3", config_path=str(folder_of("conf")), config_name="config")
def main(config: DictConfig) -> None:
    """Run one point. A failure is told at once, with the point's overrides; other points go on running."""
    from sparsity_lab.config import from_hydra
    from sparsity_lab.pipeline import run

    hydra_config = HydraConfig.get()
    overrides = list(hydra_config.overrides.task)
    try:
        run(from_hydra(config), overrides)
    except Exception as error:
        expected = isinstance(error, UserError)
        log.error("failed: %s\n%s", " ".join(overrides), error, exc_info=None if expected else error)
        if hydra_config.mode == RunMode.RUN:
            sys.exit(1)
        raise RuntimeError(f"{' '.join(overrides)}: {error}") from None  # plain: it must cross processes


if __name__ == "__main__":
    main()

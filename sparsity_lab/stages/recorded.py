"""Records that stand for jobs: a job is done where `config.records` has the record of the same result.

The hash of a result covers:
1. the config, without what only says where and how fast to compute;
2. the version of every stage that the record depends on; without evidence, its version does not count;
3. the text, the pairs and the files that the config names, by content;
4. the number format that training uses here.
Packages whose source is part of the text, such as the standard library, count by name and version, since
their files differ a little between distributions. Nothing else of the machine counts.
"""

import logging
from functools import lru_cache
from pathlib import Path
from typing import Any

from sparsity_lab.config import RunConfig
from sparsity_lab.core.config import validate
from sparsity_lab.core.errors import UserError
from sparsity_lab.core.hashing import content_hash
from sparsity_lab.core.run_folder import RunFolder
from sparsity_lab.data.corpora import CorpusConfig
from sparsity_lab.data.prepare import CORPUS_VERSION, TOKENS_VERSION
from sparsity_lab.data.tokenizers import identity
from sparsity_lab.results.record import RunRecord, read_record
from sparsity_lab.results.recorded import keep_record, record_file
from sparsity_lab.stages.baselines import BASELINES_VERSION
from sparsity_lab.stages.circuits import CIRCUITS_VERSION
from sparsity_lab.stages.evidence import EVIDENCE_VERSION
from sparsity_lab.stages.model import MODEL_VERSION, NOT_INPUTS
from sparsity_lab.stages.shortcuts import SHORTCUTS_VERSION
from sparsity_lab.stages.validation import VALIDATION_VERSION
from sparsity_lab.tasks.asked import task_hash
from sparsity_lab.tasks.config import TasksConfig
from sparsity_lab.training.fit import precision

log = logging.getLogger(__name__)

VERSIONS = {
    "corpus": CORPUS_VERSION,
    "tokens": TOKENS_VERSION,
    "model": MODEL_VERSION,
    "validation": VALIDATION_VERSION,
    "circuits": CIRCUITS_VERSION,
    "evidence": EVIDENCE_VERSION,
    "shortcuts": SHORTCUTS_VERSION,
    "baselines": BASELINES_VERSION,
}
NO_EVIDENCE = 3  # the version that counts where no evidence is made, so that such records stay valid
# Where results lie on a machine, and what a kept record says instead
FOLDERS = {"root": "runs", "records": None}
PLACE = {*FOLDERS, "threads", "logger"}  # no result depends on them
PACKAGES = ("tinypython", "python_source")  # corpora made from code and from installed packages
TRAINER = NOT_INPUTS - {"start", "final_windows"}  # the record depends on these two


def result_hash(config: RunConfig) -> str:
    """Hash everything that the record of a run depends on, but for the machine.

    Raises:
        UserError: a file that the config names cannot be read, or a task cannot be asked.
    """
    return content_hash(
        VERSIONS if config.evidence.enabled else VERSIONS | {"evidence": NO_EVIDENCE},
        config.model_dump(mode="json", exclude={*PLACE, "trainer"}),
        config.trainer.model_dump(mode="json", exclude=TRAINER),
        precision(config.trainer.precision),
        _text_of_packages(config.corpus) if config.corpus.kind in PACKAGES else config.corpus.identity(),
        identity(config.tokenizer),
        config.sparsity.identity(),
        config.finder.identity(),
        _questions(config.tasks),
    )


def record_of(config: RunConfig) -> Path | None:
    """Return the file of this job's record in the folder `config.records`; None if it is not there.

    A file that cannot be read, or that holds the record of another job, does not count, and a line says so.
    """
    if config.records is None or not any(config.records.absolute.glob(f"{config.name}-*")):
        return None
    digest = result_hash(config)
    path = record_file(config.records.absolute, config.name, digest)
    if not path.exists():
        return None
    try:
        record = read_record(path)
        theirs = result_hash(validate(RunConfig, record.config, f"{path}: config"))
    except UserError as error:
        log.warning("not counted: %s", str(error).splitlines()[0])
        return None
    if theirs != digest:
        log.warning("not counted: %s: the record of another job", path)
        return None
    return path


def keep_copy(config: RunConfig, record: RunRecord, folder: RunFolder) -> None:
    """Copy a finished run's record, training curve and seconds to `config.records`, if it is given.

    The copy goes to other machines, so it does not name the folders of this one.
    """
    if config.records is not None:
        path = record_file(config.records.absolute, config.name, result_hash(config))
        keep_record(_without_folders(record), path, [folder.metrics, folder.timings])


def _without_folders(record: RunRecord) -> RunRecord:
    changes = tuple(one for one in record.overrides if one.lstrip("+~").partition("=")[0] not in FOLDERS)
    return record.model_copy(update={"overrides": changes, "config": {**record.config, **FOLDERS}})


@lru_cache(maxsize=16)
def _text_of_packages(corpus: CorpusConfig) -> dict[str, Any]:
    """Return what the documents depend on. It takes a second, and does not change while a process lives."""
    found = corpus.identity()
    if "inventory" in found:
        found["inventory"] = [[package["name"], package["version"]] for package in found["inventory"]]
    return found


@lru_cache(maxsize=16)
def _questions(tasks: TasksConfig) -> dict[str, str]:
    """Return the hash of each task that is asked."""
    return {name: task_hash(tasks, name) for name in tasks.asked()}

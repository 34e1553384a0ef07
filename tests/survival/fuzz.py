"""Damaged files of every kind that the program reads: an error in one clear line, or a value; nothing else.

    python tests/survival/fuzz.py 10000 [READER ...]

Hypothesis draws, for each reader, random bytes, random JSON, and valid files that were cut, overwritten, or
changed in one place of their structure (`damage.py`). Changed tensors must be refused. A reader that takes
longer than `PATIENCE` hangs.
"""

import json
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import tokenizers
import torch
from hypothesis import HealthCheck, Phase, given, settings

from sparsity_lab.circuits.circuit import Calibration, Circuit, Edge, Node, Scores, load_circuit, save_circuit
from sparsity_lab.circuits.standalone import MEANS, PAIRS, PAIRS_AS_TEXT, load_means, load_pairs
from sparsity_lab.core.errors import UserError
from sparsity_lab.core.files import write_json
from sparsity_lab.core.paths import UserPath
from sparsity_lab.data.huggingface import HuggingFaceConfig
from sparsity_lab.data.packed import open_tokens
from sparsity_lab.data.tokenizer import load_tokenizer, train_bpe
from sparsity_lab.data.tokenizer_folder import gpt2_bytes, read_folder
from sparsity_lab.data.tokenizers import FilesConfig, make_tokenizer
from sparsity_lab.importers.eap_graph import graph_of, read_ranking
from sparsity_lab.importers.gpt2 import read_gpt2
from sparsity_lab.importers.llama import read_llama
from sparsity_lab.importers.released import read_released, write_released
from sparsity_lab.importers.released_circuit import read_released_circuit
from sparsity_lab.model.checkpoints import load_model, save_model
from sparsity_lab.results.record import (
    CurvePoint,
    ModelSummary,
    PruningSummary,
    RunRecord,
    TaskResult,
    read_record,
    write_record,
)
from sparsity_lab.sweep.job_status import Job, Plan, read_job, read_plan
from sparsity_lab.tasks.pairs_file import read_pairs
from sparsity_lab.training.checkpoint import damage_of

sys.path.insert(0, str(Path(__file__).parents[1]))  # as pytest does for tests/
from damage import Damage, damaged
from made_run import random_model, write_run
from micro import micro_model, small_model, write_tokens_folder

PATIENCE = 20  # seconds of processor time: other load on the machine must not count


@dataclass(frozen=True)
class Reader:
    """A file that is damaged, and what reads it. `optional`: tensors that may be missing from it."""

    path: Path
    read: Callable[[], Any]
    optional: frozenset[str] = frozenset()


def readers(folder: Path) -> dict[str, Reader]:
    """Valid files of each kind, made in `folder`."""
    scores = Scores(raw_loss=0.5, selection_loss=0.1, accuracy=1.0)
    node = Node(layer=0, site="attn_in", channel=3)
    circuit = Circuit(
        task="var_if",
        model="m",
        target=0.15,
        nodes=(node,),
        edges=(Edge(source=node, target=node, weight=0.5),),
        calibration=Calibration(scale=1.0, shift=0.0),
        select=scores,
        test=scores,
        provenance={"method": "masks"},
    )
    save_circuit(circuit, folder / "circuit.json")
    point = CurvePoint(target=0.15, nodes=1, edges=1, select=scores, test=scores)
    task = TaskResult(
        task="a", status="circuit", reason="", unpruned=scores, curve=(point,), circuit="c.json"
    )
    record = RunRecord(
        name="run",
        sweep=None,
        kind="sparse",
        model=ModelSummary(d_model=8, n_layer=2, d_head=16, tokens=1000),
        pruning=PruningSummary(finder="masks", selection="raw", polish=True, target=0.15),
        overrides=("seed=1",),
        config={"model": {"d_model": 8}},
        config_hash="0" * 12,
        git_commit=None,
        git_dirty=None,
        packages={"torch": "2"},
        python="3.11",
        seeds={"seed": 0},
        stages={"model": "m"},
        metrics={"validation/loss": 1.0},
        tasks=(task,),
    )
    write_record(record, folder / "run")
    tokenizer = train_bpe(
        ["def f(x):\n    return x + 1\n" * 50, "for name in names:\n    print(name)\n" * 50], 270
    )
    tokenizer.save(folder / "tokenizer.json")
    encoder = {char: byte for char, byte in gpt2_bytes().items()}
    (folder / "encoder.json").write_text(json.dumps(encoder))
    (folder / "vocab.bpe").write_text("#version: 0.2\n")
    files = FilesConfig(
        vocab_bpe=UserPath(folder / "vocab.bpe"), encoder_json=UserPath(folder / "encoder.json")
    )
    theirs = write_librarys_tokenizer(folder / "library")
    rows = HuggingFaceConfig(name=str(folder / "rows.jsonl"))
    (folder / "rows.jsonl").write_text('{"text": "one", "n": 1}\n{"n": null, "text": "two"}\n')
    table = HuggingFaceConfig(name=str(folder / "rows.parquet"))
    pq.write_table(pa.table({"text": ["one", "two"], "n": [1, 2]}), folder / "rows.parquet")
    model = folder / "model"
    save_model(small_model(), model)
    tokens = write_tokens_folder(folder / "tokens")
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.ones(5))])
    parts = {"optimizer_states": [optimizer.state_dict()], "lr_schedulers": [], "loops": {"n": 3}}
    torch.save({"state_dict": {"w": torch.ones(5)}, "global_step": 5, **parts}, folder / "last.ckpt")
    released, gpt2, llama = folder / "released", folder / "gpt2", folder / "llama"
    write_released(small_model(), released)
    write_gpt2(gpt2)
    write_llama(llama)
    viz = write_viz_data(folder / "viz_data.pt")
    beside, made = write_run(folder / "made")[0].parent, random_model()
    write_json(folder / "ranking.json", graph_of(load_circuit(beside / "circuit-5.json"), made.config))
    pair = write_pair_with_added_tokens(folder / "pair")
    write_json(folder / "job.json", Job(overrides=("seed=1",), state="running"))
    write_json(folder / "jobs" / "plan.json", Plan(jobs=(("seed=1",),), command="x"))
    return {
        "record": Reader(folder / "run" / "record.json", lambda: read_record(folder / "run")),
        "circuit": Reader(folder / "circuit.json", lambda: load_circuit(folder / "circuit.json")),
        "tokenizer": Reader(folder / "tokenizer.json", lambda: load_tokenizer(folder / "tokenizer.json")),
        "encoder.json": Reader(folder / "encoder.json", lambda: make_tokenizer(files, [])),
        "vocab.bpe": Reader(folder / "vocab.bpe", lambda: make_tokenizer(files, [])),
        "library's tokenizer.json": Reader(theirs, lambda: read_folder(folder / "library")),
        "rows.jsonl": Reader(folder / "rows.jsonl", lambda: list(rows.documents())),
        "rows.parquet": Reader(folder / "rows.parquet", lambda: list(table.documents())),
        "model.json": Reader(model / "model.json", lambda: load_model(model)),
        "model.safetensors": Reader(model / "model.safetensors", lambda: load_model(model)),
        "beeg_config.json": Reader(released / "beeg_config.json", lambda: read_released(released)),
        "final_model.pt": Reader(
            released / "final_model.pt", lambda: read_released(released), frozenset({"final_logits_bias"})
        ),
        "viz_data.pt": Reader(viz, lambda: read_released_circuit(viz, micro_model(), "m", "t")),
        "GPT-2's config.json": Reader(gpt2 / "config.json", lambda: read_gpt2(gpt2)),
        "GPT-2's model.safetensors": Reader(gpt2 / "model.safetensors", lambda: read_gpt2(gpt2)),
        "Llama's config.json": Reader(llama / "config.json", lambda: read_llama(llama)),
        "Llama's model.safetensors": Reader(llama / "model.safetensors", lambda: read_llama(llama)),
        "means.safetensors": Reader(beside / MEANS, lambda: load_means(beside / MEANS, made.config)),
        "pairs.safetensors": Reader(beside / PAIRS, lambda: load_pairs(beside / PAIRS, 300)),
        "pairs.jsonl": Reader(beside / PAIRS_AS_TEXT, lambda: read_pairs(beside / PAIRS_AS_TEXT)),
        "ranking": Reader(
            folder / "ranking.json", lambda: read_ranking(folder / "ranking.json", made.config)
        ),
        "tokenizer_config.json": Reader(pair / "tokenizer_config.json", lambda: read_folder(pair)),
        "tokens' meta.json": Reader(tokens / "meta.json", lambda: open_tokens(tokens, "train")),
        "tokens": Reader(tokens / "train.bin", lambda: open_tokens(tokens, "train")),
        "checkpoint": Reader(folder / "last.ckpt", lambda: damage_of(folder / "last.ckpt")),
        "job": Reader(folder / "job.json", lambda: read_job(folder / "job.json")),
        "plan": Reader(folder / "jobs" / "plan.json", lambda: read_plan(folder / "jobs")),
    }


def write_librarys_tokenizer(folder: Path) -> Path:
    """A `tokenizer.json` of the library `tokenizers`, with an added token that is not special."""
    library = tokenizers.Tokenizer(tokenizers.models.BPE())
    library.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=270,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    library.train_from_iterator(["for name in names:\n    print(name)\n" * 50], trainer)
    library.add_tokens(["return"])
    folder.mkdir()
    library.save(str(folder / "tokenizer.json"))
    return folder / "tokenizer.json"


def write_gpt2(folder: Path) -> None:
    """A tiny GPT-2 as `transformers` saves it."""
    from transformers import GPT2Config, GPT2LMHeadModel
    from transformers.utils import logging

    logging.disable_progress_bar()
    special: dict[str, Any] = {"bos_token_id": None, "eos_token_id": None}
    shape = {"n_layer": 1, "n_head": 2, "n_embd": 8, "n_positions": 8, "vocab_size": 11}
    GPT2LMHeadModel(GPT2Config(**(shape | special))).save_pretrained(folder)


def write_llama(folder: Path) -> None:
    """A tiny Llama as `transformers` saves it."""
    from transformers import LlamaConfig, LlamaForCausalLM

    special: dict[str, Any] = {"bos_token_id": None, "eos_token_id": None, "max_position_embeddings": 8}
    shape: dict[str, Any] = {"num_hidden_layers": 1, "num_attention_heads": 2, "hidden_size": 8}
    shape |= {"num_key_value_heads": 1, "intermediate_size": 12, "vocab_size": 11}
    LlamaForCausalLM(LlamaConfig(**shape, **special)).save_pretrained(folder)


def write_viz_data(path: Path) -> Path:
    """A circuit of the micro model as the release saves it."""
    channels = {"0.attn.act_in": torch.tensor([0, 1]), "0.attn.v": torch.tensor([0])}
    importances = {
        "task_samples": (torch.tensor([[1, 2, 0]]), {}),
        "loss": torch.tensor(0.2),
        "interv_loss": torch.tensor(0.3),
    }
    torch.save({"circuit_data": channels, "importances": importances}, path)
    return path


def write_pair_with_added_tokens(folder: Path) -> Path:
    """GPT-2's two tokenizer files, and added tokens in `tokenizer_config.json`."""
    write_librarys_tokenizer(folder)
    library = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    (folder / "tokenizer.json").unlink()
    library.model.save(str(folder))
    token = {"content": "return", "special": False, "normalized": False, "lstrip": False}
    id = library.token_to_id("return")
    config = {"add_prefix_space": False, "added_tokens_decoder": {str(id): token}}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


@contextmanager
def patience(what: str) -> Iterator[None]:
    """Fail what takes too long."""

    def give_up(number: int, frame: FrameType | None) -> None:
        raise AssertionError(f"{what} hangs")

    before = signal.signal(signal.SIGPROF, give_up)
    signal.setitimer(signal.ITIMER_PROF, PATIENCE)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def message(read: Callable[[], Any]) -> str:
    """What a reader says of a damaged file, empty if it could be read."""
    try:
        found = read()
    except UserError as error:
        return str(error)
    return found if isinstance(found, str) else ""


def fuzz(name: str, reader: Reader, examples: int) -> tuple[int, int]:
    """Read `examples` damaged files; returns how many were refused, and how many still had a meaning.

    Raises:
        AssertionError: an error cannot be shown, or a reader hangs. Or whatever a reader lets through.
    """
    valid, counts = reader.path.read_bytes(), [0, 0]

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(damaged(valid, reader.optional))
    def one(damage: Damage) -> None:
        reader.path.write_bytes(damage.content)
        with patience(name):
            told = message(reader.read)
        assert told or not damage.must_refuse, "a changed tensor was read without a word"
        assert all(line.isprintable() for line in told.split("\n")), repr(told)
        counts[not told] += 1

    try:
        one()
    finally:
        reader.path.write_bytes(valid)
    return counts[0], counts[1]


def main() -> None:
    """The command."""
    examples = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    with tempfile.TemporaryDirectory() as folder:
        there = readers(Path(folder))
        for name in sys.argv[2:] or there:
            refused, read = fuzz(name, there[name], examples)
            sys.stdout.write(f"{name}: {refused + read} files, {refused} refused in a line, {read} read\n")


if __name__ == "__main__":
    main()

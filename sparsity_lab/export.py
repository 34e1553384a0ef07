"""Export a run: `python -m sparsity_lab.export RUN OUT [--layout released|transformers] [--circuits mib]`.

`plain` writes model.safetensors, model.json, tokenizer.json, and a README.md with the code that loads them.
`released` writes the layout of openai/circuit_sparsity with its tokenizer files. It adds tokenizer.json,
because that layout has no field for the tokenizer's pattern.
`transformers` writes the model as `plain` does, and what `AutoModelForCausalLM` and `AutoTokenizer` need
(`importers/to_transformers.py`). It needs the extra [transformers].

All layouts get means.safetensors, the mean of every node. The circuits of the run go to circuits/TASK/, with
the files beside them (`circuits/standalone.py`). `--circuits mib` adds mib-TARGET.json for each: the graph of
its heads and MLPs as EAP-IG and MIB store it (`importers/eap_graph.py`). `--circuits none` writes no
circuits. `--text WINDOWS` adds text.safetensors, windows of the run's validation text: with it, an export
shows activations, makes evidence and resamples as the run does.
"""

import argparse
import logging
import shutil
import sys
from pathlib import Path
from typing import Literal

import torch

from sparsity_lab.circuits.circuit import load_circuit
from sparsity_lab.circuits.standalone import MEANS, PAIRS_AS_TEXT, TEXT, beside, save_means, save_text
from sparsity_lab.core.errors import UserError
from sparsity_lab.core.files import write_json, write_text
from sparsity_lab.core.program import start
from sparsity_lab.core.run_folder import CIRCUITS, RunFolder, circuit_file
from sparsity_lab.data.tokenizer import load_tokenizer
from sparsity_lab.data.tokenizer_folder import JSON, write_pair
from sparsity_lab.importers.eap_graph import graph_of
from sparsity_lab.importers.released import write_released
from sparsity_lab.importers.to_transformers import write_for_transformers
from sparsity_lab.model.checkpoints import load_model
from sparsity_lab.model.config import ModelConfig
from sparsity_lab.stages.opened import open_folder

log = logging.getLogger(__name__)
Layout = Literal["plain", "released", "transformers"]
LAYOUTS: tuple[Layout, ...] = ("plain", "released", "transformers")
Circuits = Literal["plain", "mib", "none"]
CIRCUIT_FORMS: tuple[Circuits, ...] = ("plain", "mib", "none")
MODEL_FILES = ("model.json", "model.safetensors")

SNIPPET = """\
from pathlib import Path; import torch
from sparsity_lab.data.tokenizer import load_tokenizer
from sparsity_lab.model.checkpoints import load_model
model, tokenizer = load_model(Path("{out}")), load_tokenizer(Path("{out}/tokenizer.json"))
logits_btv = model(torch.tensor([tokenizer.encode("def area(width, height):\\n")]))
"""
TRANSFORMERS_SNIPPET = """\
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("{out}", trust_remote_code=True)
tokenizer = AutoTokenizer.from_pretrained("{out}")
inputs = tokenizer("def area(width, height):\\n", return_tensors="pt")
text = tokenizer.decode(model.generate(**inputs, max_new_tokens=8)[0])
"""
REMOTE_CODE = (
    "`trust_remote_code=True` runs `modeling_sparsity_lab.py` of this folder, and nothing else. It imports "
    "torch and transformers alone.\n"
)
SCORE = "python -m sparsity_lab.score {out}/{circuit} --model {out}"
RECOMPUTE = "python docs/recompute.py {out} {out}/{circuit}"


def export(
    run: Path, out: Path, layout: Layout = "plain", circuits: Circuits = "plain", text: int = 0
) -> None:
    """Write model, tokenizer, means and circuits of the run's folder `run` into the new folder `out`.

    `text`: the number of windows of validation text that are written too.

    Raises:
        UserError: `run` is not a run's folder, `out` is not empty, a file of the run is damaged, the layout
            cannot express a setting, or `text` is negative.
    """
    if text < 0:
        raise UserError(f"--text: {text}: allowed: a number of windows, 0 or more")
    if out.exists() and any(out.iterdir()):
        raise UserError(f"{out}: is not empty")
    folder = RunFolder(run)
    for part in (folder.model, folder.tokens):
        if not part.is_dir():
            raise UserError(f"{run}: not a run's folder, it has no {part.name}/")
    model, tokenizer = load_model(folder.model), load_tokenizer(folder.tokens / JSON)
    if layout == "released":
        write_released(model, out)
        write_pair(tokenizer, out)
    else:
        out.mkdir(parents=True, exist_ok=True)
        for name in MODEL_FILES:  # copied, so that the model's hash in the circuits stays true
            shutil.copyfile(folder.model / name, out / name)
    if layout == "transformers":
        write_for_transformers(model.config, model.vocab_size, tokenizer, out)
    else:
        tokenizer.save(out / JSON)
    if (opened := open_folder(run)).has_means:
        save_means(opened.means_n, model.config, out / MEANS)
    if text:
        save_text(torch.cat(list(opened.text))[:text], out / TEXT)
    written = [] if circuits == "none" else _write_circuits(folder, out, model.config, circuits)
    if layout != "released":
        write_text(out / "README.md", _readme(out, layout, written))
    log.info("%s: %s", out, ", ".join(sorted(path.name for path in out.iterdir())))


def _write_circuits(run: RunFolder, out: Path, config: ModelConfig, form: Circuits) -> list[Path]:
    """Copy the circuits of every task, with the files beside them; return the paths of the circuits."""
    written = []
    for task in run.tasks():
        folder = out / CIRCUITS / task
        for path in run.circuits(task):
            folder.mkdir(parents=True, exist_ok=True)
            circuit = load_circuit(path)
            for source in (
                path,
                *filter(None, (beside(circuit, path, field) for field in ("frozen", "pairs"))),
            ):
                shutil.copyfile(source, folder / source.name)
            texts = path.with_name(PAIRS_AS_TEXT)
            if texts.exists():
                shutil.copyfile(texts, folder / texts.name)
            if form == "mib":
                name = circuit_file(circuit.asked, circuit.target_kind).replace("circuit-", "mib-")
                write_json(folder / name, graph_of(circuit, config))
            written.append(folder / path.name)
    return written


def _readme(out: Path, layout: Layout, circuits: list[Path]) -> str:
    snippet = TRANSFORMERS_SNIPPET if layout == "transformers" else SNIPPET
    text = f"```python\n{snippet.format(out=out.name)}```\n"
    if layout == "transformers":
        text += f"\n{REMOTE_CODE}"
    if not circuits:
        return text
    circuit = circuits[0].relative_to(out)
    score, recompute = (line.format(out=out.name, circuit=circuit) for line in (SCORE, RECOMPUTE))
    return (
        f"{text}\nScore a circuit with sparsity_lab, or compute its loss from these files with torch and "
        f"safetensors alone:\n\n```\n{score}\n{recompute}\n```\n"
    )


def main(arguments: list[str] | None = None) -> None:
    """Run the program."""
    parser = argparse.ArgumentParser(description="Export the model of a run to its own folder.")
    parser.add_argument("run", type=Path, help="a run's folder, as runs/single/NAME-HASH")
    parser.add_argument("out", type=Path, help="a new folder")
    parser.add_argument("--layout", choices=LAYOUTS, default="plain")
    parser.add_argument("--circuits", choices=CIRCUIT_FORMS, default="plain")
    parser.add_argument("--text", type=int, default=0, metavar="WINDOWS", help="also write validation text")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        export(given.run, given.out, given.layout, given.circuits, given.text)
    except UserError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    start(main)

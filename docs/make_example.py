"""Make docs/TASK: a model, its circuit of the task as nodes, and the task's test pairs.

    python docs/make_example.py RUN TASK --target NATS

RUN is a finished run. Of the bigram table only the rows of the prompts' last tokens are kept, since the
others are not read. docs/circuit.md says which runs were used and what the circuits do.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch

import sparsity_lab
from sparsity_lab import Lab
from sparsity_lab.circuits.circuit import Circuit
from sparsity_lab.core.files import write_json, write_text
from sparsity_lab.model.checkpoints import ModelCard, stored_tensors

DOCS = Path(__file__).parent


def write(lab: Lab, circuit: Circuit, folder: Path) -> None:
    """Write the model, its means, the tokenizer, the circuit's nodes and the test pairs."""
    folder.mkdir(parents=True, exist_ok=True)
    asked = lab.questions.ask(circuit.task)
    batch = asked.data.test
    tensors = {name: tensor.numpy().copy() for name, tensor in stored_tensors(lab.model).items()}
    last = torch.unique(batch.tokens_bt[torch.arange(len(batch.last_b)), batch.last_b]).numpy()
    if "bigram" in tensors:
        kept = np.zeros_like(tensors["bigram"])
        kept[last] = tensors["bigram"][last]
        tensors["bigram"] = kept
    np.savez_compressed(folder / "weights.npz", allow_pickle=False, means=lab.means.numpy(), **tensors)
    write_json(folder / "model.json", ModelCard(config=lab.model.config, vocab_size=lab.model.vocab_size))
    lab.tokenizer.save(folder / "tokenizer.json")
    nodes = [[node.layer, node.site, node.channel] for node in circuit.nodes]
    write_text(folder / "nodes.json", json.dumps(nodes) + "\n")
    rows = [
        {"positive": pair.positive, "negative": pair.negative, "answers": list(pair.answers)}
        for pair in asked.test_pairs
    ]
    write_text(folder / "pairs.jsonl", "".join(json.dumps(row) + "\n" for row in rows))


def main() -> None:
    """Run the program."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("task")
    parser.add_argument("--target", type=float, required=True, help="nats of raw loss on the selection pairs")
    options = parser.parse_args()
    lab = sparsity_lab.load(options.run)
    circuit = lab.find_circuit(options.task, target=options.target)
    write(lab, circuit, DOCS / circuit.task)


if __name__ == "__main__":
    main()

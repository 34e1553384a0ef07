"""A finished run of the planted model, whose every name and token tries to break out of the page (S12)."""

from pathlib import Path

from made_up import record
from micro import PLANTED, planted_model, question, random_tokens

from sparsity_lab.circuits.circuit import Node, save_circuit
from sparsity_lab.circuits.edge_pruning import prune_edges
from sparsity_lab.circuits.evaluator import CircuitEvaluator, TaskData
from sparsity_lab.circuits.nodes import NodeLayout, mean_activations
from sparsity_lab.circuits.search import make_circuit
from sparsity_lab.evidence.record import Check, Evidence, Measured, NodeEvidence, save_evidence
from sparsity_lab.results.record import RunRecord, write_record
from sparsity_lab.tasks.task import Pair, Task
from sparsity_lab.viewer.examples import collect_examples
from sparsity_lab.viewer.examples_record import save_examples

EVIL = "</script><img src=x onerror=\"document.title='broken out'\">&lt;'-->\x07{0}"
TASK = "a\"'><img src=x onerror=alert(1)>&{title}"  # a folder's name, so without a slash
PLAIN_TASK = "plain"
NODES = [Node(layer=layer, site=site, channel=channel) for layer, site, channel in PLANTED]
MORE = [
    *NODES,
    Node(layer=0, site="attn_k", channel=1),
    Node(layer=1, site="mlp_in", channel=1),
    Node(layer=1, site="mlp_neuron", channel=3),
    Node(layer=1, site="mlp_out", channel=2),
]
TARGETS = {0.05: MORE, 0.15: NODES}


class EvilWords:
    """A tokenizer of hostile tokens for the small models' vocabulary."""

    end_of_text = 10

    def token(self, id: int) -> str:
        return f"{id}{EVIL}\n"


def write_run(folder: Path, examples: bool = True, evidence: bool = True) -> RunRecord:
    """A run with `TASK`, shown with everything, and `PLAIN_TASK`, of which there are only the circuits."""
    model = planted_model()
    layout, means_n = NodeLayout(model.config), mean_activations(model, [random_tokens(20, 8)])
    data = TaskData(*(question(12, seed) for seed in (1, 2, 3)))
    evaluator = CircuitEvaluator(model, means_n, data, "calibrated")
    circuits = [
        make_circuit(evaluator, layout.mask(nodes), TASK, "planted", target, {"method": EVIL})
        for target, nodes in TARGETS.items()
    ]
    circuits = [prune_edges(evaluator, circuit) for circuit in circuits]
    for name in (TASK, PLAIN_TASK):
        for circuit in circuits:
            save_circuit(circuit, folder / "circuits" / name / f"circuit-{circuit.target:g}.json")
    if examples:
        task = Task(TASK, EVIL, lambda rng: Pair("a", "b", ("c", "d")))
        tokenizer, text_bt = EvilWords(), random_tokens(6, 8, seed=3)
        found = collect_examples(task, model, means_n, circuits, question(6, 3), text_bt, tokenizer)  # type: ignore[arg-type]
        save_examples(found, folder / "examples" / TASK)
    if evidence:
        check = Check(
            name=f"necessity {EVIL}",
            verdict="for",
            values=(Measured(name=EVIL, value=0.75, unit=EVIL),),
            sentence=f"Without the circuit the model guesses. {EVIL}",
            rule=f"for: at least 0.693 nats {EVIL}",
        )
        nodes = tuple(
            NodeEvidence(node=node, drop_effect=0.5 + i, active_on_task=1.0, active_on_text=0.1)
            for i, node in enumerate(NODES)
        )
        save_evidence(
            Evidence(task=TASK, model="planted", target=0.15, circuit="x", checks=(check,), nodes=nodes),
            folder / "evidence" / TASK,
        )
    made = record("sparse", 16, 100, 1.9, {TASK: 2, PLAIN_TASK: 2}, targets={0.05: 3.0})
    made = made.model_copy(update={"name": f"run{EVIL}"})
    write_record(made, folder)
    return made

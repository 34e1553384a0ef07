"""Compute a circuit's loss on its test pairs with torch and safetensors alone, nothing of sparsity_lab.

    python -m sparsity_lab.export RUN OUT
    python docs/recompute.py OUT OUT/circuits/TASK/circuit-0.15.json

A dropped node passes its mean in place of its value. For a circuit found with `pruning.freeze_norm`, the
whole model runs first, and norms take their scales from that run. The script prints the loss that it computes
and the one in the circuit's file, in nats, and exits with 1 if they differ by more than 1e-4.
"""

import json
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file

out, file = Path(sys.argv[1]), Path(sys.argv[2])
config, weights = json.loads((out / "model.json").read_text())["config"], load_file(out / "model.safetensors")
circuit = json.loads(file.read_text())
if circuit["provenance"].get("ablation") == "other_prompt":
    sys.exit(f"{file}: needs the nodes' values on other prompts; python -m sparsity_lab.score computes them")
if not (circuit.get("frozen") and circuit.get("pairs")):
    sys.exit(f"{file}: names no means and pairs; a run writes them beside its circuits")
means = load_file(file.parent / circuit["frozen"]["file"])  # by site, as "0.attn_in": a value per channel
pairs = load_file(file.parent / circuit["pairs"]["file"])
tokens, last, answers = pairs["test.tokens"], pairs["test.last"], pairs["test.answers"]
nodes = {site: torch.zeros(len(mean), dtype=torch.bool) for site, mean in means.items()}
for node in circuit["nodes"]:
    nodes[f"{node['layer']}.{node['site']}"][node["channel"]] = True
frozen_norm, scaled_by = bool(circuit["provenance"].get("freeze_norm")), {}


def norm(x, name):  # with frozen norms, the first run, the whole model's, decides the scales
    eps = config["norm_eps"] or (1e-5 if config["norm"] == "layer" else torch.finfo(torch.float32).eps)
    whole = scaled_by.setdefault(name, x) if frozen_norm else x
    if config["norm"] == "layer":
        x, whole = (each - each.mean(-1, keepdim=True) for each in (x, whole))
    x = x * (whole.square().mean(-1, keepdim=True) + eps).rsqrt() * weights[f"{name}.weight"]
    return x + weights.get(f"{name}.bias", 0)


def read(x, name):  # a sublayer's input; some models append normalised positions
    x = norm(x, f"{name}.read.norm")
    if not config["d_pos"]:
        return x
    return torch.cat([x, norm(positions, f"{name}.read.position_norm").expand(len(x), -1, -1)], -1)


def top_k(x):  # keeps the largest magnitudes; the lower channel wins a tie
    k = int(config["activation_fraction"] * x.shape[-1])
    largest = x.abs().sort(dim=-1, descending=True, stable=True).indices[..., :k]
    return torch.zeros_like(x).scatter(-1, largest, x.gather(-1, largest))


def visit(site, x, matrix=None, times=None):  # matrix, nonlinearity, gate, AbsTopK, then the circuit
    if matrix:
        weight = weights[f"{matrix}.weight"]
        if circuit.get("closed"):  # in a closed circuit, the weights into dropped nodes are zero
            weight = weight * kept[site][:, None]
        x = F.linear(x, weight, weights.get(f"{matrix}.bias"))
    if site.endswith("mlp_gate" if gated else "mlp_neuron"):
        x = activation(x)
    x = x if times is None else x * times
    x = top_k(x) if site.split(".")[1] in config["activation_sites"] else x
    return torch.where(kept[site], x, means[site])


def add(x, written, place):
    x = x + written
    x = x.relu() if config["residual_activation"] == "relu" else x
    return top_k(x) if place in config["residual_sites"] else x


def activation(x):
    kind = config["activation"]
    if kind in ("relu", "silu"):
        return x.relu() if kind == "relu" else F.silu(x)
    return F.gelu(x, approximate="tanh" if kind == "gelu_tanh" else "none")


def rotate(x):  # rotary positions: turns channels i and i + d_head / 2 of a query or key by its position
    theta, scaling = config.get("rotary_theta", 10_000.0), config.get("rotary_scaling")
    turn = 1 / theta ** (torch.arange(0, config["d_head"], 2).float() / config["d_head"])
    if scaling and scaling["kind"] == "linear":
        turn = turn / scaling["factor"]
    elif scaling:
        low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
        turns = scaling["original_n_ctx"] * turn / (2 * torch.pi)
        keep = ((turns - low) / (high - low)).clamp(0, 1)
        turn = turn * (keep + (1 - keep) / scaling["factor"])
    angle = torch.arange(length)[:, None] * turn
    first, second = x.chunk(2, -1)
    return torch.cat(
        [first * angle.cos() - second * angle.sin(), second * angle.cos() + first * angle.sin()], -1
    )


gated, length = config.get("gated_mlp", False), tokens.shape[1]
embedded = weights["embedding.weight"][tokens]
if config["positions"] in ("learned", "concatenated"):
    positions = weights["positions.weight"][:length]
    embedded = embedded if config["d_pos"] else embedded + positions
rows = torch.arange(len(tokens))
future = torch.ones(length, length, dtype=torch.bool).triu(1)
everything = {site: torch.ones_like(of_site) for site, of_site in nodes.items()}
for passing in (everything, nodes) if frozen_norm else (nodes,):
    kept, stream = passing, embedded
    for layer in range(config["n_layer"]):
        name = f"blocks.{layer}.attention"
        x = visit(f"{layer}.attn_in", read(stream, name))
        parts = (visit(f"{layer}.attn_{part}", x, f"{name}.{part}") for part in "qkv")
        q, k, v = (part.unflatten(-1, (-1, config["d_head"])).transpose(1, 2) for part in parts)
        q, k = (rotate(q), rotate(k)) if config["positions"] == "rotary" else (q, k)
        scores = (q @ k.mT / config["d_head"] ** 0.5).masked_fill(future, -torch.inf)
        if config["attention_sink"]:  # a logit per head that takes attention and gives no value
            sink = weights[f"{name}.sink"].view(1, -1, 1, 1).expand(*scores.shape[:3], 1)
            scores = torch.cat([scores, sink], -1)
        x = (scores.softmax(-1)[..., :length] @ v).transpose(1, 2).flatten(2)
        stream = add(stream, visit(f"{layer}.attn_out", x, f"{name}.out"), "resid_post_attn")
        name = f"blocks.{layer}.mlp"
        x = visit(f"{layer}.mlp_in", read(stream, name))
        gate = visit(f"{layer}.mlp_gate", x, f"{name}.gate") if gated else None
        x = visit(f"{layer}.mlp_neuron", x, f"{name}.up", gate)
        stream = add(stream, visit(f"{layer}.mlp_out", x, f"{name}.down"), "resid_post_mlp")
    stream = norm(stream[rows, last], "norm")
unembedding = weights.get("unembedding.weight", weights["embedding.weight"])
logits = F.linear(stream, unembedding, weights["unembedding.bias"])
if config["bigram"] != "none":
    logits = logits + weights["bigram"][tokens[rows, last]]

# The first half of the rows asks for the first answer, the second half for the second.
difference = logits.gather(1, answers).double() @ torch.tensor([1.0, -1.0]).double()
sign = torch.ones(len(rows)).double().index_fill(0, rows[len(rows) // 2 :], -1)
loss = F.softplus(-sign * difference).mean().item()
sys.stdout.write(f"{circuit['task']}: {loss:.6f} nats here, {circuit['test']['raw_loss']:.6f} in the file\n")
sys.exit(abs(loss - circuit["test"]["raw_loss"]) > 1e-4)

"""Circuits as JSON graphs of EAP-IG and of the MIB benchmark: nodes and edges by name, each with a score.

    {"cfg": {"n_layers": 2, "n_heads": 4, "d_model": 64, "parallel_attn_mlp": false},
     "nodes": {"a0.h3": {"in_graph": true, "score": 1.5}, "m1": ..., "input": ..., "logits": ...},
     "edges": {"a0.h3->m1": {"in_graph": true, "score": 0.7}, "m0->a1.h0<q>": ...}}

A value may also be a plain number or boolean, and either of `nodes` and `edges` may be missing. The nodes of
that graph are heads and MLPs; ours are single channels. `read_ranking` takes both kinds of names:

| name | nodes here |
|---|---|
| `a0.h3` | the query, key and value channels of head 3 in layer 0 |
| `m1` | all neurons of the MLP in layer 1, and their gates |
| `input`, `logits` | none |
| `0.attn_in.5` | one channel, by its site's name here or in the released code (`0.attn.act_in.5`) |

Nodes that no name covers have no score and are always kept. `neurons` of a head or an MLP, a list of
booleans, are the channels that it writes to the residual stream. `graph_of` writes a circuit in this form.
"""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sparsity_lab.circuits.circuit import Circuit, Node
from sparsity_lab.core.errors import UserError
from sparsity_lab.core.files import read_json
from sparsity_lab.core.shown import printable
from sparsity_lab.model.config import ModelConfig
from sparsity_lab.model.sites import HEAD_SITES, NODES, RELEASED_NAMES, WRITES, Site

SITES = {site.value: site for site in NODES} | RELEASED_NAMES
NEURONS = (Site.MLP_NEURON, Site.MLP_GATE)
_HEAD = re.compile(r"a(\d+)\.h(\d+)(?:<[qkv]>)?")
_MLP = re.compile(r"m(\d+)")
_CHANNEL = re.compile(r"(\d+)\.([a-z_.]+)\.(\d+)")
_ENDS = ("input", "logits")


@dataclass(frozen=True)
class Scored:
    """A node or an edge of the file: its score and whether it is in the file's circuit, where given."""

    score: float | None
    in_graph: bool | None


@dataclass
class Ranking:
    """What a file says of the nodes of one model.

    `groups`: the nodes behind each name of the file. `nodes`: what the file says of each name; a head or MLP
    without a score of its own has the largest magnitude of its edges'. `edges`: edges between single
    channels, as (source, target). `dropped`: residual channels to which no head of a layer, or no MLP,
    writes, by `neurons`.
    """

    groups: dict[str, tuple[Node, ...]] = field(default_factory=dict)
    nodes: dict[str, Scored] = field(default_factory=dict)
    edges: dict[tuple[Node, Node], Scored] = field(default_factory=dict)
    dropped: set[Node] = field(default_factory=set)


def is_ranking(saved: Any) -> bool:
    """Return whether parsed JSON has the form of such a graph; a circuit of ours lists its nodes."""
    parts = [saved.get("nodes"), saved.get("edges")] if isinstance(saved, dict) else [[]]
    return any(isinstance(part, dict) for part in parts) and all(isinstance(p, dict | None) for p in parts)


def read_ranking(path: Path, config: ModelConfig) -> Ranking:
    """Read the scores in a file for a model with this config.

    Raises:
        UserError: the file is not such a graph, its `cfg` is of another model, a name is not in this model,
            or a score is not a finite number.
    """
    saved = read_json(path)
    if not is_ranking(saved):
        raise UserError(
            f"{path}: allowed: one JSON object with nodes or edges, each a map from name to score"
        )
    _same_model(saved.get("cfg"), config, path)
    ranking, written = Ranking(), defaultdict[tuple[int, Site], set[int]](set)
    for name, value in (saved.get("nodes") or {}).items():
        where = f"{path}: nodes.{printable(name)}"
        ranking.groups[name] = nodes_of(name, config, where)
        ranking.nodes[name] = _scored(value, where)
        if isinstance(value, dict) and "neurons" in value and ranking.groups[name]:
            first = ranking.groups[name][0]
            sublayer = NODES[Site(first.site)].sublayer
            written[first.layer, WRITES[sublayer]] |= _channels(value["neurons"], config, f"{where}.neurons")
    by_edge: dict[str, list[Scored]] = defaultdict(list)
    for name, value in (saved.get("edges") or {}).items():
        where = f"{path}: edges.{printable(name)}"
        ends, scored = name.split("->"), _scored(value, where)
        if len(ends) != 2:
            raise UserError(f"{where}: allowed: SOURCE->TARGET")
        source, target = (nodes_of(end, config, where) for end in ends)
        if all(_CHANNEL.fullmatch(end) for end in ends):
            ranking.edges[source[0], target[0]] = scored
            continue
        for end, nodes in zip(ends, (source, target), strict=True):
            plain = end.partition("<")[0]
            ranking.groups.setdefault(plain, nodes)
            by_edge[plain].append(scored)
    ranking.dropped = {
        _node(layer, site, channel)
        for (layer, site), channels in written.items()
        for channel in range(config.d_model)
        if channel not in channels
    }
    for name, listed in by_edge.items():
        found = ranking.nodes.get(name, Scored(None, None))
        ranking.nodes[name] = Scored(
            _largest(s.score for s in listed) if found.score is None else found.score,
            _any_marked(listed) if found.in_graph is None else found.in_graph,
        )
    return ranking


def _any_marked(listed: Iterable[Scored]) -> bool | None:
    """Return whether some edge is in the graph; None if the file marks none either way."""
    flags = [scored.in_graph for scored in listed if scored.in_graph is not None]
    return any(flags) if flags else None


def nodes_of(name: str, config: ModelConfig, where: str) -> tuple[Node, ...]:
    """Return the nodes of this model behind a name.

    Raises:
        UserError: the model has no such head, MLP or channel, or the name is none of the known kinds.
    """
    if name in _ENDS:
        return ()
    if head := _HEAD.fullmatch(name):
        layer, number = int(head[1]), int(head[2])
        if layer < config.n_layer and number < config.heads:
            channels = range(number * config.d_head, (number + 1) * config.d_head)
            return tuple(_node(layer, site, channel) for site in HEAD_SITES for channel in channels)
    elif mlp := _MLP.fullmatch(name):
        if (layer := int(mlp[1])) < config.n_layer:
            channels = range(config.width(Site.MLP_NEURON))
            sites = [site for site in NEURONS if site in config.node_sites]
            return tuple(_node(layer, site, channel) for site in sites for channel in channels)
    elif (one := _CHANNEL.fullmatch(name)) and one[2] in SITES:
        layer, site, channel = int(one[1]), SITES[one[2]], int(one[3])
        if layer < config.n_layer and site in config.node_sites and channel < config.width(site):
            return (_node(layer, site, channel),)
    else:
        raise UserError(f"{where}: allowed: aLAYER.hHEAD, mLAYER, input, logits, LAYER.SITE.CHANNEL")
    raise UserError(f"{where}: not in this model of {config.n_layer} layers and {config.heads} heads")


def graph_of(circuit: Circuit, config: ModelConfig) -> dict[str, Any]:
    """Return a circuit as a graph of heads and MLPs that EAP-IG's `Graph.from_json` reads.

    An edge is in the graph if its target reads, by an edge of the circuit, a residual channel that its source
    writes by one; its score is the number of such channels. A node's score is the number of its kept
    channels. The map is not one to one: `circuit` itself is the exact record.
    """
    reads, writes = defaultdict[str, set[int]](set), defaultdict[str, set[int]](set)
    for edge in circuit.edges if circuit.pruned is None else circuit.pruned.edges:
        source, target = edge.source, edge.target
        if target.site in HEAD_SITES:
            letter = target.site.removeprefix("attn_")
            reads[f"{_owner(target, config)}<{letter}>"].add(source.channel)
        elif target.site in NEURONS:
            reads[_owner(target, config)].add(source.channel)
        else:
            writes[_owner(source, config)].add(target.channel)
    whole = set(range(config.d_model))
    writes["input"], reads["logits"] = whole, whole
    sizes = Counter(_owner(node, config) for node in circuit.nodes)
    place = {"input": -1, "logits": 2 * config.n_layer}
    for layer in range(config.n_layer):
        place |= dict.fromkeys((f"a{layer}.h{head}" for head in range(config.heads)), 2 * layer)
        place[f"m{layer}"] = 2 * layer + 1
    sources = [name for name in place if name != "logits"]
    targets = [
        f"{name}{end}" for name in place for end in (("<q>", "<k>", "<v>") if name[0] == "a" else ("",))
    ]
    edges = {
        f"{source}->{target}": {"score": float(shared), "in_graph": shared > 0}
        for source in sources
        for target in targets
        if place[source] < place[target.partition("<")[0]]
        for shared in [len(writes[source] & reads[target] & whole)]
    }
    nodes: dict[str, Any] = {
        name: {
            "in_graph": bool(writes[name]),
            "score": float(config.d_model if name == "input" else sizes[name]),
            "neurons": [channel in writes[name] for channel in range(config.d_model)],
        }
        for name in sources
    }
    cfg = {"n_layers": config.n_layer, "n_heads": config.heads, "d_model": config.d_model}
    return {
        "cfg": cfg | {"parallel_attn_mlp": False},
        "nodes": nodes | {"logits": {"in_graph": True}},
        "edges": edges,
    }


def _owner(node: Node, config: ModelConfig) -> str:
    """Return the head or MLP that a channel of queries, keys, values or neurons belongs to; else ""."""
    if node.site in HEAD_SITES:
        return f"a{node.layer}.h{node.channel // config.d_head}"
    return f"m{node.layer}" if node.site in NEURONS else ""


def _node(layer: int, site: Site, channel: int) -> Node:
    return Node(layer=layer, site=site.value, channel=channel)


def _channels(neurons: Any, config: ModelConfig, where: str) -> set[int]:
    if not isinstance(neurons, list) or len(neurons) != config.d_model:
        raise UserError(f"{where}: allowed: a list of {config.d_model} booleans")
    return {channel for channel, inside in enumerate(neurons) if inside}


def _scored(value: Any, where: str) -> Scored:
    """Parse a number, a boolean, or an object with `score` and `in_graph`."""
    score = value.get("score") if isinstance(value, dict) else value
    inside = value.get("in_graph") if isinstance(value, dict) else None
    if isinstance(score, bool):
        score, inside = None, score
    if score is not None and not (isinstance(score, int | float) and math.isfinite(score)):
        if isinstance(score, float) and math.isnan(score):
            return Scored(None, inside)  # EAP-IG writes NaN where it has no score
        raise UserError(f"{where}: {score!r}: allowed: a number, true, false")
    if not isinstance(inside, bool | None):
        raise UserError(f"{where}.in_graph: {inside!r}: allowed: true, false")
    return Scored(None if score is None else float(score), inside)


def _largest(scores: Iterable[float | None]) -> float | None:
    return max((score for score in scores if score is not None), key=abs, default=None)


def _same_model(cfg: Any, config: ModelConfig, path: Path) -> None:
    ours = {"n_layers": config.n_layer, "n_heads": config.heads, "d_model": config.d_model}
    for key, value in ours.items():
        if isinstance(cfg, dict) and cfg.get(key, value) != value:
            raise UserError(f"{path}: cfg.{key}: {cfg[key]!r}: the model has {value}")

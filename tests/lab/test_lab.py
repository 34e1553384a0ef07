"""The Python interface on a small random model of bytes: what it computes, and what it refuses."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

import sparsity_lab
from sparsity_lab import Circuit, Lab, Node, Pair, UserError, load_circuit
from sparsity_lab.circuits.beside_whole import as_searched
from sparsity_lab.circuits.circuit import Calibration, Scores, save_circuit
from sparsity_lab.circuits.closing import closing_matters
from sparsity_lab.circuits.edges import list_edges
from sparsity_lab.circuits.evaluator import CircuitEvaluator
from sparsity_lab.circuits.frozen import frozen_values
from sparsity_lab.circuits.nodes import NodeLayout, mean_activations
from sparsity_lab.circuits.standalone import MEANS, TEXT, save_means, save_text
from sparsity_lab.core.processors import processors
from sparsity_lab.core.run_folder import circuit_file
from sparsity_lab.core.threads import usable_threads
from sparsity_lab.data.tokenizer import END_OF_TEXT, PATTERN, checked_tokenizer
from sparsity_lab.kernels.machine import prepare_processor
from sparsity_lab.model.checkpoints import load_model, save_model
from sparsity_lab.model.dispatch import kernels_are_on
from sparsity_lab.model.sites import NODE_SITES, Site
from sparsity_lab.model.transformer import ModelConfig, Transformer
from sparsity_lab.stages.opened import Folder

N_CTX = 16
NEURON = (1, "mlp_neuron", 3)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An export: a model of bytes with every weight different from zero, and its tokenizer."""
    torch.manual_seed(0)
    config = ModelConfig(n_layer=2, d_model=16, n_ctx=N_CTX, d_head=4, d_mlp=24, activation_fraction=0.5)
    model = Transformer(config, 257)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) / 2)
    save_model(model, tmp_path)
    ranks = {bytes([byte]): byte for byte in range(256)}
    checked_tokenizer(PATTERN, ranks, {END_OF_TEXT: 256}, "bytes").save(tmp_path / "tokenizer.json")
    return tmp_path


@pytest.fixture
def lab(folder: Path) -> Lab:
    """The opened export, with a text of its own and the means over it."""
    text_wt = torch.randint(256, (8, N_CTX), generator=torch.Generator().manual_seed(1))
    save_text(text_wt, folder / TEXT)
    model = load_model(folder)
    save_means(mean_activations(model, [text_wt]), model.config, folder / MEANS)
    return sparsity_lab.load(str(folder))


def test_logits_are_the_models(lab: Lab) -> None:
    ids = lab.tokens("x = 1")
    assert ids.tolist() == [[120, 32, 61, 32, 49]]
    assert torch.equal(lab.logits("x = 1"), lab.model(ids)[0])
    assert torch.equal(lab.logits(ids[0]), lab.logits("x = 1"))
    assert torch.equal(lab.logits([120, 32, 61, 32, 49]), lab.logits("x = 1"))
    both = lab.logits(["x = 1", "y"])
    assert both.shape == (2, 5, 257)
    torch.testing.assert_close(both[1, 0], lab.logits("y")[0])


@pytest.mark.parametrize(
    ("config", "threads", "on"),
    [
        ({"kernels": "off", "threads": 1}, 1, False),
        ({"kernels": "on", "threads": 10**6}, processors(), True),
        ({"threads": None}, None, True),  # a record of an earlier version has no kernels
        (None, None, True),
    ],
)
def test_a_run_is_computed_as_it_was(
    folder: Path, monkeypatch: pytest.MonkeyPatch, config: object, threads: int | None, on: bool
) -> None:
    record = None if config is None else SimpleNamespace(config=config)
    monkeypatch.setattr(Folder, "record", record)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # so that without a number of the run's, this one stays
    before = torch.get_num_threads()
    try:
        sparsity_lab.load(folder)
        assert kernels_are_on() is on
        assert torch.get_num_threads() == (before if threads is None else threads)
        assert usable_threads() == (processors() if threads is None else threads)
    finally:
        prepare_processor()
        torch.set_num_threads(before)


def test_next_tokens_are_the_likeliest(lab: Lab) -> None:
    (first, p), *_ = lab.next_tokens("x", k=3)
    probabilities = lab.logits("x")[-1].softmax(-1)
    assert first == lab.tokenizer.token(int(probabilities.argmax()))
    assert p == pytest.approx(float(probabilities.max()))


def test_the_cache_holds_every_site(lab: Lab) -> None:
    cache = lab.cache("x = 1")
    assert {site for site, _ in cache} == {site.value for site in Site} - {"mlp_gate"}  # no gated MLP
    with pytest.raises(UserError, match="sites: 'mlp_gate': allowed: attn_in, "):
        lab.cache("x = 1", sites="mlp_gate")
    assert cache["mlp_neuron", 1].shape == (5, 24)
    assert cache["resid", 4].shape == (5, 16)
    pattern_hqk = cache["attn_pattern", 0]
    assert pattern_hqk.shape == (4, 5, 5)
    assert torch.all(pattern_hqk.sum(-1) < 1)  # the rest goes to the sink
    assert torch.equal(cache.logits, lab.logits("x = 1"))
    assert cache.tokens == ["x", " ", "=", " ", "1"]
    assert list(lab.cache("x", "mlp_in")) == [("mlp_in", 0), ("mlp_in", 1)]
    assert lab.cache(["x = 1", "y"])["mlp_neuron", 1].shape == (2, 5, 24)


@pytest.mark.parametrize(("by", "value"), [("zero", 0.0), (1.5, 1.5), ("mean", None)])
def test_ablation_sets_a_node_everywhere(lab: Lab, by: float | str, value: float | None) -> None:
    value = float(lab.mean("mlp_neuron", 1)[3]) if value is None else value
    ablated = lab.ablate(NEURON, by=by)  # type: ignore[arg-type]
    neurons_tc, before_tc = (where.cache("x = 1")["mlp_neuron", 1] for where in (ablated, lab))
    assert neurons_tc[:, 3].tolist() == pytest.approx([value] * 5)
    others = [channel for channel in range(24) if channel != 3]
    assert torch.equal(neurons_tc[:, others], before_tc[:, others])


def test_resampling_takes_one_window_of_text_a_row(lab: Lab) -> None:
    resampled = lab.ablate(NEURON, by="resample", seed=3)
    values_t = resampled.cache("x = 1")["mlp_neuron", 1][:, 3]
    (text_wc,) = lab.folder.text
    windows = [lab.cache(window_c)["mlp_neuron", 1][:5, 3] for window_c in text_wc]
    assert any(torch.allclose(values_t, window_t) for window_t in windows)
    assert torch.equal(values_t, resampled.cache("x = 1")["mlp_neuron", 1][:, 3])
    drawn = {tuple(lab.ablate(NEURON, by="resample", seed=s).logits("x = 1")[-1].tolist()) for s in range(9)}
    assert len(drawn) > 1


def test_patching_all_reads_gives_the_sources_logits(lab: Lab) -> None:
    nodes = [
        (layer, site.value, c)
        for layer in (0, 1)
        for site in (Site.ATTN_OUT, Site.MLP_OUT)
        for c in range(16)
    ]
    patched = lab.patch(nodes, "y = 2").cache("x = 1", "attn_out")
    assert torch.equal(patched["attn_out", 1], lab.cache("y = 2", "attn_out")["attn_out", 1])
    one = lab.patch(NEURON, "y = 2").cache("x = 1", "mlp_neuron")["mlp_neuron", 1]
    assert torch.equal(one[:, 3], lab.cache("y = 2", "mlp_neuron")["mlp_neuron", 1][:, 3])


def test_interventions_chain_and_leave_the_model_alone(lab: Lab) -> None:
    before = lab.logits("x = 1")
    twice = lab.ablate(NEURON, by="zero").ablate((0, "attn_q", 2), by=1.0).cache("x = 1")
    assert twice["mlp_neuron", 1][:, 3].abs().max() == 0
    assert torch.all(twice["attn_q", 0][:, 2] == 1)
    assert torch.equal(lab.logits("x = 1"), before)


def circuit_of(lab: Lab, nodes: list[Node]) -> Circuit:
    layout = NodeLayout(lab.model.config)
    scores = Scores(raw_loss=0.1, selection_loss=0.1, accuracy=1.0)
    return Circuit(
        task="own pairs",
        model="here",
        target=0.15,
        nodes=tuple(nodes),
        edges=list_edges(lab.model, layout.mask(nodes)),
        calibration=Calibration(scale=1, shift=0),
        select=scores,
        test=scores,
        provenance={},
    )


PAIRS = [(f"a{i}x", f"b{i}x", ("1", "2")) for i in range(8)]


def test_a_circuit_scores_as_the_model_with_the_rest_frozen(lab: Lab) -> None:
    nodes = [Node(layer=0, site=site.value, channel=c) for site in NODE_SITES for c in range(8)]
    circuit = circuit_of(lab, nodes)
    alone = lab.evaluate(circuit, PAIRS)
    assert alone.raw_loss == pytest.approx(lab.keep(circuit).score(PAIRS).raw_loss, abs=1e-5)
    assert alone.raw_loss != pytest.approx(lab.score(PAIRS).raw_loss, abs=1e-3)
    closed = circuit.model_copy(update={"closed": True})
    drawn = lab.evaluate(closed, PAIRS).raw_loss
    assert drawn == pytest.approx(lab.keep(closed).score(PAIRS).raw_loss, abs=1e-5)
    assert (drawn == pytest.approx(alone.raw_loss, abs=1e-5)) is not closing_matters(lab.model.config)
    everything = [
        node for g in NodeLayout(lab.model.config).groups for node in _all(g.layer, g.site, g.stop - g.start)
    ]
    assert lab.evaluate(circuit_of(lab, everything), PAIRS).raw_loss == pytest.approx(
        lab.score(PAIRS).raw_loss, abs=1e-5
    )


def _all(layer: int, site: str, width: int) -> list[Node]:
    return [Node(layer=layer, site=str(site), channel=c) for c in range(width)]


def test_pairs_may_be_records_or_tuples(lab: Lab) -> None:
    assert lab.score(PAIRS) == lab.score([Pair(*pair) for pair in PAIRS])
    assert 0 <= (lab.score(PAIRS).accuracy or 0) <= 1


def answered_pairs(lab: Lab) -> list[tuple[str, str, tuple[str, str]]]:
    """Pairs with the answers that the random model prefers by its own weights."""
    positive_bv = lab.logits([pair[0] for pair in PAIRS])[:, -1, :127]
    negative_bv = lab.logits([pair[1] for pair in PAIRS])[:, -1, :127]
    difference_v = (positive_bv - negative_bv).mean(0)[97:123]  # of the letters
    answers = (chr(97 + int(difference_v.argmax())), chr(97 + int(difference_v.argmin())))
    return [(positive, negative, answers) for positive, negative, _ in PAIRS]


def test_a_circuit_of_own_pairs_is_found_and_shown(lab: Lab) -> None:
    pairs = answered_pairs(lab)
    target = round(lab.score(pairs).raw_loss + 0.05, 3)
    circuit = lab.find_circuit(pairs, target=target, steps=5)
    assert circuit.task == "own pairs"
    assert circuit.select.raw_loss <= target
    size = f"{len(circuit.nodes)} nodes, {len(circuit.edges)} edges"
    assert repr(circuit).startswith(f"Circuit of own pairs at {target:g} nats: {size}; on test pairs ")
    options: dict[str, Any] = {"controls": False, "draws": 1, "binarisation_steps": 2, "pairs": 2}
    evidence = lab.evidence(circuit, pairs, **options)
    sparsity_lab.save_circuit(circuit, str(lab.folder.path / "mine.json"))
    assert sparsity_lab.load_circuit(str(lab.folder.path / "mine.json")) == circuit
    assert lab.evaluate(str(lab.folder.path / "mine.json"), pairs) == lab.evaluate(circuit, pairs)
    verdicts = {check.name: check.verdict for check in evidence.checks}
    assert verdicts["monosemanticity"] != "not_measured"  # it is measured on the text
    assert str(evidence).splitlines()[1].startswith("  sufficiency: ")
    page = lab.show(circuit, pairs, evidence)
    assert page.view["unpruned"] == lab.score(lab.questions.ask(pairs).test_pairs).model_dump()
    assert page.view["evidence"]["checks"][0]["name"] == "sufficiency"
    assert page.view["examples"]["nodes"]  # their values on prompts and on the text
    assert page.svg.startswith("<svg")
    assert "own pairs" in page.html
    assert page._repr_html_().startswith("<iframe srcdoc=")
    assert page.save(lab.folder.path / "page.html").read_text() == page.html


def test_controls_search_as_the_circuit_was_searched(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = answered_pairs(lab)
    target, search = round(lab.score(pairs).raw_loss + 0.05, 3), {"starts": 2, "exchanges": 1}
    circuit = lab.find_circuit(pairs, target=target, steps=3, pruning=search | {"tied_query_key": True})
    used: list[Any] = []
    monkeypatch.setattr(sparsity_lab.lab.lab, "check_circuit", lambda **given: used.append(given["pruning"]))
    lab.evidence(circuit, pairs)
    assert (used[0].starts, used[0].exchanges, used[0].tied_query_key) == (2, 1, True)
    assert used[0].target == target


@pytest.mark.parametrize("loss", [0.0, 1.0])
def test_a_circuit_that_misses_its_target_on_test_pairs_comes_with_a_warning(
    lab: Lab, loss: float, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    find = sparsity_lab.lab.lab.find_circuits

    def found(*given: Any) -> Any:
        search = find(*given)
        test = Scores(raw_loss=loss, selection_loss=loss, accuracy=None)
        return search._replace(circuits=[c.model_copy(update={"test": test}) for c in search.circuits])

    monkeypatch.setattr(sparsity_lab.lab.lab, "find_circuits", found)
    pairs = answered_pairs(lab)
    lab.find_circuit(pairs, target=round(lab.score(pairs).raw_loss + 0.05, 3), steps=3)
    assert ("test pairs it has 1.000: more pairs" in caplog.text) is (loss == 1)


@pytest.mark.parametrize("ablation", ["zero", "task_mean"])
def test_a_circuit_is_evaluated_as_it_was_searched(lab: Lab, ablation: str) -> None:
    pairs = answered_pairs(lab)
    target = round(lab.score(pairs).raw_loss + 0.05, 3)
    circuit = lab.find_circuit(pairs, target=target, steps=3, pruning={"ablation": ablation})
    assert circuit.provenance["ablation"] == ablation
    asked = lab.questions.ask(pairs)
    frozen_n = frozen_values(circuit.provenance["ablation"], lab.model, lab.means, asked.data.train)  # type: ignore[arg-type]
    assert torch.equal(lab.questions.frozen(circuit, pairs), frozen_n)
    assert not torch.equal(frozen_n, lab.means)
    kept_n = lab.mask(circuit)
    evaluator = CircuitEvaluator(lab.model, frozen_n, asked.data, "raw", closed=circuit.closed)
    assert evaluator.select_loss(kept_n) == pytest.approx(circuit.select.raw_loss, abs=1e-6)


@pytest.mark.parametrize("changes", [{"ablation": "other_prompt"}, {"freeze_norm": True}])
def test_a_circuit_beside_the_whole_models_run_is_evaluated_and_shown(
    lab: Lab, changes: dict[str, Any]
) -> None:
    pairs = answered_pairs(lab)
    target = round(lab.score(pairs).raw_loss + 0.05, 3)
    circuit = lab.find_circuit(pairs, target=target, steps=3, pruning=changes)
    assert circuit.needs_whole_run
    asked = lab.questions.ask(pairs)
    evaluator = CircuitEvaluator(
        as_searched(lab.model, circuit), lab.questions.values(circuit, pairs), asked.data, "raw", closed=True
    )
    assert evaluator.select_loss(lab.mask(circuit)) == pytest.approx(circuit.select.raw_loss, abs=1e-5)
    assert 0 <= lab.evaluate(circuit, pairs).raw_loss < float("inf")
    assert "<html" in lab.show(circuit, pairs).html
    with pytest.raises(UserError, match=r"other_prompt or freeze_norm.*allowed: evaluate"):
        lab.evidence(circuit, pairs, controls=False)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda lab: lab.logits("x" * 17), r"17 tokens: too long; this model's n_ctx is 16"),
        (lambda lab: lab.logits(""), "text: empty"),
        (lambda lab: lab.logits([]), "text: "),
        (lambda lab: lab.logits([300]), "token id 300: allowed: 0 to 256"),
        (lambda lab: lab.logits(torch.zeros(1, 1, 1, dtype=torch.int64)), r"allowed: integer ids"),
        (lambda lab: lab.logits(torch.zeros(3)), r"allowed: integer ids"),
        (lambda lab: lab.cache("x", "mlp"), "sites: 'mlp': allowed: attn_in"),
        (lambda lab: lab.cache("x", ["mlp_gate"]), "sites: 'mlp_gate': allowed: attn_in"),
        (lambda lab: lab.cache("x")["mlp_in", 7], "not in this cache"),
        (lambda lab: lab.mean("mlp_neurons", 0), "site 'mlp_neurons': allowed"),
        (lambda lab: lab.ablate((2, "mlp_in", 0)), "layer 2: the model has layers 0 to 1"),
        (lambda lab: lab.ablate((0, "mlp_in", 16)), "channels 0 to 15"),
        (lambda lab: lab.ablate([("mlp_in", 0, 1)]), r"allowed: a Node, or a tuple"),
        (lambda lab: lab.ablate(NEURON, by="median"), "by: 'median': allowed"),
        (lambda lab: lab.ablate(NEURON, by=torch.zeros(3)), "by: a tensor"),
        (lambda lab: lab.ablate(NEURON, by=float("nan")), "by: nan: allowed"),
        (lambda lab: lab.ablate(NEURON, by=lab.means * float("nan")), "by: a tensor .* of them"),
        (lambda lab: lab.score(None), "pairs: None: allowed: a task's name, a task, or a list of pairs"),
        (lambda lab: lab.score(PAIRS[0]), "allowed: a task's name, a task, or a list of pairs"),
        (lambda lab: lab.score("own pairs"), "was found for pairs of your own; give them"),
        (
            lambda lab: lab.score([("ax", "ax", ("y", "z"))]),
            "both prompts are 'ax'; allowed: two different prompts",
        ),
        (
            lambda lab: lab.score([Pair("ax", "bx", ("y", "y"))]),
            "both answers are 'y'; allowed: two different answers",
        ),
        (lambda lab: lab.circuit("for_while", target="low"), "target: 'low': allowed: a loss in nats"),
        (lambda lab: sparsity_lab.load(None), "path: NoneType: allowed: a folder's path"),  # type: ignore[arg-type]
        (lambda lab: sparsity_lab.runs(lab.folder.path), "no finished run below this folder"),
        (lambda lab: lab.patch(NEURON, "xy").logits("x"), "patch: the source"),
        (lambda lab: lab.score([("a", "b")]), r"pairs: \('a', 'b'\): allowed"),
        (lambda lab: lab.score("no such task"), "task 'no such task': unknown; allowed"),
        (lambda lab: lab.find_circuit(PAIRS[:3]), "pairs: 3: at least 4"),
        (lambda lab: lab.find_circuit(PAIRS, finder="luck"), "finder: 'luck': allowed"),
        (lambda lab: lab.find_circuit(PAIRS, 0.3), r"finder: 0.3: allowed: .*; .* target=0.3"),
        (
            lambda lab: load_circuit(None),  # type: ignore[arg-type]
            "path: NoneType: allowed: the path",
        ),
        (lambda lab: lab.find_circuit(PAIRS, stepz=5), "finder.stepz: unknown key"),
        (lambda lab: lab.find_circuit(PAIRS, target=-1), "pruning.target"),
        (
            lambda lab: lab.find_circuit(PAIRS, target=1e-9),
            "own pairs: not learned: the whole model's loss, ",
        ),
        (lambda lab: lab.find_circuit(PAIRS, target=50), "own pairs: empty solves: the empty circuit's loss"),
        (lambda lab: lab.find_circuit([*PAIRS, PAIRS[2]]), "'a2x' and 'b2x' more than once; allowed: once"),
        (lambda lab: lab.logits(5), "text: int: allowed: a string"),
        (lambda lab: lab.logits([[1, 2], [3, 4]]), r"for several rows of ids, a tensor \(b, t\)"),
        (lambda lab: lab.next_tokens(["x", "y"]), "text: allowed: one string"),
        (lambda lab: lab.next_tokens("x", k=0), "k: 0: allowed: 1 or more"),
        (lambda lab: lab.ablate("mlp_in"), "nodes: 'mlp_in': allowed: a circuit, or nodes"),
        (lambda lab: lab.ablate(5), "nodes: 5: allowed: a circuit, or nodes"),
        (lambda lab: lab.evaluate("nowhere.json"), "nowhere.json: no such file"),
        (lambda lab: lab.evaluate(PAIRS), "circuit: list: allowed: a Circuit, a task's name, a file's path"),
        (lambda lab: lab.circuit("for_while"), "no circuit of 'for_while'; there: none"),
        (lambda lab: sparsity_lab.load(lab.folder.path / "nowhere"), "no such folder"),
        (lambda lab: sparsity_lab.load(lab.folder.path.parent), "no model: it has neither"),
    ],
)
def test_bad_input_is_named(lab: Lab, call: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        call(lab)  # type: ignore[operator]


def test_means_are_computed_where_only_the_text_is_there(lab: Lab) -> None:
    (lab.folder.path / MEANS).unlink()
    torch.testing.assert_close(sparsity_lab.load(lab.folder.path).means, lab.means)


@pytest.mark.parametrize(
    ("windows_wt", "message"),
    [
        (torch.tensor([[1, 257]]), "tokens: allowed: 0 to 256"),
        (torch.zeros(0, 4), "at least one window"),
        (torch.zeros(2, N_CTX + 1), "windows longer than n_ctx 16"),
        (torch.zeros(3), r"int32 \(windows, tokens\)"),
    ],
)
def test_a_wrong_text_is_named(folder: Path, windows_wt: Tensor, message: str) -> None:
    save_text(windows_wt, folder / TEXT)
    with pytest.raises(UserError, match=message):
        _ = sparsity_lab.load(folder).means


def test_a_model_alone_runs_on_ids(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    lab = sparsity_lab.load(folder)
    assert lab.logits([1, 2]).shape == (2, 257)
    assert isinstance(lab.cache([1, 2])["resid", 0], Tensor)
    with pytest.raises(UserError, match="tokenizer"):
        lab.logits("x")
    with pytest.raises(UserError, match="no means"):
        lab.ablate(NEURON)


def test_the_package_names_what_it_offers() -> None:
    assert {"load", "runs"} <= set(dir(sparsity_lab))
    assert all(getattr(sparsity_lab, name) for name in dir(sparsity_lab))
    with pytest.raises(AttributeError):
        _ = sparsity_lab.nothing


def test_a_relative_target_has_a_circuit_of_its_own(lab: Lab) -> None:
    scores = Scores(raw_loss=0.1, selection_loss=0.1, accuracy=1.0)
    absolute = Circuit(
        task="letter",
        model="m",
        target=0.15,
        nodes=(),
        edges=(),
        calibration=Calibration(scale=1.0, shift=0.0),
        select=scores,
        test=scores,
        provenance={},
    )
    relative = absolute.model_copy(update={"target": 0.19, "target_kind": "relative", "excess": 0.15})
    for circuit in (absolute, relative):
        name = circuit_file(circuit.asked, circuit.target_kind)
        save_circuit(circuit, lab.folder.path / "circuits" / "letter" / name)
    again = sparsity_lab.load(lab.folder.path)
    assert again.circuit("letter") == again.circuit("letter", 0.15) == absolute
    assert again.circuit("letter", 0.15, kind="relative") == relative
    with pytest.raises(UserError, match=r"no circuit at 0.19 nats; there: 0.15"):
        again.circuit("letter", 0.19)

"""Circuits and rankings from files are scored: ours, those of the release, and those of MIB."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from made_run import evaluator_of, pairs_of, write_circuit, write_run

from sparsity_lab import load
from sparsity_lab.circuits.beside_whole import beside_whole
from sparsity_lab.circuits.circuit import Circuit, PrunedTokens, load_circuit, save_circuit
from sparsity_lab.circuits.nodes import NodeLayout
from sparsity_lab.circuits.standalone import MEANS, PAIRS_AS_TEXT
from sparsity_lab.circuits.token_pruning import keep_tokens
from sparsity_lab.core.errors import UserError
from sparsity_lab.core.files import read_json, write_json
from sparsity_lab.evidence.config import EvidenceConfig
from sparsity_lab.export import export
from sparsity_lab.model.checkpoints import save_model
from sparsity_lab.model.sites import NODES, Site
from sparsity_lab.score import lines_of as told_by
from sparsity_lab.score import main
from sparsity_lab.stages.opened import open_folder
from sparsity_lab.stages.scored_pairs import question_in
from sparsity_lab.stages.scoring import Report, score_file
from sparsity_lab.tasks.task import Pair

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Circuit]:
    """A run's folder, the path of its circuit, and the circuit."""
    run = tmp_path_factory.mktemp("made") / "run"
    path, circuit = write_run(run, pruned=True)
    return run, path, circuit


def raw_losses(report: Report) -> dict[str, float]:
    return {row.name: row.scores.raw_loss for row in report.rows if row.scores is not None}


def test_a_circuit_of_ours_has_the_scores_of_its_record(made: tuple[Path, Path, Circuit]) -> None:
    run, path, circuit = made
    report = score_file(path, open_folder(run), evidence=EvidenceConfig(binarisation_steps=2, pairs=8))
    found, pruned = report.rows[:2]
    assert (found.name, found.nodes, found.edges) == ("circuit", *circuit.counts)
    assert found.scores == circuit.test
    assert circuit.pruned is not None
    assert (pruned.name, pruned.edges) == ("pruned edges", len(circuit.pruned.edges))
    assert pruned.scores is not None
    assert pruned.scores.raw_loss == pytest.approx(circuit.pruned.test.raw_loss, abs=1e-5)
    assert {row.name for row in report.rows[2:]} == {"edges only", "whole model", "no nodes"}
    assert circuit.edges_only is not None
    assert raw_losses(report)["edges only"] == pytest.approx(circuit.edges_only.raw_loss, abs=1e-5)
    measured = {check.name for check in report.checks if check.verdict != "not_measured"}
    assert {"sufficiency", "necessity", "minimality", "binarisation"} <= measured
    lines = told_by(report)
    for check in report.checks:
        assert (f"  rule: {check.rule}" in lines) == (check.name in measured)
    reasons = {check.name: check.sentence for check in report.checks if check.verdict == "not_measured"}
    assert "pretraining text" in reasons["robustness"]
    assert report.notes == ()


def test_pruned_tokens_have_a_row_of_their_own(tmp_path: Path) -> None:
    path, circuit = write_run(tmp_path / "run")
    opened = open_folder(tmp_path / "run")
    kept_v = torch.arange(opened.model.vocab_size) % 2 == 0
    evaluator = replace(evaluator_of(opened.model), model=keep_tokens(opened.model, kept_v))
    calibration, select, test = evaluator.scores(NodeLayout(opened.model.config).mask(circuit.nodes))
    tokens = tuple(kept_v.nonzero().flatten().tolist())
    pruned = PrunedTokens(tokens=tokens, calibration=calibration, select=select, test=test)
    assert test != circuit.test
    save_circuit(circuit.model_copy(update={"tokens": pruned}), path)
    rows = {row.name: row.scores for row in score_file(path, opened).rows}
    assert rows["pruned tokens"] == test
    assert rows["circuit"] == circuit.test
    changed = read_json(path)
    changed["tokens"]["tokens"] = [300]
    write_json(path, changed)
    with pytest.raises(UserError, match="tokens: 300: allowed: 0 to 299"):
        score_file(path, opened)


@pytest.mark.parametrize("found", [{"ablation": "other_prompt"}, {"freeze_norm": True}])
def test_a_circuit_found_beside_the_whole_model_keeps_its_scores(
    tmp_path: Path, found: dict[str, Any]
) -> None:
    run = tmp_path / "run"
    write_run(run)
    evaluator, other_prompt = evaluator_of(open_folder(run).model), "ablation" in found
    means_n = torch.zeros_like(evaluator.means_n) if other_prompt else evaluator.means_n
    beside = beside_whole(evaluator.model, other_prompt, "freeze_norm" in found)
    path = write_circuit(
        run / "circuits" / "other", replace(evaluator, model=beside, means_n=means_n), run / "model", **found
    )
    circuit = load_circuit(path)
    report = score_file(path, open_folder(run), evidence=EvidenceConfig())
    assert report.rows[0].scores == circuit.test
    plain = read_json(path)
    plain["provenance"] = {"method": "random"}
    write_json(path.with_name("plain.json"), plain)
    means = run / "circuits" / "letter" / MEANS
    as_plain = score_file(path.with_name("plain.json"), open_folder(run), means=means)
    assert raw_losses(as_plain)["circuit"] != pytest.approx(circuit.test.raw_loss, abs=1e-3)
    assert not report.checks
    assert "no checks" in report.notes[0]
    script = [sys.executable, str(ROOT / "docs" / "recompute.py"), str(run / "model"), str(path)]
    told = subprocess.run(script, capture_output=True, text=True, check=False)
    assert told.returncode == other_prompt
    assert ("sparsity_lab.score" in told.stderr) is other_prompt
    model = load(run)
    with pytest.raises(UserError, match=r"other_prompt or freeze_norm.*allowed: evaluate"):
        model.keep(circuit)
    pairs = [(pair.positive, pair.negative, pair.answers) for pair in pairs_of("test")]
    assert model.evaluate(circuit, pairs).raw_loss == pytest.approx(circuit.test.raw_loss, abs=1e-4)
    if other_prompt:
        with pytest.raises(UserError, match=r"--means.*allowed: none"):
            score_file(path, open_folder(run), means=means)


def test_the_program_prints_and_writes_the_report(
    made: tuple[Path, Path, Circuit], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, _, circuit = made
    export(run, tmp_path / "out", circuits="mib")
    copied = tmp_path / "out" / "circuits" / "letter" / "circuit-5.json"
    arguments = [str(copied), "--model", str(tmp_path / "out"), "--no-evidence"]
    main([*arguments, "--json", str(tmp_path / "report.json")])
    said = capsys.readouterr().out
    assert f"{circuit.test.raw_loss:.4f}" in said
    assert "losses in nats, on 15 pairs" in said
    assert read_json(tmp_path / "report.json")["rows"][0]["nodes"] == len(circuit.nodes)
    main([str(copied.with_name("mib-5.json")), *arguments[1:], "--means", str(copied.with_name(MEANS))])
    assert "in_graph" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="no such folder"):
        main([str(copied), "--model", str(tmp_path / "nowhere")])


def test_another_model_is_refused_unless_asked_for(made: tuple[Path, Path, Circuit], tmp_path: Path) -> None:
    run, path, _ = made
    other = open_folder(run).model
    other.blocks[0].get_parameter("mlp.up.weight").zero_()
    save_model(other, tmp_path)
    opened = open_folder(tmp_path)
    with pytest.raises(UserError, match=r"model_hash: \w{12}: .* has \w{12}; allowed: .* or --other-model"):
        score_file(path, opened)
    assert score_file(path, opened, other_model=True).rows[0].scores is not None


def test_pairs_of_the_users_own(made: tuple[Path, Path, Circuit], tmp_path: Path) -> None:
    run, path, circuit = made
    report = score_file(path, open_folder(run), pairs=path.with_name(PAIRS_AS_TEXT))
    assert report.rows[0].scores is not None
    assert report.rows[0].scores.raw_loss == pytest.approx(circuit.test.raw_loss, abs=1e-6)
    few = [pair for pair in pairs_of("test") if "cat" in pair.positive]
    line = {"positive": few[0].positive, "negative": few[0].negative, "answers": few[0].answers}
    (tmp_path / "few.jsonl").write_text(json.dumps(line) + "\n")
    report = score_file(path, open_folder(run), pairs=tmp_path / "few.jsonl")
    assert report.pairs == 1
    assert report.rows[0].scores is not None
    assert report.rows[0].scores.raw_loss != pytest.approx(circuit.test.raw_loss, abs=1e-3)
    (tmp_path / "few.jsonl").write_text(
        '{"positive": "a", "negative": "b", "answers": ["no single token", "8"]}'
    )
    with pytest.raises(UserError, match="the answer 'no single token' is"):
        score_file(path, open_folder(run), pairs=tmp_path / "few.jsonl")


def lines_of(pairs: list[Pair], **more: Any) -> str:
    """The pairs as lines of a file."""
    return "\n".join(
        json.dumps({"positive": p.positive, "negative": p.negative, "answers": p.answers} | more)
        for p in pairs
    )


def test_pairs_without_a_split_never_choose_and_score_at_once(
    made: tuple[Path, Path, Circuit], tmp_path: Path
) -> None:
    run, path, circuit = made
    opened, file = open_folder(run), tmp_path / "all.jsonl"
    file.write_text(lines_of(pairs_of("test")))
    question = question_in(file, circuit, opened)
    halves = [{tuple(row.tolist()) for row in batch.tokens_bt} for batch in (question.select, question.test)]
    assert not halves[0] & halves[1]
    assert len(halves[0] | halves[1]) == len(question.scored.tokens_bt) == 2 * 15
    assert len(question.texts) == 8
    report = score_file(path, opened, pairs=file, evidence=EvidenceConfig(binarisation_steps=1, pairs=8))
    assert report.pairs == 15  # nothing is chosen for a circuit
    assert report.notes[-1].startswith("the pairs are not split into select and test: 7 chosen at random")
    assert score_file(path, opened, pairs=file).notes == ()

    names = [*(f"a{layer}.h{head}" for layer in range(2) for head in range(4)), "m0", "m1"]
    write_json(tmp_path / "ranking.json", {"nodes": {name: {"score": 1.0} for name in names}})
    report = score_file(tmp_path / "ranking.json", opened, file, path.with_name(MEANS), target=50)
    assert report.pairs == 8
    assert "7 chosen at random" in report.notes[-1]


def test_marked_pairs_are_used_as_they_are_marked(made: tuple[Path, Path, Circuit], tmp_path: Path) -> None:
    run, _, circuit = made
    opened, file = open_folder(run), tmp_path / "marked.jsonl"
    train, test = lines_of(pairs_of("train"), split="train"), lines_of(pairs_of("test")[:5], split="test")
    file.write_text(f"{train}\n{test}")
    question = question_in(file, circuit, opened)
    assert torch.equal(question.scored.tokens_bt, question.test.tokens_bt)
    assert [len(batch.label_b) // 2 for batch in (question.select, question.test)] == [15, 5]
    assert question.note == ""
    file.write_text(train)
    with pytest.raises(UserError, match=r"marked.jsonl: no pair has the split 'test'$"):
        question_in(file, circuit, opened)
    file.write_text(f"{test}\n{lines_of(pairs_of('select'))}")
    with pytest.raises(UserError, match=r"allowed: a split in every line of a task, or in none$"):
        question_in(file, circuit, opened)
    file.write_text(lines_of(pairs_of("test")[:1]))
    assert question_in(file, circuit, opened).note.startswith("there is one pair")


def test_of_several_tasks_in_a_file_the_circuits_own_is_scored(
    made: tuple[Path, Path, Circuit], tmp_path: Path
) -> None:
    run, path, circuit = made
    pair = pairs_of("test")[0]
    line = {"positive": pair.positive, "negative": pair.negative, "answers": pair.answers}
    other = {"positive": "c;", "negative": "d.", "answers": ["7", "8"], "name": "other"}  # other last tokens
    (tmp_path / "two.jsonl").write_text("\n".join(map(json.dumps, (line | {"name": circuit.task}, other))))
    assert score_file(path, open_folder(run), pairs=tmp_path / "two.jsonl").pairs == 1
    other_task = circuit.model_dump(mode="json") | {"task": "third", "frozen": None, "pairs": None}
    write_json(tmp_path / "third.json", other_task)
    with pytest.raises(UserError, match=r"two.jsonl: tasks letter, other; allowed: one, or the circuit's"):
        score_file(tmp_path / "third.json", open_folder(run), pairs=tmp_path / "two.jsonl")
    (tmp_path / "one.jsonl").write_text(json.dumps(other))
    assert score_file(path, open_folder(run), pairs=tmp_path / "one.jsonl").pairs == 1


def test_a_circuit_with_nothing_beside_it_has_sizes_and_says_what_is_missing(
    made: tuple[Path, Path, Circuit], tmp_path: Path
) -> None:
    run, path, circuit = made
    plain = circuit.model_dump(mode="json") | {"frozen": None, "pairs": None}
    write_json(tmp_path / "alone.json", plain)
    report = score_file(tmp_path / "alone.json", open_folder(run))
    assert (report.rows[0].nodes, report.rows[0].edges) == circuit.counts
    assert report.rows[0].scores is None
    assert ["--means FILE" in note or "--pairs FILE" in note for note in report.notes] == [True, True]
    whole = score_file(
        tmp_path / "alone.json",
        open_folder(run),
        pairs=path.with_name(PAIRS_AS_TEXT),
        means=path.with_name(MEANS),
    )
    assert raw_losses(whole)["circuit"] == pytest.approx(circuit.test.raw_loss, abs=1e-6)
    write_json(tmp_path / "alone.json", plain | {"nodes": [{"layer": 9, "site": "attn_in", "channel": 0}]})
    with pytest.raises(UserError, match=r"nodes: .* no node of this model"):
        score_file(tmp_path / "alone.json", open_folder(run))


def test_a_circuit_of_the_release_in_a_released_model(
    made: tuple[Path, Path, Circuit], tmp_path: Path
) -> None:
    run, path, circuit = made
    export(run, tmp_path / "out", layout="released")
    kept: dict[str, list[int]] = {}
    for node in circuit.nodes:
        kept.setdefault(f"{node.layer}.{NODES[Site(node.site)].released}", []).append(node.channel)
    importances = {
        "task_samples": (torch.ones(2, 3).long(), {}),
        "loss": torch.tensor(0.2),
        "interv_loss": torch.tensor(0.3),
    }
    channels = {name: torch.tensor(indices) for name, indices in kept.items()}
    torch.save({"circuit_data": channels, "importances": importances}, tmp_path / "viz_data.pt")
    report = score_file(
        tmp_path / "viz_data.pt",
        open_folder(tmp_path / "out"),
        pairs=path.with_name(PAIRS_AS_TEXT),
        means=path.with_name(MEANS),
    )
    assert report.kind == "released"
    assert (report.rows[0].nodes, report.rows[0].edges) == circuit.counts
    assert raw_losses(report)["circuit"] == pytest.approx(circuit.test.raw_loss, abs=1e-5)
    assert report.stated is not None
    assert report.stated.raw_loss == pytest.approx(0.15)


def ranked(made: tuple[Path, Path, Circuit], folder: Path, graph: Any, target: float = 0.15) -> Report:
    run, path, _ = made
    write_json(folder / "ranking.json", graph)
    return score_file(
        folder / "ranking.json",
        open_folder(run),
        pairs=path.with_name(PAIRS_AS_TEXT),
        means=path.with_name(MEANS),
        target=target,
    )


def test_a_ranking_of_heads_and_mlps(made: tuple[Path, Path, Circuit], tmp_path: Path) -> None:
    run, path, _ = made
    names = [*(f"a{layer}.h{head}" for layer in range(2) for head in range(4)), "m0", "m1"]
    nodes = {name: {"score": index + 1.0, "in_graph": name == "m1"} for index, name in enumerate(names)}
    whole = raw_losses(score_file(path, open_folder(run)))["whole model"]
    report = ranked(made, tmp_path, {"nodes": nodes}, target=whole)
    losses = raw_losses(report)
    assert losses["top 10 of 10"] == pytest.approx(whole, abs=1e-5)
    by_name = {row.name: row for row in report.rows}
    unscored = 2 * (16 + 16 + 16 + 16)  # reads and writes of attention and MLP, which are always kept
    assert by_name["in_graph"].nodes == unscored + 24
    assert by_name["top 1 of 10"].nodes == unscored + 24
    assert by_name["top 5 of 10"].nodes == unscored + 2 * 24 + 3 * 12
    assert any(name.startswith("smallest: top ") for name in by_name)


def test_a_ranking_of_edges_between_channels(made: tuple[Path, Path, Circuit], tmp_path: Path) -> None:
    _, _, circuit = made
    assert circuit.pruned is not None
    left = set(circuit.pruned.edges)

    def name(node: Any) -> str:
        return f"{node.layer}.{node.site}.{node.channel}"

    edges = {
        f"{name(edge.source)}->{name(edge.target)}": {"score": edge.weight, "in_graph": edge in left}
        for edge in circuit.edges
    }
    report = ranked(made, tmp_path, {"edges": edges})
    by_name = {row.name: row for row in report.rows}
    assert by_name["in_graph"].edges == len(left)
    total = len(circuit.edges)
    assert by_name[f"top {total} of {total}"].edges == total
    ends = {node for edge in circuit.edges for node in (edge.source, edge.target)}
    assert by_name[f"top {total} of {total}"].nodes == len(ends)


@pytest.mark.parametrize("kind", ["file", "empty", "nowhere"])
def test_a_folder_without_a_model_is_told(tmp_path: Path, kind: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    with pytest.raises(
        UserError, match=r"no such folder|no model: it has neither .*; allowed: a run's folder"
    ):
        open_folder(tmp_path / kind)


def test_an_export_gives_its_own_means_to_circuits_from_elsewhere(
    made: tuple[Path, Path, Circuit], tmp_path: Path
) -> None:
    run, path, circuit = made
    export(run, tmp_path / "out")
    shutil.copyfile(path.with_name(MEANS), tmp_path / "out" / MEANS)
    write_json(tmp_path / "alone.json", circuit.model_dump(mode="json") | {"frozen": None, "pairs": None})
    report = score_file(
        tmp_path / "alone.json", open_folder(tmp_path / "out"), pairs=path.with_name(PAIRS_AS_TEXT)
    )
    assert raw_losses(report)["circuit"] == pytest.approx(circuit.test.raw_loss, abs=1e-6)

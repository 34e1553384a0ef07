"""Pages and figures of circuits: whole in one file, every string from outside escaped (S12), plain errors."""

import json
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from made_up_run import EVIL, MORE, NODES, PLAIN_TASK, TASK, write_run

from analysis.circuit_page import load_view
from analysis.view_circuit import main
from sparsity_lab.viewer.page import MAX_NODES, as_data, figure, page

ROOT = Path(__file__).parents[2]
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    write_run(folder)
    return folder


def test_a_page_is_one_file_that_loads_nothing(run: Path) -> None:
    html = page(load_view(run, TASK))
    assert not re.findall(r"<(?:script|link|img|iframe)[^>]*\s(?:src|href)=\"(?!data:,)", html)
    assert "default-src &#x27;none&#x27;" in html
    assert "Copyright (c) 2012-2014 Chris Pettitt" in html


def test_s12_nothing_from_outside_is_markup(run: Path) -> None:
    html = page(load_view(run, TASK))
    assert "<img" not in html
    assert html.count("</script>") == 5
    held = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)
    assert held is not None
    assert json.loads(held[1])["examples"]["vocabulary"][0].endswith(f"{EVIL}\n")


@pytest.mark.parametrize("text", ["</script>", "<!--<script>", "]]>", "&amp;", "\u2028", "{title}"])
def test_s12_data_cannot_close_its_element(text: str) -> None:
    written = as_data({text: [text]})
    assert json.loads(written) == {text: [text]}
    assert not set("<>&\u2028") & set(written)


def test_s12_a_figure_is_well_formed_and_has_no_foreign_markup(run: Path) -> None:
    root = ElementTree.fromstring(figure(load_view(run, TASK)))
    tags = {element.tag.removeprefix(SVG) for element in root.iter()}
    assert tags == {"svg", "title", "style", "rect", "text", "g", "path"}
    assert not [name for element in root.iter() for name in element.attrib if name.startswith("on")]


def test_a_figure_shows_the_circuits_nodes_edges_heads_and_ends(run: Path) -> None:
    view = load_view(run, TASK)
    for target, nodes in ((0.15, NODES), (0.05, MORE)):
        root = ElementTree.fromstring(figure(view, target))
        groups = [element.get("class", "") for element in root.iter(f"{SVG}g")]
        links = [element.get("class", "") for element in root.iter(f"{SVG}path")]
        circuit = next(c for c in view["circuits"] if c["target"] == target)
        assert sum(" attn_" in group or " mlp_" in group for group in groups) == len(nodes)
        assert sum(link.startswith("link edge") for link in links) == len(circuit["edges"])
        signs = sum(link.startswith("link edge negative") for link in links)
        assert signs == sum(weight < 0 for _, _, weight, _ in circuit["edges"])
        assert groups.count("head") == 1
        assert groups.count("node token") == groups.count("node answer") == 2


def test_edges_that_pruning_dropped_are_told_apart_and_both_counts_are_there(run: Path) -> None:
    view = load_view(run, TASK)
    larger = view["circuits"][0]
    kept = sum(kept for *_, kept in larger["edges"])
    assert 2 <= kept == larger["pruned"]["edges"] < larger["counts"][1]
    svg = figure(view, 0.05)
    links = [element.get("class", "") for element in ElementTree.fromstring(svg).iter(f"{SVG}path")]
    assert sum(link.endswith(" dropped") for link in links) == larger["counts"][1] - kept
    assert f"{larger['counts'][1]} edges ({kept} after edge pruning) at 0.05 nats" in svg


def test_a_relative_target_is_told_as_one(tmp_path: Path) -> None:
    write_run(tmp_path, examples=False, evidence=False)
    path = tmp_path / "circuits" / PLAIN_TASK / "circuit-0.05.json"
    relative = {"target": 0.1834567, "target_kind": "relative", "excess": 0.15}
    path.with_name("circuit-plus-0.15.json").write_text(json.dumps(json.loads(path.read_text()) | relative))
    labels = [circuit["label"] for circuit in load_view(tmp_path, PLAIN_TASK)["circuits"]]
    assert labels == ["0.05 nats", "0.15 nats", "0.183 nats (the whole model's loss + 0.15)"]


def test_a_circuit_from_before_edge_pruning_shows_all_its_edges(tmp_path: Path) -> None:
    write_run(tmp_path, examples=False, evidence=False)
    path = tmp_path / "circuits" / PLAIN_TASK / "circuit-0.05.json"
    plain = json.loads(path.read_text())
    del plain["pruned"]
    path.write_text(json.dumps(plain))
    older = load_view(tmp_path, PLAIN_TASK)["circuits"][0]
    assert older["pruned"] is None
    assert all(kept for *_, kept in older["edges"])
    assert "dropped" not in [
        name
        for link in re.findall(r'class="link ([^"]*)"', figure(load_view(tmp_path, PLAIN_TASK), 0.05))
        for name in link.split()
    ]


def test_columns_stand_in_the_order_of_the_forward_pass(run: Path) -> None:
    root = ElementTree.fromstring(figure(load_view(run, TASK), 0.05))
    place: dict[str, float] = {}
    for group in root.iter(f"{SVG}g"):
        box = group.find(f"{SVG}rect")
        assert box is not None
        place.setdefault(group.get("class", "").removeprefix("node "), float(box.get("x", "")))
    order = ["token", "attn_in", "attn_v", "attn_out", "mlp_in", "mlp_neuron", "mlp_out", "answer"]
    assert [place[name] for name in order] == sorted(place[name] for name in order)


def test_a_figure_is_the_same_every_time(run: Path) -> None:
    assert figure(load_view(run, TASK)) == figure(load_view(run, TASK))


def test_a_circuit_without_examples_or_evidence_is_still_drawn(run: Path) -> None:
    view = load_view(run, PLAIN_TASK)
    assert view["examples"] is view["evidence"] is None
    assert figure(view).startswith("<svg")


def test_a_page_without_evidence_has_the_command_that_makes_it(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run.parent)
    told = load_view(run, PLAIN_TASK)["without_evidence"]
    command = f"python -m sparsity_lab.run of={run.name} evidence=default 'evidence.tasks=[{PLAIN_TASK}]'"
    assert told == f"No checks of this circuit were made. To make them: {command}"
    assert json.dumps(command) in page(load_view(run, PLAIN_TASK)).replace(told, json.dumps(command))
    assert load_view(run, TASK)["without_evidence"].endswith(" evidence=default")  # Hydra can't take the name


def test_a_page_tells_where_no_evidence_can_be_made(tmp_path: Path) -> None:
    write_run(tmp_path, examples=False, evidence=False)
    path = tmp_path / "circuits" / PLAIN_TASK / "circuit-0.15.json"
    plain = json.loads(path.read_text())
    path.write_text(json.dumps(plain | {"provenance": {"freeze_norm": True}}))
    assert "cannot run the whole model beside" in load_view(tmp_path, PLAIN_TASK)["without_evidence"]
    path.unlink()
    assert (
        "the circuit at 0.15 nats, and there is none" in load_view(tmp_path, PLAIN_TASK)["without_evidence"]
    )


def test_evidence_gives_its_own_circuit_the_measured_effects(run: Path) -> None:
    larger, smaller = load_view(run, TASK)["circuits"]
    assert larger["effects"] == []
    assert [found["drop_effect"] for found in smaller["effects"]] == [0.5, 1.5, 2.5]


def test_a_circuit_too_large_to_draw_keeps_its_counts(tmp_path: Path) -> None:
    write_run(tmp_path, examples=False, evidence=False)
    path = tmp_path / "circuits" / PLAIN_TASK / "circuit-0.15.json"
    plain = json.loads(path.read_text())
    plain["nodes"] = [{"layer": 0, "site": "attn_in", "channel": c} for c in range(MAX_NODES + 1)]
    plain["edges"] = []
    path.write_text(json.dumps(plain))
    large = load_view(tmp_path, PLAIN_TASK)["circuits"][1]
    assert large["counts"] == (MAX_NODES + 1, 0)
    assert large["nodes"] == []
    assert main([str(tmp_path), "--task", PLAIN_TASK, "--svg", str(tmp_path / "x.svg")]) == 1


def test_a_clone_writes_page_and_figure_from_any_directory(run: Path, tmp_path: Path) -> None:
    script = [sys.executable, str(ROOT / "analysis" / "view_circuit.py"), str(run), "--task", TASK]
    for more in (["--out", "page.html"], ["--svg", "figure.svg", "--target", "0.05"]):
        done = subprocess.run([*script, *more], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert (tmp_path / more[1]).stat().st_size > 3000


def test_the_page_goes_into_the_run_by_default(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(run), "--task", PLAIN_TASK]) == 0
    assert str(run / "pages" / f"{PLAIN_TASK}.html") in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--task", "wrong"], "--task wrong: not asked in run"),
        (["--task", PLAIN_TASK, "--svg", "x.svg", "--target", "0.3"], "there: 0.05, 0.15"),
    ],
)
def test_what_cannot_be_done_is_one_clear_line(
    run: Path, capsys: pytest.CaptureFixture[str], more: list[str], message: str
) -> None:
    assert main([str(run), *more]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert "\x07" not in error


def test_a_folder_that_is_no_run_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path), "--task", "x"]) == 1
    assert "not the folder of a finished run: it holds no record.json" in capsys.readouterr().err

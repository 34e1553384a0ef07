"""The page in headless Chromium, from disk, without network: it draws, selects, slides, obeys the keys."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from made_up_run import PLAIN_TASK, TASK, write_run

from analysis.circuit_page import load_view
from sparsity_lab.core.files import write_text
from sparsity_lab.viewer.page import page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium on this machine (Debian: apt-get install chromium)"
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("run")
    write_run(folder)
    found = {TASK: folder / "full.html", PLAIN_TASK: folder / "plain.html"}
    for task, path in found.items():
        write_text(path, page(load_view(folder, task)))
    return found


class Tab:
    """A page just opened, with what it complained of and what it asked the network for."""

    def __init__(self, browser: Any, path: Path, scheme: str = "light") -> None:
        self.page = browser.new_page(viewport={"width": 1400, "height": 900}, color_scheme=scheme)
        self.page.set_default_timeout(60_000)
        self.wrong: list[str] = []
        self.page.on("console", lambda message: self.wrong.append(message.text))
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("request", lambda request: self.wrong.append(request.url))
        self.page.goto(path.as_uri())
        self.wrong = [line for line in self.wrong if line not in (path.as_uri(), "data:,")]

    def count(self, selector: str) -> int:
        return int(self.page.locator(selector).count())

    def text(self, selector: str) -> str:
        return str(self.page.locator(selector).inner_text())

    def focused(self) -> str:
        return str(self.page.evaluate("document.activeElement.dataset.id || ''"))


@pytest.fixture
def tab(browser: Any, files: dict[str, Path]) -> Iterator[Tab]:
    opened = Tab(browser, files[TASK])
    yield opened
    assert opened.wrong == []
    opened.page.close()


def test_s12_it_opens_from_disk_and_hostile_text_stays_text(tab: Tab) -> None:
    assert tab.count("#graph .node:not(.token):not(.answer)") == 3
    assert tab.count("#graph .link.edge") == 2
    assert tab.count("img") == 0
    assert tab.page.title() != "broken out"
    assert TASK in tab.text("h1")
    assert "onerror" in tab.text("#below")
    tab.page.locator("#graph .node.attn_v").click()
    assert tab.count("img") == 0


def test_a_click_on_a_node_shows_all_that_is_known_of_it(tab: Tab) -> None:
    assert "How to read this" in tab.text("#panel")
    tab.page.locator("#graph .node.attn_v").click()
    panel = tab.text("#panel")
    for words in (
        "Layer 0, head 0, value 0",
        'in Python (0, "attn_v", 0)',
        "+1.500 nats",  # as the evidence says
        "1 edge inside the circuit, 15 edges outside it",
        "Highest on the task's prompts",
        "Lowest on the task's prompts",
        "Highest on pretraining text",
        "Lowest on pretraining text",
        "on a pair of prompts",
    ):
        assert words in panel
    assert tab.count("#panel .tokens") > 4
    assert tab.count("#panel .peak") > 2
    assert tab.count("#graph .node.selected") == 1


def test_a_head_shows_its_attention(tab: Tab) -> None:
    tab.page.locator("#graph .head text").click()
    assert "Layer 0, head 0" in tab.text("#panel")
    assert tab.count("#panel .pattern") == 8  # four prompts, in the circuit and in the whole model
    assert tab.count("#panel .pattern .cell") > 30


def test_pointing_at_a_node_brings_its_links_out(tab: Tab) -> None:
    tab.page.locator("#graph .node.attn_v").hover()
    assert tab.count("#graph .link.near") == 2
    tab.page.locator("h1").hover()
    assert tab.count("#graph .circuit.focused") == 0


def test_the_slider_changes_the_circuit(tab: Tab) -> None:
    assert "0.15 nats" in tab.text("#bar")
    tab.page.locator("#slider").focus()
    tab.page.keyboard.press("ArrowLeft")
    assert "0.05 nats" in tab.text("#bar")
    assert tab.count("#graph .node:not(.token):not(.answer)") == 7
    assert "All 7 nodes" in tab.text("#below")
    tab.page.keyboard.press("ArrowRight")
    assert tab.count("#graph .node:not(.token):not(.answer)") == 3


def test_dropped_edges_can_be_hidden(tab: Tab) -> None:
    tab.page.locator("#slider").focus()
    tab.page.keyboard.press("ArrowLeft")
    assert "after edge pruning" in tab.text("#size")
    dropped = tab.page.locator("#graph .link.dropped")
    assert dropped.count() > 0
    assert dropped.first.evaluate("link => getComputedStyle(link).display") != "none"
    tab.page.get_by_label("hide dropped edges").check()
    assert dropped.first.evaluate("link => getComputedStyle(link).display") == "none"
    assert "with its edges pruned" in tab.text("#below")


def test_zoom_changes_the_size_and_fit_restores_all_of_it(tab: Tab) -> None:
    def width() -> float:
        return float(tab.page.locator("#graph svg").get_attribute("width"))

    before = width()
    tab.page.get_by_label("larger").click()
    assert width() > 1.1 * before
    tab.page.get_by_text("fit", exact=True).click()
    assert width() <= tab.page.evaluate("document.getElementById('graph').clientWidth")


def test_the_keyboard_reaches_and_selects_every_part(tab: Tab) -> None:
    tab.page.locator(".zoom button").last.focus()
    tab.page.keyboard.press("Tab")
    assert tab.focused() == "0/attn_in/0"
    tab.page.keyboard.press("ArrowRight")
    assert tab.focused() == "0/attn_v/0"
    tab.page.keyboard.press("Enter")
    assert "Layer 0, head 0, value 0" in tab.text("#panel")
    tab.page.keyboard.press("ArrowRight")
    assert tab.focused() == "0/attn_out/1"
    tab.page.keyboard.press("ArrowRight")
    assert tab.focused().startswith("answer/")
    tab.page.keyboard.press("Enter")
    assert "One of the two answers" in tab.text("#panel")
    tab.page.keyboard.press("Escape")
    assert "How to read this" in tab.text("#panel")


def test_evidence_stands_in_plain_words(tab: Tab) -> None:
    below = tab.text("#below")
    assert "Without the circuit the model guesses." in below
    assert "speaks for it" in below
    assert "Rule: for: at least 0.693 nats" in below
    assert "0.75" in below


def test_a_page_without_evidence_says_how_to_get_it(files: dict[str, Path], browser: Any) -> None:
    below = Tab(browser, files[PLAIN_TASK]).text("#below")
    assert "No checks of this circuit were made. To make them: python -m sparsity_lab.run of=" in below


@pytest.mark.parametrize("misses", [True, False])
def test_a_circuit_that_misses_its_target_on_held_out_pairs_says_so(
    browser: Any, files: dict[str, Path], misses: bool, tmp_path: Path
) -> None:
    view = load_view(files[TASK].parent, TASK)
    for circuit in view["circuits"]:
        loss = circuit["target"] + 0.1 if misses else circuit["target"]
        circuit["test"] = {**circuit["test"], "selection_loss": loss}
    write_text(tmp_path / "page.html", page(view))
    said = Tab(browser, tmp_path / "page.html").text("#below")
    assert ("On the held-out pairs it misses the target" in said) is misses


@pytest.mark.parametrize("is_closed", [True, False])
def test_open_circuits_have_the_loss_of_their_edges_alone(
    browser: Any, files: dict[str, Path], is_closed: bool, tmp_path: Path
) -> None:
    view = load_view(files[TASK].parent, TASK)
    for circuit in view["circuits"]:
        circuit |= {"closed": is_closed, "edges_only": circuit["test"]}
    write_text(tmp_path / "page.html", page(view))
    opened = Tab(browser, tmp_path / "page.html")
    said = opened.text("#below")
    assert ("with weights into dropped nodes at zero" in said) is not is_closed
    assert ("the circuit computes from the edges drawn" in said) is is_closed
    assert "false" not in str(opened.page.locator("#below").text_content())  # text between cells counts too
    opened.page.close()


def test_a_run_without_examples_says_so(browser: Any, files: dict[str, Path]) -> None:
    tab = Tab(browser, files[PLAIN_TASK])
    assert tab.count("#graph .node") == 3
    assert "no examples of activations" in tab.text("#note")
    assert "No checks of this circuit were made" in tab.text("#below")
    tab.page.locator("#graph .node.attn_v").click()
    assert "1 edge inside the circuit." in tab.text("#panel")
    assert tab.wrong == []


def test_light_and_dark_differ_and_print_leaves_the_controls_out(
    browser: Any, files: dict[str, Path]
) -> None:
    grounds = set()
    for scheme in ("light", "dark"):
        tab = Tab(browser, files[TASK], scheme)
        grounds.add(tab.page.evaluate("getComputedStyle(document.body).backgroundColor"))
        ink = tab.page.evaluate("getComputedStyle(document.querySelector('.circuit .label')).fill")
        grounds.add(ink)
    assert len(grounds) == 4
    tab.page.emulate_media(media="print")
    assert not tab.page.locator(".zoom").is_visible()
    assert tab.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert tab.wrong == []

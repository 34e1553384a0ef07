"use strict";
// The page: a slider over target losses, the graph, a panel for what is selected, tables below.
(() => {
  const { h, number, nats, percent, plural } = Panel;
  const view = JSON.parse(document.getElementById("data").textContent);
  const at = (id) => document.getElementById(id);
  const state = { index: Math.max(0, view.circuits.findIndex((c) => c.target === view.main)), selected: null, zoom: null, pruned: false };
  const placed = new Map(); // by the slider's place: laying out a large circuit takes seconds
  let graph = null;

  function head() {
    const run = view.run;
    const facts = [run.name, run.sweep && `sweep ${run.sweep}`, run.loss !== null && `validation loss ${number(run.loss, 4)} nats per token`,
      run.nonzeros !== null && `${number(run.nonzeros, 7)} of ${number(run.weights, 7)} weights nonzero`].filter(Boolean);
    at("head").append(h("h1", {}, view.task), h("p", {}, view.description),
      h("p", { class: "soft" }, facts.join(" · ")));
    if (run.command) at("head").append(h("p", { class: "soft" }, "made by ", h("code", {}, run.command)));
  }

  function bar() {
    const last = view.circuits.length - 1;
    const show = () => {
      const circuit = view.circuits[state.index];
      at("target").textContent = circuit.label;
      at("slider").setAttribute("aria-valuetext", circuit.label);
      at("size").textContent = `${plural(circuit.counts[0], "node")}, ${plural(circuit.counts[1], "edge")}` +
        (circuit.pruned ? `, ${plural(circuit.pruned.edges, "edge")} after edge pruning` : "");
    };
    const slider = h("input", { type: "range", id: "slider", min: 0, max: last, step: 1, value: state.index, list: "stops",
      oninput: (event) => { state.index = Number(event.target.value); show(); redraw(); } });
    if (!last) slider.disabled = true;
    at("bar").append(...[h("label", {}, "Target loss", slider, h("output", { id: "target", for: "slider" })),
      h("datalist", { id: "stops" }, view.circuits.map((c, i) => h("option", { value: i, label: Number(c.target.toFixed(3)) }))),
      h("span", { id: "size" }),
      view.circuits.some((c) => c.pruned) ? h("label", {}, h("input", { type: "checkbox", id: "pruned",
        onchange: (event) => { state.pruned = event.target.checked; hide(); } }), "hide dropped edges") : null,
      h("span", { class: "zoom", role: "group", "aria-label": "Zoom" },
        h("button", { type: "button", "aria-label": "smaller", onclick: () => zoom(0.8) }, "−"),
        h("button", { type: "button", onclick: () => zoom(0) }, "fit"),
        h("button", { type: "button", "aria-label": "larger", onclick: () => zoom(1.25) }, "+"))].filter(Boolean));
    show();
  }

  // factor 0: all of it; null: all of it while that is legible
  function zoom(factor) {
    const svg = at("graph").querySelector("svg");
    if (!svg) return;
    const fit = Math.min(1.35, at("graph").clientWidth / graph.width, 0.76 * innerHeight / graph.height);
    const legible = Math.max(fit, 0.5);
    state.zoom = factor === null ? null : factor === 0 ? fit : Math.min(3, Math.max(0.1, (state.zoom || legible) * factor));
    const scale = state.zoom || legible;
    svg.setAttribute("width", Math.floor(graph.width * scale));
    svg.setAttribute("height", Math.floor(graph.height * scale));
  }

  // the edges that edge pruning dropped, dashed otherwise
  function hide() {
    const svg = at("graph").querySelector("svg");
    if (svg) svg.classList.toggle("pruned", state.pruned);
  }

  function redraw() {
    const circuit = view.circuits[state.index];
    at("note").textContent = "";
    if (!circuit.nodes.length) {
      graph = null;
      at("graph").replaceChildren();
      at("note").textContent = circuit.counts[0] ? "This circuit has too many nodes to draw." : "This circuit has no nodes.";
      at("panel").replaceChildren();
    } else {
      if (!placed.has(state.index)) placed.set(state.index, Graph.place(Graph.build(view, state.index)));
      graph = placed.get(state.index);
      // the one place where markup is made from a string: draw() escapes every text in it
      at("graph").innerHTML = Graph.draw(graph, { title: `${view.task}, ${circuit.label}` });
      const notes = [];
      if (graph.edges.length > Graph.MOST_EDGES) notes.push(`Drawn are the ${Graph.MOST_EDGES} strongest of ${graph.edges.length} edges.`);
      if (!view.examples) notes.push("This run has no examples of activations: run it again with the same settings, and they are added.");
      at("note").textContent = notes.join(" ");
      zoom(null);
      hide();
      const first = at("graph").querySelector(".node");
      if (first) first.setAttribute("tabindex", "0");
      select(things().some((t) => t.dataset.id === state.selected) ? state.selected : null);
    }
    below();
  }

  const things = () => [...at("graph").querySelectorAll(".node, .head")];
  const element = (id) => things().find((thing) => thing.dataset.id === id);

  function highlight(id) {
    const svg = at("graph").querySelector("svg");
    if (!svg) return;
    svg.classList.toggle("focused", id !== null && !id.startsWith("head/"));
    const near = new Set([id]);
    for (const link of svg.querySelectorAll(".link")) {
      const isNear = link.dataset.source === id || link.dataset.target === id;
      link.classList.toggle("near", isNear);
      if (isNear) near.add(link.dataset.source).add(link.dataset.target);
    }
    for (const thing of things()) {
      thing.classList.toggle("near", near.has(thing.dataset.id));
      thing.classList.toggle("selected", thing.dataset.id === state.selected);
    }
  }

  function contents(id) {
    if (id === null) return Panel.overview(graph, choose);
    if (id.startsWith("head/")) { const [, layer, number_] = id.split("/").map(Number); return Panel.ofHead(view, graph, layer, number_); }
    return Panel.ofNode(view, state.index, graph, graph.nodes.find((node) => node.id === id), choose);
  }

  function select(id) {
    state.selected = id;
    at("panel").replaceChildren(...contents(id).filter(Boolean));
    at("panel").scrollTop = 0;
    highlight(id);
  }

  // from a list: also moves the keyboard's place in the graph
  function choose(id) { select(id); focus(element(id)); }

  function focus(thing) {
    if (!thing) return;
    for (const other of things()) other.setAttribute("tabindex", other === thing ? "0" : "-1");
    thing.focus({ preventScroll: false });
  }

  // left and right: the strongest neighbour, else the nearest node of the next column; up and down: the column
  function move(id, key) {
    if (id.startsWith("head/")) {
      const [, layer, head] = id.split("/").map(Number);
      return graph.nodes.find((node) => node.layer === layer && node.head === head).id;
    }
    const node = graph.nodes.find((found) => found.id === id);
    if (key === "ArrowUp" || key === "ArrowDown") {
      const column = graph.nodes.filter((other) => other.rank === node.rank).sort((a, b) => a.y - b.y);
      const next = column[column.indexOf(node) + (key === "ArrowDown" ? 1 : -1)];
      return next && next.id;
    }
    const [own, other] = key === "ArrowRight" ? ["source", "target"] : ["target", "source"];
    const links = graph.links.filter((link) => link[own] === id).sort((a, b) => Math.abs(b.weight) - Math.abs(a.weight));
    if (links.length) return links[0][other];
    const column = graph.nodes.filter((found) => found.rank === node.rank + (key === "ArrowRight" ? 1 : -1));
    column.sort((a, b) => Math.abs(a.y - node.y) - Math.abs(b.y - node.y));
    return column.length ? column[0].id : null;
  }

  function listen() {
    const of = (event) => event.target.closest && event.target.closest(".node, .head");
    at("graph").addEventListener("click", (event) => { const thing = of(event); select(thing ? thing.dataset.id : null); if (thing) focus(thing); });
    at("graph").addEventListener("mouseover", (event) => { const thing = of(event); highlight(thing ? thing.dataset.id : state.selected); });
    at("graph").addEventListener("mouseleave", () => highlight(state.selected));
    at("graph").addEventListener("keydown", (event) => {
      const thing = of(event);
      if (!thing) return;
      if (event.key === "Enter" || event.key === " ") select(thing.dataset.id);
      else if (event.key.startsWith("Arrow")) {
        const next = move(thing.dataset.id, event.key);
        if (next) { focus(element(next)); highlight(next); }
      } else return;
      event.preventDefault();
    });
    document.addEventListener("keydown", (event) => { if (event.key === "Escape" && graph) select(null); });
    window.addEventListener("resize", () => { if (graph && state.zoom === null) zoom(null); });
  }

  function below() { at("below").replaceChildren(...[scores(), evidence(), prompts(), nodes()].filter(Boolean)); }

  const card = (title, ...children) => h("section", { class: "card" }, h("h2", {}, title), ...children);
  const row = (tag, cells) => h("tr", {}, cells.map((cell, i) => h(tag, i ? { class: "number" } : {}, cell)));

  function scores() {
    const circuit = view.circuits[state.index];
    const raw = circuit.test.selection_loss === circuit.test.raw_loss;
    const cells = (name, s) => [name, nats(s.raw_loss), ...(raw ? [] : [nats(s.selection_loss)]), percent(s.accuracy)];
    return card("How well it answers",
      h("table", {}, h("thead", {}, row("th", ["on held-out pairs", "loss", ...(raw ? [] : ["calibrated loss"]), "accuracy"])),
        h("tbody", {}, view.unpruned && row("td", cells("the whole model", view.unpruned)), row("td", cells("the circuit alone", circuit.test)),
          circuit.closed || !circuit.edges_only ? null : row("td", cells("with weights into dropped nodes at zero", circuit.edges_only)),
          circuit.pruned && row("td", cells("with its edges pruned", circuit.pruned.test)))),
      circuit.test.selection_loss <= circuit.target ? null : h("p", {}, `The circuit was chosen on selection pairs, where its loss is ${nats(circuit.select.selection_loss)}. On the held-out pairs it misses the target of ${nats(circuit.target)}.`),
      h("p", { class: "soft" }, "Loss between the two answers; guessing costs 0.693 nats." +
        (circuit.closed ? " Weights into dropped nodes are zero: the circuit computes from the edges drawn." : "") +
        (raw ? "" : " Calibrated: after a scale and a shift of the circuit's logits, which can hide that it ranks the answers wrongly; accuracy is of the raw logits.")));
  }

  const VERDICTS = { for: "speaks for it", against: "speaks against it", mixed: "mixed", not_measured: "not measured" };
  function evidence() {
    if (!view.evidence) return card("Evidence", h("p", { class: "soft" }, view.without_evidence));
    const found = view.evidence;
    const rows = found.checks.map((check) => h("tr", {}, h("td", {}, check.name.replace(/_/g, " ")),
      h("td", {}, h("span", { class: `verdict ${check.verdict}` }, VERDICTS[check.verdict] || check.verdict)),
      h("td", {}, check.sentence, check.rule ? h("div", { class: "soft" }, `Rule: ${check.rule}.`) : null), h("td", {}, check.values.map((m) => h("div", {}, `${m.name}: ${m.unit === "fraction" ? percent(m.value) : `${number(m.value)} ${m.unit}`}`)))));
    return card(`Evidence, for the circuit at ${found.target} nats`, h("table", {},
      h("thead", {}, h("tr", {}, ["check", "verdict", "in words", "measured"].map((name) => h("th", {}, name)))), h("tbody", {}, rows)));
  }

  function prompts() {
    const examples = view.examples;
    const seen = examples && examples.circuits.find((c) => c.target === view.circuits[state.index].target);
    if (!seen) return null;
    const shown = examples.prompts.map((prompt, b) => {
      const text = prompt.text, zero = examples.texts[text].map(() => 0);
      const answers = prompt.answers.map((answer, i) => [`${Graph.visible(answer)}${i === prompt.right ? "  (right)" : ""}`, number(prompt.logits[i]), number(seen.logits[b][i])]);
      const gap = (logits) => number(logits[prompt.right] - logits[1 - prompt.right]);
      return h("div", {}, h("div", { class: "tokens" }, Panel.tokens(examples, text, zero, 1, { lines: true })),
        h("table", {}, h("thead", {}, row("th", ["answer", "whole model", "circuit"])),
          h("tbody", {}, answers.map((cells) => row("td", cells)), row("td", ["right minus wrong", gap(prompt.logits), gap(seen.logits[b])]))));
    });
    return card("Prompts and the logits of their answers", h("div", { class: "pairs" },
      shown.filter((_, b) => b % 2 === 0).map((first, pair) => h("div", { class: "pair" }, first, shown[2 * pair + 1]))));
  }

  function nodes() {
    if (!graph) return null;
    const examples = view.examples;
    const seen = examples && examples.circuits.find((c) => c.target === graph.circuit.target);
    const answers = examples ? Panel.answerNames(examples) : [];
    const own = graph.nodes.filter((node) => node.kind === "node");
    const count = (end, id) => String(graph.edges.filter((edge) => edge[end] === id).length);
    const rows = own.map((node, i) => {
      const button = h("button", { class: "node", type: "button", onclick: () => choose(node.id) }, Graph.nameOf(node, graph.dHead));
      return row("td", [button, node.effect === null ? "–" : nats(node.effect), count("target", node.id), count("source", node.id),
        ...(seen ? seen.nodes[i].at_end.map((value) => number(value)) : [])]);
    });
    return card(`All ${plural(own.length, "node")}`, h("table", {}, h("thead", {}, row("th",
      ["node", "cost of ablating it", "edges in", "edges out", ...(seen ? answers.map((a) => `value at the end, ${a} right`) : [])])), h("tbody", {}, rows)),
    h("p", { class: "soft" }, "Cost of ablating: the rise of the circuit's loss (calibrated, if its selection was) when the node is frozen at its mean too; on all test pairs for the circuit that was checked (see Evidence), on a few for the others."));
  }

  head();
  bar();
  listen();
  redraw();
})();

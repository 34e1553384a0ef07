"use strict";
// What stands beside and below the graph, as DOM elements. Text is only ever set as text (S12).
const Panel = (() => {
  function h(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes))
      if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else if (value !== null && value !== undefined) element.setAttribute(name, value);
    element.append(...children.flat().filter((child) => child !== null && child !== undefined));
    return element;
  }

  const number = (value, digits = 3) =>
    value === null || value === undefined ? "–" : Math.abs(value) >= 1e4 ? Math.round(value).toLocaleString("en") :
      String(Number(value.toPrecision(digits))).replace("-", "−");
  const nats = (value) => (value === null || value === undefined ? "–" : `${value.toFixed(3).replace("-", "−")} nats`);
  const percent = (value) => (value === null ? "not told" : `${(100 * value).toFixed(1)} %`);
  const plural = (count, word) => `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;

  function shade(value, most) {
    const share = most > 0 ? Math.min(1, Math.abs(value) / most) : 0;
    return `background: rgba(var(--${value < 0 ? "negative" : "positive"}), ${(0.75 * share).toFixed(3)})`;
  }

  // tokens of a text, each shaded by a value; `lines`: break where the text does
  function tokens(examples, text, values, most, { peak = -1, lines = false } = {}) {
    const spans = examples.texts[text].map((index, i) => {
      const token = examples.vocabulary[index];
      const shown = (lines ? token.replace(/\n/g, "⏎\n") : token.replace(/\n/g, "⏎").replace(/ {3,}/g, "  ")).replace(/\t/g, "⇥");
      return h("span", { style: shade(values[i], most), title: `${Graph.visible(token)}  ${number(values[i])}`,
        class: i === peak ? "peak" : null }, shown);
    });
    return spans;
  }

  function excerpts(examples, title, list, none) {
    if (!list.length) return [h("h3", {}, title), h("p", { class: "soft" }, none)];
    const most = Math.max(...list.flatMap((excerpt) => excerpt.values.map(Math.abs)));
    const sign = title.startsWith("Highest") ? 1 : -1;
    return [h("h3", {}, title), ...list.map((excerpt) => {
      const signed = excerpt.values.map((value) => sign * value), peak = signed.indexOf(Math.max(...signed));
      return h("div", { class: "tokens" }, h("span", { class: "value" }, number(excerpt.values[peak])),
        tokens(examples, excerpt.text, excerpt.values, most, { peak }));
    })];
  }

  function edgeList(graph, ends, choose, kinds = {}) {
    if (!ends.length) return null;
    const most = Math.max(...ends.map((end) => Math.abs(end.weight)));
    const byId = new Map(graph.nodes.map((node) => [node.id, node]));
    const sorted = [...ends].sort((a, b) => Math.abs(b.weight) - Math.abs(a.weight));
    return h("ul", { class: "edges" }, sorted.map((end) => {
      const node = byId.get(end.id) || end.node;
      const name = Graph.nameOf(node, graph.dHead);
      return h("li", {}, h("span", { class: "weight" }, number(end.weight)),
        h("span", { class: "meter", style: `width:${(60 * Math.abs(end.weight) / most).toFixed(1)}px; background: rgb(var(--${end.weight < 0 ? "negative" : "positive"}))` }),
        byId.has(end.id) ? h("button", { class: "node", type: "button", onclick: () => choose(end.id) }, name) : h("span", { class: "soft" }, name),
        end.dropped ? h("span", { class: "soft" }, "dropped by edge pruning") : null);
    }));
  }

  function side(graph, title, inside, known, choose) {
    const parts = [h("h3", {}, title)];
    const outside = known ? known.total - inside.length : null;
    parts.push(h("p", {}, `${plural(inside.length, "edge")} inside the circuit` + (known ? `, ${plural(outside, "edge")} outside it.` : ".")));
    parts.push(edgeList(graph, inside, choose));
    if (known && known.outside.length) {
      parts.push(h("p", { class: "soft" }, "The strongest to nodes outside:"));
      parts.push(edgeList(graph, known.outside.map((end) => ({ weight: end.weight, node: end.node, id: "" })), choose));
    }
    return parts;
  }

  function ofNode(view, index, graph, node, choose) {
    const examples = view.examples, id = node.id;
    const title = Graph.nameOf(node, graph.dHead);
    const out = [h("h2", {}, title[0].toUpperCase() + title.slice(1))];
    if (node.kind !== "node") return [...out, ...ofEnd(graph, node, choose)];
    out.push(h("p", { class: "soft" }, "in Python ", h("code", {}, `(${node.layer}, "${node.site}", ${node.channel})`)));
    const known = examples && examples.nodes.find((found) => Graph.key(found.node) === id);
    const seen = examples && examples.circuits.find((c) => c.target === graph.circuit.target);
    const here = seen && seen.nodes[graph.circuit.nodes.findIndex((found) => Graph.key(found) === id)];
    out.push(h("p", {}, node.effect === null
      ? "What ablating it costs was not measured: the circuit is large."
      : ["Frozen at its mean like the nodes outside, it changes the circuit's loss by ", h("strong", {}, `${node.effect > 0 ? "+" : ""}${nats(node.effect)}`), "."]));
    if (here) {
      const answers = answerNames(examples);
      out.push(h("p", {}, `At the prompts' last token it is ${number(here.at_end[0])} on average when ${answers[0]} is right, ` +
        `${number(here.at_end[1])} when ${answers[1]} is. Its frozen value is ${number(known.mean)}.`));
    }
    const inputs = graph.edges.filter((edge) => edge.target === id).map((edge) => ({ id: edge.source, weight: edge.weight, dropped: edge.dropped }));
    const outputs = graph.edges.filter((edge) => edge.source === id).map((edge) => ({ id: edge.target, weight: edge.weight, dropped: edge.dropped }));
    const role = { read: node.site === "attn_in" || node.site === "mlp_in", write: node.site === "attn_out" || node.site === "mlp_out" };
    if (!role.read) out.push(...side(graph, "Edges in", inputs, known && known.inputs, choose));
    else out.push(...stream(graph, id, "Reads its channel of the residual stream, written by", "source", "target", choose));
    if (role.write) out.push(...stream(graph, id, "Writes its channel of the residual stream, read by", "target", "source", choose));
    else if (node.site === "attn_q" || node.site === "attn_k")
      out.push(h("h3", {}, "Edges out"), h("p", {}, "None: queries and keys decide where the head attends. ",
        h("button", { class: "node", type: "button", onclick: () => choose(`head/${node.layer}/${node.head}`) }, "its attention")));
    else if (node.site === "mlp_gate")
      out.push(h("h3", {}, "Edges out"), h("p", {}, `None: a gate multiplies its own neuron, ${node.channel}.`));
    else out.push(...side(graph, "Edges out", outputs, known && known.outputs, choose));
    if (known) {
      if (here) out.push(h("h3", {}, "In the circuit, on a pair of prompts"), ...pair(examples, here));
      out.push(...excerpts(examples, "Highest on the task's prompts", known.task_highest, "Zero at every token."));
      out.push(...excerpts(examples, "Lowest on the task's prompts", known.task_lowest, "Zero at every token."));
      out.push(...excerpts(examples, "Highest on pretraining text", known.text_highest, "Zero at every token."));
      out.push(...excerpts(examples, "Lowest on pretraining text", known.text_lowest, "Zero at every token."));
    }
    return out;
  }

  function pair(examples, here) {
    const most = Math.max(...here.values.slice(0, 2).flat().map(Math.abs));
    return examples.prompts.slice(0, 2).map((prompt, b) =>
      h("div", { class: "tokens" }, tokens(examples, prompt.text, here.values[b], most, { lines: true })));
  }

  // what is linked to a node by the residual stream: other writers or readers, tokens, answers
  function stream(graph, id, title, end, own, choose) {
    const linked = graph.links.filter((link) => link.kind !== "edge" && link[own] === id);
    const outer = linked.filter((link) => link.kind !== "stream").map((link) => ({ id: link[end], weight: link.weight }));
    const nodes = linked.filter((link) => link.kind === "stream").map((link) => link[end]);
    const byId = new Map(graph.nodes.map((node) => [node.id, node]));
    return [h("h3", {}, title),
      nodes.length ? h("p", {}, nodes.map((other) => [h("button", { class: "node", type: "button", onclick: () => choose(other) }, Graph.nameOf(byId.get(other), graph.dHead)), " "])) : null,
      edgeList(graph, outer, choose),
      nodes.length || outer.length ? null : h("p", { class: "soft" }, "No kept node, and none of the tokens drawn.")];
  }

  function ofEnd(graph, node, choose) {
    const own = node.kind === "token" ? "source" : "target", end = node.kind === "token" ? "target" : "source";
    const links = graph.links.filter((link) => link[own] === node.id).map((link) => ({ id: link[end], weight: link.weight }));
    return [h("p", {}, node.kind === "token"
      ? "A token that tells the two prompts of a pair apart. What its embedding puts into the channels that the circuit reads:"
      : "One of the two answers. How the channels that the circuit writes move its logit:"), edgeList(graph, links, choose)];
  }

  const SIZE = 150;
  function pattern(examples, prompt, rows) {
    const words = examples.texts[prompt.text].map((index) => Graph.visible(examples.vocabulary[index]));
    const step = SIZE / rows.length;
    const ns = "http://www.w3.org/2000/svg";
    const svg = document.createElementNS(ns, "svg");
    const put = (tag, attributes, title) => {
      const element = document.createElementNS(ns, tag);
      for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
      if (title) { const t = document.createElementNS(ns, "title"); t.textContent = title; element.append(t); }
      svg.append(element);
    };
    svg.setAttribute("class", "pattern");
    svg.setAttribute("width", SIZE + 2); svg.setAttribute("height", SIZE + 2);
    svg.setAttribute("viewBox", `-1 -1 ${SIZE + 2} ${SIZE + 2}`);
    svg.setAttribute("role", "img");
    svg.setAttribute("aria-label", "attention, a row for each query");
    put("rect", { class: "frame", x: 0, y: 0, width: SIZE, height: SIZE });
    rows.forEach((row, q) => row.forEach((p, k) => {
      if (p >= 0.005) put("rect", { class: "cell", x: k * step, y: q * step, width: step, height: step, "fill-opacity": Math.sqrt(p).toFixed(2) },
        `${words[q]} attends to ${words[k]}: ${percent(p)}`);
    }));
    return svg;
  }

  function ofHead(view, graph, layer, head) {
    const examples = view.examples, out = [h("h2", {}, `Layer ${layer}, head ${head}`)];
    const same = (found) => found.layer === layer && found.head === head;
    const whole = examples && examples.heads.find(same);
    const seen = examples && examples.circuits.find((c) => c.target === graph.circuit.target);
    const inside = seen && seen.heads.find(same);
    if (!whole || !inside) return [...out, h("p", {}, "Its attention was not recorded.")];
    out.push(h("p", {}, "Where the prompt's last token attends; below, all tokens: a row for each query, a column for each key. What a row lacks of 100 % went to the sink."));
    examples.prompts.forEach((prompt, b) => {
      out.push(h("h3", {}, `Prompt ${b + 1}: ${Graph.visible(prompt.answers[prompt.right])} is right`));
      for (const [name, patterns] of [["in the circuit", inside.patterns], ["in the whole model", whole.patterns]]) {
        const last = patterns[b][patterns[b].length - 1];
        out.push(h("p", { class: "soft" }, `${name}, ${percent(Math.max(0, 1 - last.reduce((a, p) => a + p, 0)))} to the sink`));
        out.push(h("div", { class: "tokens" }, tokens(examples, prompt.text, last, Math.max(...last, 0.2))));
      }
      out.push(h("div", { class: "patterns" }, [["circuit", inside], ["whole model", whole]].map(([name, found]) =>
        h("figure", { style: "margin:0" }, pattern(examples, prompt, found.patterns[b]), h("figcaption", { class: "soft" }, name)))));
    });
    return out;
  }

  const answerNames = (examples) => examples.same_answers
    ? examples.answers.map((answer) => Graph.visible(answer.token)) : ["the first answer", "the second"];

  function line(attributes) {
    const ns = "http://www.w3.org/2000/svg", svg = document.createElementNS(ns, "svg");
    svg.setAttribute("class", "circuit"); svg.setAttribute("width", 44); svg.setAttribute("height", 16);
    const path = document.createElementNS(ns, attributes.tag || "path");
    for (const [name, value] of Object.entries(attributes)) if (name !== "tag") path.setAttribute(name, value);
    svg.append(path);
    return svg;
  }

  function overview(graph, choose) {
    const d = "M2,8H42";
    const measured = graph.nodes.filter((node) => node.kind === "node" && node.effect !== null)
      .sort((a, b) => b.effect - a.effect).slice(0, 8);
    return [h("h2", {}, "How to read this"),
      h("p", {}, "Information flows from left to right. A box is one channel; a line is one nonzero weight between two. Everything else in the model is frozen at its mean."),
      h("div", { class: "key" },
        line({ d, class: "link positive", "stroke-width": 3 }), "positive weight; the thicker, the larger",
        line({ d, class: "link negative", "stroke-width": 3 }), "negative weight",
        ...(graph.edges.some((edge) => edge.dropped) ? [line({ d, class: "link positive dropped", "stroke-width": 3 }), "an edge that edge pruning dropped: it passes the mean of its source"] : []),
        line({ d, class: "link stream" }), "a channel of the residual stream, written and read again (no edge)",
        line({ d, class: "link token positive", "stroke-width": 3 }), "embedding of a token, unembedding of an answer (no edges)",
        line({ tag: "rect", x: 8, y: 2, width: 28, height: 12, rx: 5, class: "effect", "fill-opacity": 0.8 }), "the darker a node, the more its ablation costs"),
      h("p", { class: "soft hint", style: "margin-top:10px" }, "Point at a node to see its links, click it for all that is known. By keyboard: Tab into the graph, arrow keys move, Enter selects, Escape goes back."),
      measured.length ? h("h3", {}, "The nodes whose ablation costs most") : null,
      h("ul", { class: "edges" }, measured.map((node) => h("li", {}, h("span", { class: "weight", style: "width:7em" }, nats(node.effect)),
        h("button", { class: "node", type: "button", onclick: () => choose(node.id) }, Graph.nameOf(node, graph.dHead)))))];
  }

  return { h, number, nats, percent, plural, tokens, ofNode, ofHead, overview, answerNames };
})();

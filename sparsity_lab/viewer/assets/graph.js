"use strict";
// A circuit as a layered drawing: build() makes nodes and links of one circuit, place() lets dagre lay them
// out, draw() writes SVG. Nothing here needs a browser, so that the page and the figure are one drawing.
// Every text passes through escapeText().
const Graph = (() => {
  const STAGES = [
    { sites: ["attn_in"], title: "read" },
    { sites: ["attn_q", "attn_k", "attn_v"], title: "q, k, v" },
    { sites: ["attn_out"], title: "write" },
    { sites: ["mlp_in"], title: "read" },
    { sites: ["mlp_gate", "mlp_neuron"], title: "neurons" },
    { sites: ["mlp_out"], title: "write" },
  ];
  const SITE_NAMES = {
    attn_in: "attention read", attn_q: "query", attn_k: "key", attn_v: "value", attn_out: "attention write",
    mlp_in: "MLP read", mlp_gate: "gate", mlp_neuron: "neuron", mlp_out: "MLP write",
  };
  const MOST_EDGES = 500, MOST_OUTER = 24;
  const CHARACTER = 7.3, HEIGHT = 24, HEAD_ROOM = 16, TOP = 58, MARGIN = 16;

  const escapeText = (text) =>
    String(text).replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`)
      // eslint-disable-next-line no-control-regex
      .replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f\ufffe\uffff]/g, "\ufffd");

  const visible = (token) => token.replace(/\n/g, "⏎").replace(/\t/g, "⇥").replace(/ /g, "␣");
  const shorten = (text, most) => ([...text].length > most ? [...text].slice(0, most - 1).join("") + "…" : text);
  const key = (node) => `${node.layer}/${node.site}/${node.channel}`;
  const isRead = (node) => node.site === "attn_in" || node.site === "mlp_in";
  const isWrite = (node) => node.site === "attn_out" || node.site === "mlp_out";
  const isHeadSite = (node) => ["attn_q", "attn_k", "attn_v"].includes(node.site);
  // where in the residual stream a node reads or writes: boundaries 0, 1, 2, ... as the model counts them
  const boundary = (node) =>
    2 * node.layer + (node.site.startsWith("mlp") ? 1 : 0) + (isWrite(node) ? 1 : 0);

  function nameOf(node, dHead) {
    if (node.kind === "token") return `token ${visible(node.token)}`;
    if (node.kind === "answer") return `answer ${visible(node.token)}`;
    const where = isHeadSite(node) && dHead
      ? `head ${Math.floor(node.channel / dHead)}, ${SITE_NAMES[node.site]} ${node.channel % dHead}`
      : `${SITE_NAMES[node.site]} ${node.channel}`;
    return `layer ${node.layer}, ${where}`;
  }

  function strongest(links, most) {
    return [...links].sort((a, b) => Math.abs(b.weight) - Math.abs(a.weight)).slice(0, most);
  }

  // the nodes, links, columns and heads of circuit `index` of a view
  function build(view, index) {
    const circuit = view.circuits[index], examples = view.examples, dHead = view.d_head;
    const seen = examples && examples.circuits.find((c) => c.target === circuit.target);
    const nodes = circuit.nodes.map((node, i) => ({
      ...node, id: key(node), kind: "node", effect: seen ? seen.nodes[i].effect : null,
      column: node.layer * STAGES.length + STAGES.findIndex((stage) => stage.sites.includes(node.site)),
      head: isHeadSite(node) && dHead ? Math.floor(node.channel / dHead) : null,
      label: isHeadSite(node) ? `${node.site.slice(-1)} ${dHead ? node.channel % dHead : node.channel}`
        : node.site === "mlp_gate" ? `gate ${node.channel}` : `${node.channel}`,
    }));
    for (const effect of circuit.effects || []) {
      const node = nodes.find((n) => n.id === key(effect.node));
      if (node) node.effect = effect.drop_effect;
    }
    const edges = circuit.edges.map(([source, target, weight, kept]) => (
      { kind: "edge", source: nodes[source].id, target: nodes[target].id, weight, dropped: !kept }));
    const links = strongest(edges, MOST_EDGES);
    for (const writer of nodes.filter(isWrite))
      for (const reader of nodes.filter(isRead))
        if (writer.channel === reader.channel && boundary(writer) <= boundary(reader))
          links.push({ kind: "stream", source: writer.id, target: reader.id, weight: 0 });
    if (examples) {
      const outer = (entries, kind, ends, toLink) => strongest(
        entries.flatMap((entry, i) => entry.weights.flatMap(([channel, weight]) =>
          ends.filter((end) => end.channel === channel).map((end) => ({ kind, weight, ...toLink(`${kind}/${i}`, end.id) })))),
        MOST_OUTER);
      const embeds = outer(examples.tokens, "token", nodes.filter(isRead), (token, id) => ({ source: token, target: id }));
      const unembeds = outer(examples.answers, "answer", nodes.filter(isWrite), (answer, id) => ({ source: id, target: answer }));
      const last = 1 + Math.max(...nodes.map((node) => node.column));
      for (const [kind, entries, column, drawn] of
        [["token", examples.tokens, -1, embeds], ["answer", examples.answers, last, unembeds]])
        entries.forEach((entry, i) => {
          const id = `${kind}/${i}`;
          if (kind === "answer" || drawn.some((link) => link.source === id || link.target === id))
            nodes.push({ id, kind, column, token: entry.token, weights: entry.weights, effect: null, head: null,
              label: shorten(visible(entry.token), 14) });
        });
      links.push(...embeds, ...unembeds);
    }
    const used = [...new Set(nodes.map((node) => node.column))].sort((a, b) => a - b);
    for (const node of nodes) node.rank = used.indexOf(node.column);
    return { circuit, nodes, links, edges, columns: used.map((column) => columnTitle(column, nodes)), dHead };
  }

  function columnTitle(column, nodes) {
    const node = nodes.find((n) => n.column === column);
    if (node.kind === "token") return { group: "", title: "tokens" };
    if (node.kind === "answer") return { group: "", title: "answers" };
    const part = node.site.startsWith("mlp") ? "MLP" : "attention";
    return { group: `layer ${node.layer} ${part}`, short: `L${node.layer} ${part === "MLP" ? part : "attn"}`, title: STAGES[column % STAGES.length].title };
  }

  const widthOf = (node) => Math.max(node.kind === "node" ? 38 : 44, [...node.label].length * CHARACTER + 16);

  // dagre keeps an edge from spanning fewer ranks than its `minlen`; all that span just so many are shortest
  // together, so each node lands in its own column. A spine of empty nodes holds those that nothing leads to.
  function place(graph) {
    const g = new dagre.graphlib.Graph({ compound: true, multigraph: true });
    const many = graph.nodes.length > 60;
    g.setGraph({ rankdir: "LR", nodesep: many ? 11 : 14, ranksep: 58 + Math.min(120, graph.links.length / 2.5), edgesep: many ? 0 : 3, marginx: 0, marginy: 0 });
    g.setDefaultEdgeLabel(() => ({}));
    for (let r = -1; r < graph.columns.length; r++) {
      g.setNode(`spine${r}`, { width: 1, height: 1 });
      if (r >= 0) g.setEdge(`spine${r - 1}`, `spine${r}`, { minlen: 1, weight: 1 }, "spine");
    }
    for (const node of graph.nodes) {
      g.setNode(node.id, { width: widthOf(node), height: HEIGHT + (node.head === null ? 0 : HEAD_ROOM) });
      if (node.head === null) continue;
      const box = `head/${node.layer}/${node.head}`;
      if (!g.hasNode(box)) g.setNode(box, {});
      g.setParent(node.id, box);
    }
    const rank = new Map(graph.nodes.map((node) => [node.id, node.rank]));
    graph.links.forEach((link, i) => {
      g.setEdge(link.source, link.target, { minlen: rank.get(link.target) - rank.get(link.source), weight: link.kind === "edge" ? 3 : 1 }, `link${i}`);
    });
    for (const node of graph.nodes)
      if (!graph.links.some((link) => link.target === node.id))
        g.setEdge(`spine${node.rank - 1}`, node.id, { minlen: 1, weight: 0.01 }, "held");
    dagre.layout(g);
    for (const node of graph.nodes) {
      const at = g.node(node.id);
      Object.assign(node, { x: at.x, y: at.y, width: at.width, height: HEIGHT });
    }
    graph.links.forEach((link, i) => { link.points = g.edge(link.source, link.target, `link${i}`).points; });
    graph.heads = g.nodes().filter((id) => id.startsWith("head/")).map((id) => {
      const [, layer, head] = id.split("/").map(Number);
      const inside = graph.nodes.filter((node) => node.layer === layer && node.head === head);
      const left = Math.min(...inside.map((n) => n.x - n.width / 2)), right = Math.max(...inside.map((n) => n.x + n.width / 2));
      const top = Math.min(...inside.map((n) => n.y)) - HEIGHT / 2, bottom = Math.max(...inside.map((n) => n.y)) + HEIGHT / 2;
      return { id, kind: "head", layer, head, x: left - 7, y: top - 19, width: right - left + 14, height: bottom - top + 26 };
    });
    shift(graph);
    return graph;
  }

  // to the origin, below the columns' titles; the spine leaves no empty margin
  function shift(graph) {
    const boxes = [...graph.heads.map((h) => [h.x, h.y, h.x + h.width, h.y + h.height]),
      ...graph.nodes.map((n) => [n.x - n.width / 2, n.y - n.height / 2, n.x + n.width / 2, n.y + n.height / 2])];
    for (const link of graph.links) for (const p of link.points) boxes.push([p.x, p.y, p.x, p.y]);
    const low = (i) => Math.min(...boxes.map((box) => box[i])), high = (i) => Math.max(...boxes.map((box) => box[i]));
    const dx = MARGIN + 14 - low(0), dy = TOP + 8 - low(1);
    graph.width = high(2) - low(0) + 2 * (MARGIN + 14);
    graph.height = high(3) - low(1) + TOP + 8 + MARGIN;
    for (const thing of [...graph.nodes, ...graph.heads]) { thing.x += dx; thing.y += dy; }
    for (const link of graph.links) for (const p of link.points) { p.x += dx; p.y += dy; }
  }

  const n1 = (value) => String(Math.round(value * 10) / 10);

  function curve(points) {
    let path = `M${n1(points[0].x)},${n1(points[0].y)}`;
    for (let i = 1; i < points.length; i++) {
      const a = points[i - 1], b = points[i], middle = (a.x + b.x) / 2;
      path += `C${n1(middle)},${n1(a.y)} ${n1(middle)},${n1(b.y)} ${n1(b.x)},${n1(b.y)}`;
    }
    return path;
  }

  // from border to border, through the columns between; dagre bends links between columns too, which serves
  // its labels alone
  function route(link, byId, centres) {
    const source = byId.get(link.source), target = byId.get(link.target);
    const between = centres.slice(source.rank + 1, target.rank);
    return [{ x: source.x + source.width / 2, y: source.y },
      ...between.map((x) => link.points.reduce((a, b) => (Math.abs(b.x - x) < Math.abs(a.x - x) ? b : a))),
      { x: target.x - target.width / 2, y: target.y }];
  }

  function drawLink(link, byId, centres, scale) {
    const sign = link.kind === "stream" ? "" : link.weight > 0 ? " positive" : " negative";
    const width = link.kind === "stream" ? 1.2 : 0.7 + 4.3 * Math.abs(link.weight) / scale[link.kind];
    const title = link.kind === "stream" ? "same channel of the residual stream"
      : `weight ${link.weight.toPrecision(3)}${link.dropped ? ", dropped by edge pruning" : ""}`;
    return `<path class="link ${link.kind}${sign}${link.dropped ? " dropped" : ""}" data-source="${escapeText(link.source)}" data-target="${escapeText(link.target)}"` +
      ` d="${curve(route(link, byId, centres))}" stroke-width="${n1(width)}"><title>${escapeText(title)}</title></path>`;
  }

  function drawNode(node, most, dHead) {
    const x = n1(node.x - node.width / 2), y = n1(node.y - node.height / 2);
    const radius = node.kind !== "node" ? 4 : node.head !== null ? 3 : node.site === "mlp_neuron" ? 12 : 7;
    const box = `x="${x}" y="${y}" width="${n1(node.width)}" height="${node.height}" rx="${radius}"`;
    const share = node.effect === null || most <= 0 ? 0 : Math.max(0, node.effect) / most;
    const effect = node.effect === null ? "" : `, ablating it changes the loss by ${node.effect.toPrecision(2)} nats`;
    return `<g class="node ${node.kind === "node" ? node.site : node.kind}" data-id="${escapeText(node.id)}" role="button" tabindex="-1"` +
      ` aria-label="${escapeText(nameOf(node, dHead) + effect)}"><rect class="box" ${box}/>` +
      (share > 0 ? `<rect class="effect" ${box} fill-opacity="${(0.85 * share).toFixed(2)}"/>` : "") +
      `<text class="label${share > 0.55 ? " strong" : ""}" x="${n1(node.x)}" y="${n1(node.y + 4.4)}" text-anchor="middle">${escapeText(node.label)}</text></g>`;
  }

  function drawColumns(graph) {
    let out = "";
    const groups = [];
    graph.columns.forEach((column, rank) => {
      const inside = graph.nodes.filter((node) => node.rank === rank);
      const left = Math.min(...inside.map((n) => n.x - n.width / 2)), right = Math.max(...inside.map((n) => n.x + n.width / 2));
      const lastGroup = groups[groups.length - 1];
      if (column.group && lastGroup && lastGroup.name === column.group) lastGroup.right = right;
      else groups.push({ name: column.group, short: column.short, left, right });
      out += `<text class="column" x="${n1((left + right) / 2)}" y="40" text-anchor="middle">${escapeText(column.title)}</text>`;
    });
    for (const group of groups.filter((g) => g.name)) {
      const half = Math.max((group.right - group.left) / 2 + 13, 0), middle = (group.left + group.right) / 2;
      out = `<rect class="band" x="${n1(middle - half)}" y="4" width="${n1(2 * half)}" height="${n1(graph.height - 8)}" rx="6"/>` + out +
        `<text class="group" x="${n1(middle)}" y="21" text-anchor="middle">${escapeText(group.name.length * 6.4 > 2 * half ? group.short : group.name)}</text>`;
    }
    return out;
  }

  // SVG text of a placed graph; `style`, if any, is put inside (for a file that stands alone)
  function draw(graph, { style = "", title = "" } = {}) {
    const byId = new Map(graph.nodes.map((node) => [node.id, node]));
    const centres = graph.columns.map((_, rank) => graph.nodes.find((node) => node.rank === rank).x);
    const most = Math.max(0, ...graph.nodes.map((node) => node.effect || 0));
    const scale = {};
    for (const link of graph.links) scale[link.kind] = Math.max(scale[link.kind] || 1e-9, Math.abs(link.weight));
    const order = { stream: 0, token: 1, answer: 1, edge: 2 };
    const links = [...graph.links].sort((a, b) => order[a.kind] - order[b.kind] || Math.abs(b.weight) - Math.abs(a.weight));
    const heads = graph.heads.map((head) =>
      `<g class="head" data-id="${escapeText(head.id)}" role="button" tabindex="-1" aria-label="head ${head.head} of layer ${head.layer}, attention patterns">` +
      `<rect x="${n1(head.x)}" y="${n1(head.y)}" width="${n1(head.width)}" height="${n1(head.height)}" rx="5"/>` +
      `<text x="${n1(head.x + head.width / 2)}" y="${n1(head.y + 12.5)}" text-anchor="middle">head ${head.head}</text></g>`);
    return `<svg xmlns="http://www.w3.org/2000/svg" class="circuit${graph.nodes.length > 60 ? " large" : ""}" viewBox="0 0 ${n1(graph.width)} ${n1(graph.height)}" width="${n1(graph.width)}" height="${n1(graph.height)}" role="group" aria-label="${escapeText(title)}">` +
      `<title>${escapeText(title)}</title>` +
      (style ? `<style>${style}</style><rect class="paper" width="100%" height="100%"/>` : "") +
      drawColumns(graph) + heads.join("") + links.map((link) => drawLink(link, byId, centres, scale)).join("") +
      graph.nodes.map((node) => drawNode(node, most, graph.dHead)).join("") + "</svg>";
  }

  return { build, place, draw, nameOf, visible, escapeText, key, MOST_EDGES };
})();

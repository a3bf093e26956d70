"use strict";
// The views beside the map. Each returns elements; what comes from texts or names is only ever text.

const LISTED = 200; // texts of a list; more would make the page slow, and nobody reads them

function dotOf(page, cluster) {
  return make("span", { className: "dot", color: page.colors.of(cluster), "aria-hidden": "true" });
}

// A list of texts; `describe` says what stands under each.
function listTexts(page, texts, describe, query = "") {
  const { data } = page;
  const items = texts.slice(0, LISTED).map((i) =>
    make("li", {},
      make("button", {
        className: "item", type: "button", "data-text": String(i),
        on: { click: () => page.pick(i, { keepPanel: true }), focus: () => page.map.mark(i, true) },
      },
        dotOf(page, data.cluster[i]),
        make("span", { className: "body" },
          make("span", { className: "words", dir: "auto" }, ...emphasise(data.texts[i], query)),
          make("span", { className: "meta", dir: "auto" }, describe(i))))));
  const rest = texts.length - items.length;
  return [
    make("ul", { className: "list" }, ...items),
    rest > 0 ? make("p", { className: "meta" }, `and ${count(rest)} more, all shown on the map`) : null,
  ];
}

// A text as strings and <mark> elements.
function emphasise(text, query) {
  const at = query ? text.toLowerCase().indexOf(query) : -1;
  // Lower case may have another length in some scripts: then nothing is marked rather than the wrong letters.
  if (at < 0 || text.toLowerCase().length !== text.length) return [text];
  return [text.slice(0, at), make("mark", {}, text.slice(at, at + query.length)), text.slice(at + query.length)];
}

const COLUMNS = [
  { key: "name", title: "cluster", value: (cluster) => cluster.name.toLowerCase() },
  { key: "size", title: "texts", value: (cluster) => cluster.size, show: (cluster) => count(cluster.size) },
  {
    key: "cohesion", title: "cohesion", value: (cluster) => cluster.cohesion, show: (cluster) => cluster.cohesion.toFixed(2),
    help: "Mean cosine of its texts to their centre: 1 if all are the same",
  },
  {
    key: "again", title: "found again", value: (cluster) => cluster.again ?? -1,
    show: (cluster) => shareIfKnown(cluster.again),
    help: "Overlap with the most similar cluster when k-means starts elsewhere, mean of several starts",
  },
  {
    key: "check", title: "name fits", less: true, value: (cluster) => cluster.check ?? -1,
    show: (cluster) => shareIfKnown(cluster.check),
    help: "Share of its texts that are nearer to its name than texts of other clusters are",
  },
];

function showClusters(page) {
  const { data, sorting } = page;
  const column = COLUMNS.find(({ key }) => key === sorting.key);
  const order = data.clusters.map((_, i) => i).sort((a, b) => {
    const [one, other] = [column.value(data.clusters[a]), column.value(data.clusters[b])];
    return (one < other ? -1 : one > other ? 1 : 0) * (sorting.descending ? -1 : 1);
  });
  const head = COLUMNS.map(({ key, title, help, less }) =>
    make("th", {
      scope: "col", className: [key === "name" ? "" : "number", less ? "less" : ""].join(" "),
      "aria-sort": key === sorting.key ? (sorting.descending ? "descending" : "ascending") : undefined,
    }, make("button", { type: "button", title: help, on: { click: () => page.sortBy(key) } }, title)));
  const rows = order.flatMap((i) => showCluster(page, i));
  return [
    data.names_note ? make("p", { className: "meta" }, data.names_note) : null,
    make("table", { id: "clusters" }, make("thead", {}, make("tr", {}, ...head)), make("tbody", {}, ...rows)),
  ];
}

function showCluster(page, i) {
  const cluster = page.data.clusters[i];
  const isOpen = page.open === i;
  const cells = COLUMNS.slice(1).map(({ show, less }) => make("td", { className: less ? "number less" : "number" }, show(cluster)));
  const row = make("tr", { className: isOpen ? "chosen" : "", "data-cluster": String(i) },
    make("td", {},
      make("button", { className: "name", type: "button", "aria-expanded": String(isOpen), on: { click: () => page.openCluster(isOpen ? null : i) } },
        dotOf(page, i), make("span", { dir: "auto" }, cluster.name))),
    ...cells);
  return isOpen ? [row, make("tr", { className: "detail" }, make("td", { colspan: String(COLUMNS.length) }, ...describeCluster(page, i)))] : [row];
}

const SOURCES = { llm: "named by the LLM", keywords: "named by its keywords, for want of a name by an LLM that fits", edit: "named by a person", none: "not named yet" };

function describeCluster(page, i) {
  const { data } = page;
  const cluster = data.clusters[i];
  const check = cluster.n_checked ? `; the name fits ${cluster.n_nearest} of ${cluster.n_checked} texts checked` : "";
  const similar = cluster.merge_with.map((other) => data.nameOf(other));
  return [
    cluster.sentence ? make("p", { dir: "auto" }, cluster.sentence) : null,
    cluster.keywords.length ? make("ul", { className: "keywords", "aria-label": "Keywords" }, ...cluster.keywords.map((word) => make("li", { dir: "auto" }, word))) : null,
    make("ul", { className: "examples", "aria-label": "Typical texts" }, ...cluster.examples.map((text) => make("li", { dir: "auto" }, text))),
    make("p", { className: "meta" }, `Cluster ${cluster.id}, ${SOURCES[cluster.source]}${check}.`),
    similar.length ? make("p", { className: "meta", dir: "auto" }, `Got the same name as: ${similar.join(", ")}. Perhaps one cluster: merge them in the edits file.`) : null,
    make("div", { className: "actions" },
      make("button", { type: "button", on: { click: () => page.map.showTexts(data.members[i]) } }, "Zoom to it"),
      make("button", { type: "button", on: { click: () => page.listCluster(i) } }, "List its texts")),
  ];
}

function showTree(page) {
  const { data } = page;
  if (!data.tree) return [make("p", { className: "empty" }, "One cluster has no tree.")];
  const draw = (node, depth) => {
    const label = [make("span", { className: "dot", color: page.colors.of(node.leaves[0]), "aria-hidden": "true" })];
    const name = make("button", { className: "name", type: "button", "aria-pressed": String(page.branch === node.id), on: { click: (event) => { event.preventDefault(); page.showBranch(node); } } }, make("span", { dir: "auto" }, node.name));
    const size = make("span", { className: "count" }, count(node.size));
    if (!node.children) return make("li", {}, make("span", { className: "leaf" }, ...label, name, size));
    return make("li", {}, make("details", { open: depth < 2 || page.opened.has(node.id), on: { toggle: (event) => page.opened[event.target.open ? "add" : "delete"](node.id) } },
      make("summary", {}, make("span", { className: "row" }, name, make("span", { className: "meta" }, `${node.leaves.length} clusters`), size)),
      make("ul", { className: "tree" }, ...node.children.map((child) => draw(child, depth + 1)))));
  };
  return [
    make("p", { className: "meta" }, "Clusters that are near one another are joined first (Ward). Click a name to see it on the map."),
    make("ul", { className: "tree", id: "tree" }, draw(data.tree, 0)),
  ];
}

function showMoved(page) {
  const { data } = page;
  if (!data.moved.length) return [make("p", { className: "empty" }, "No text is nearest to another cluster than before.")];
  const streams = new Map();
  for (const i of data.moved) {
    const key = `${data.origin[i]} ${data.cluster[i]}`;
    if (!streams.has(key)) streams.set(key, []);
    streams.get(key).push(i);
  }
  const largest = [...streams].sort((a, b) => b[1].length - a[1].length).slice(0, 12);
  const chosen = streams.get(page.stream);
  const texts = [...(chosen || data.moved)].sort((a, b) => data.kept[a] - data.kept[b]);
  return [
    make("p", {}, `${count(data.moved.length)} of ${count(data.texts.length)} texts were nearest to another cluster before the embedder was adapted. Lines on the map lead from where a text was to where it is.`),
    make("h2", {}, "Between which clusters"),
    ...largest.map(([key, members]) => make("button", { className: "stream", type: "button", "aria-pressed": String(key === page.stream), on: { click: () => page.showStream(key === page.stream ? null : key, members) } },
      dotOf(page, data.origin[members[0]]), make("span", { dir: "auto" }, data.nameOf(data.origin[members[0]])), " → ",
      dotOf(page, data.cluster[members[0]]), make("span", { dir: "auto" }, data.nameOf(data.cluster[members[0]])),
      make("span", { className: "count" }, String(members.length)))),
    make("h2", {}, chosen ? "These texts" : "Texts, the most changed first"),
    ...listTexts(page, texts, (i) => `${data.nameOf(data.origin[i])} → ${data.nameOf(data.cluster[i])}, kept ${share(data.kept[i] / 100)} of its nearest texts`),
  ];
}

function showOutliers(page) {
  const { data } = page;
  if (!data.outliers.length) return [make("p", { className: "empty" }, "No text is unlike all clusters.")];
  const texts = [...data.outliers].sort((a, b) => data.confidence[a] - data.confidence[b]);
  return [
    make("p", {}, `${count(texts.length)} texts are unlike all clusters: new topics, mixtures of several, or noise.`),
    ...listTexts(page, texts, (i) => describeText(page, i)),
  ];
}

function describeText(page, i) {
  const { data } = page;
  const from = data.origin[i] !== data.cluster[i] ? `; before: ${data.nameOf(data.origin[i])}` : "";
  return `${data.nameOf(data.cluster[i])}, confidence ${(data.confidence[i] / 100).toFixed(2)}${from}`;
}

function showVerdict(page) {
  const { data } = page;
  const numbers = (rows, columns) => make("table", {},
    make("thead", {}, make("tr", {}, ...columns.map((title, i) => make("th", { scope: "col", className: i ? "number" : "" }, title)))),
    make("tbody", {}, ...rows.map((row) => make("tr", {}, ...row.map((cell, i) => make("td", { className: i ? "number" : "", dir: "auto" }, cell))))));
  const figures = data.verdict.figures.flatMap((figure) => [
    make("tr", {}, make("td", {}, figure.name), make("td", { className: "number" }, figure.before ?? "–"), make("td", { className: "number" }, figure.after)),
    make("tr", {}, make("td", { colspan: "3", className: "meta" }, figure.meaning)),
  ]);
  return [
    make("p", { className: "lead" }, data.verdict.summary),
    data.measures.length ? make("h2", {}, "Against the labels") : null,
    data.measures.length ? numbers(data.measures, ["percent", "before", "after", "difference"]) : null,
    data.measures.length ? make("p", { className: "meta" }, data.measures_note) : null,
    make("h2", {}, "Without labels"),
    data.measures.length ? null : make("p", {}, "These texts have no labels, so nothing here says whether the clusters are right. It says how clear they are, and how far embedder and LLM agree."),
    make("table", {}, make("thead", {}, make("tr", {}, make("th", { scope: "col" }, "figure"), make("th", { scope: "col", className: "number" }, "before"), make("th", { scope: "col", className: "number" }, "after"))), make("tbody", {}, ...figures)),
    make("h2", {}, "How many clusters"),
    make("p", {}, data.count.summary),
    data.count.estimates.length ? numbers(data.count.estimates, ["criterion", "clusters"]) : null,
    make("h2", {}, "What was run"),
    numbers(data.run, ["", ""]),
  ];
}

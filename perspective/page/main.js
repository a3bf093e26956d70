"use strict";
// Ties the map, the panel, the search and the switch together.

const SEARCH_PAUSE = 120; // milliseconds without a key before the texts are searched
const MAX_LINES = 600;

class Page {
  constructor(data) {
    Object.assign(this, {
      data, sorting: { key: "size", descending: true }, open: null, branch: null, stream: null, opened: new Set(), query: "",
      listed: null, tab: "clusters",
    });
    this.tip = document.getElementById("tip");
    this.panel = document.getElementById("panel");
    this.note = document.getElementById("note");
    this.map = new MapView(data, (i, x, y) => this.hover(i, x, y), (i, name) => this.pickOnMap(i, name));
    document.getElementById("title").textContent = data.title;
    document.getElementById("facts").textContent = data.facts;
    this.listen();
    this.applyTheme();
    this.openTab("clusters");
  }

  get tabs() {
    const { data } = this;
    return [
      ...(this.query ? [["search", `Search ${count(this.found.length)}`, () => this.showFound()]] : []),
      ...(this.listed ? [["listed", "Texts", () => this.showListed()]] : []),
      ["clusters", `Clusters ${data.clusters.length}`, () => showClusters(this)],
      ["tree", "Tree", () => showTree(this)],
      ...(data.has_before ? [["moved", `Moved ${count(data.moved.length)}`, () => showMoved(this)]] : []),
      ["outliers", `Outliers ${count(data.outliers.length)}`, () => showOutliers(this)],
      ["verdict", "How good?", () => showVerdict(this)],
    ];
  }

  openTab(tab, focus = false) {
    this.tab = tab;
    this.render();
    this.panel.scrollTop = 0;
    if (focus) document.getElementById(`tab-${tab}`).focus();
    this.showOnMap();
  }

  render() {
    const scrolled = this.panel.scrollTop;
    const tabs = this.tabs;
    if (!tabs.some(([id]) => id === this.tab)) this.tab = "clusters";
    document.getElementById("tabs").replaceChildren(...tabs.map(([id, title], place) =>
      make("button", {
        type: "button", role: "tab", id: `tab-${id}`, "aria-selected": String(id === this.tab), "aria-controls": "panel",
        tabindex: id === this.tab ? "0" : "-1",
        on: {
          click: () => this.openTab(id, true),
          keydown: (event) => {
            const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
            if (step) this.openTab(tabs[(place + step + tabs.length) % tabs.length][0], true);
          },
        },
      }, title)));
    this.panel.setAttribute("aria-labelledby", `tab-${this.tab}`);
    const elements = tabs.find(([id]) => id === this.tab)[2]();
    this.panel.replaceChildren(...elements.filter((element) => element !== null));
    this.panel.scrollTop = scrolled;
  }

  // What the map emphasises follows from the tab.
  showOnMap() {
    const { data } = this;
    const only = (texts) => {
      const on = new Uint8Array(data.texts.length);
      for (const i of texts) on[i] = 1;
      return on;
    };
    const ofClusters = (clusters) => ({ on: only(clusters.flatMap((cluster) => data.members[cluster])), chosen: clusters });
    const stream = this.stream && this.streamTexts;
    const shown = {
      search: () => ({ on: only(this.found) }),
      listed: () => ofClusters([this.listed.cluster]),
      clusters: () => (this.open === null ? {} : ofClusters([this.open])),
      tree: () => (this.branch === null ? {} : ofClusters(this.branchLeaves)),
      moved: () => {
        const texts = stream || data.moved;
        const chosen = stream ? [data.origin[stream[0]], data.cluster[stream[0]]].filter((cluster) => cluster !== NOWHERE) : [];
        return { on: only(texts), lines: texts.slice(0, MAX_LINES), chosen };
      },
      outliers: () => (data.outliers.length ? { on: only(data.outliers) } : {}),
      verdict: () => ({}),
    }[this.tab]();
    this.map.show(shown);
    const n = shown.on ? shown.on.reduce((sum, is) => sum + is, 0) : data.texts.length;
    this.note.textContent = [shown.on ? `${count(n)} of ${count(data.texts.length)} texts marked` : "", data.sample_note].filter(Boolean).join(" · ");
    this.note.hidden = !this.note.textContent;
  }

  update() {
    this.render();
    this.showOnMap();
  }

  // Actions

  openCluster(cluster) {
    this.open = cluster;
    this.tab = "clusters";
    this.update();
    if (cluster !== null) this.panel.querySelector(`tr[data-cluster="${cluster}"]`).scrollIntoView({ block: "nearest" });
    const button = this.panel.querySelector(`tr[data-cluster="${cluster}"] .name`);
    if (button) button.focus({ preventScroll: true });
  }

  listCluster(cluster) {
    this.listed = { cluster };
    this.openTab("listed", true);
  }

  showBranch(node) {
    const same = this.branch === node.id;
    this.branch = same ? null : node.id;
    this.branchLeaves = node.leaves;
    for (const button of this.panel.querySelectorAll("[aria-pressed]")) button.setAttribute("aria-pressed", "false");
    document.activeElement.setAttribute("aria-pressed", String(!same));
    this.showOnMap();
  }

  showStream(key, members) {
    this.stream = key;
    this.streamTexts = members;
    this.update();
  }

  sortBy(key) {
    const { sorting } = this;
    this.sorting = { key, descending: sorting.key === key ? !sorting.descending : key !== "name" };
    this.render();
    this.panel.querySelector("th[aria-sort] button").focus();
  }

  pickOnMap(text, name) {
    if (text < 0 && name === null) {
      this.map.mark(-1);
      Object.assign(this, { open: null, branch: null, stream: null });
      this.update();
    } else if (text < 0) {
      this.openCluster(this.open === name ? null : name);
    } else {
      this.pick(text);
    }
  }

  pick(text, { keepPanel = false } = {}) {
    const { data } = this;
    this.map.mark(text, true);
    for (const item of this.panel.querySelectorAll(".item")) item.setAttribute("aria-current", String(item.dataset.text === String(text)));
    if (!keepPanel && this.tab === "clusters" && data.cluster[text] !== NOWHERE) this.openCluster(data.cluster[text]);
    const [x, y] = this.map.toScreen(text);
    this.hover(text, x, y);
  }

  search(query) {
    const { data } = this;
    const before = this.query;
    this.query = query.trim().toLowerCase();
    this.lowered ||= data.texts.map((text) => text.toLowerCase());
    this.found = [];
    if (this.query) this.lowered.forEach((text, i) => text.includes(this.query) && this.found.push(i));
    if (this.query) this.openTab("search");
    else if (before) this.openTab("clusters");
  }

  showFound() {
    const named = this.data.clusters.map((cluster, i) => [cluster.name.toLowerCase(), i]).filter(([name]) => name.includes(this.query));
    return [
      ...(named.length ? [make("h2", {}, "Clusters"), ...named.slice(0, 8).map(([, i]) => make("button", { className: "stream", type: "button", on: { click: () => this.openCluster(i) } }, dotOf(this, i), make("span", { dir: "auto" }, this.data.clusters[i].name), make("span", { className: "count" }, count(this.data.clusters[i].size))))] : []),
      make("h2", {}, this.found.length ? `${count(this.found.length)} texts` : "No text holds these words"),
      ...listTexts(this, this.found, (i) => describeText(this, i), this.query),
    ];
  }

  showListed() {
    const { cluster } = this.listed;
    const texts = [...this.data.members[cluster]].sort((a, b) => this.data.confidence[b] - this.data.confidence[a]);
    return [
      make("h2", { dir: "auto" }, this.data.clusters[cluster].name),
      make("p", { className: "meta" }, "Those that fit best first."),
      ...listTexts(this, texts, (i) => describeText(this, i)),
    ];
  }

  hover(text, x, y) {
    this.tip.hidden = text < 0;
    if (text < 0) return;
    const meta = make("div", { className: "meta", dir: "auto" }, describeText(this, text));
    this.tip.replaceChildren(make("div", { dir: "auto" }, shorten(this.data.texts[text], 400)), meta);
    const { width, height } = this.map;
    const box = this.tip.getBoundingClientRect();
    this.tip.style.left = `${Math.max(6, Math.min(width - box.width - 6, x + 14))}px`;
    this.tip.style.top = `${y + 18 + box.height > height ? Math.max(6, y - box.height - 14) : y + 18}px`;
  }

  applyTheme() {
    const chosen = document.documentElement.dataset.theme;
    const dark = chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    this.colors = makeColors(this.data, dark);
    const style = getComputedStyle(document.documentElement);
    const ground = style.getPropertyValue("--ground").trim();
    const hex = [1, 3, 5].map((at) => parseInt(ground.slice(at, at + 2), 16));
    this.map.setColors(this.colors, { ground: hex, text: style.getPropertyValue("--text").trim() });
    if (this.panel.childElementCount) this.render();
    return dark;
  }

  listen() {
    let pause;
    const query = document.getElementById("query");
    query.addEventListener("input", () => {
      clearTimeout(pause);
      pause = setTimeout(() => this.search(query.value), SEARCH_PAUSE);
    });
    for (const radio of document.getElementsByName("when")) {
      radio.addEventListener("change", () => this.map.switchTo(Number(radio.value)));
    }
    document.getElementById("switch").hidden = !this.data.has_before;
    document.getElementById("closer").addEventListener("click", () => this.map.zoomBy(1.5));
    document.getElementById("farther").addEventListener("click", () => this.map.zoomBy(1 / 1.5));
    document.getElementById("whole").addEventListener("click", () => this.map.showWhole());
    document.getElementById("theme").addEventListener("click", () => {
      const dark = this.applyTheme();
      document.documentElement.dataset.theme = dark ? "light" : "dark";
      this.applyTheme();
    });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.applyTheme());
  }
}

window.page = new Page(readData()); // by a name, for the console

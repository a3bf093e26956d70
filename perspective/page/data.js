"use strict";
// What the page shows, decoded once, and the colours of the clusters.

const NOWHERE = -1;

function readData() {
  const data = JSON.parse(document.getElementById("data").textContent);
  const decode = (text, Kind) => {
    const letters = atob(text);
    const bytes = new Uint8Array(letters.length);
    for (let i = 0; i < letters.length; i++) bytes[i] = letters.charCodeAt(i);
    return new Kind(bytes.buffer);
  };
  data.cluster = decode(data.cluster, Int32Array);
  data.origin = decode(data.origin, Int32Array);
  for (const name of ["confidence", "outlier", "kept"]) data[name] = decode(data[name], Uint8Array);
  for (const name of ["before", "after"]) {
    const places = new Float32Array(decode(data[name], Uint16Array));
    for (let i = 0; i < places.length; i++) places[i] /= 65535;
    data[name] = places;
  }
  data.members = data.clusters.map(() => []);
  data.cluster.forEach((cluster, i) => cluster !== NOWHERE && data.members[cluster].push(i));
  data.moved = [];
  data.origin.forEach((origin, i) => origin !== data.cluster[i] && data.moved.push(i));
  data.outliers = [];
  data.outlier.forEach((is, i) => is && data.outliers.push(i));
  data.nameOf = (cluster) => (cluster === NOWHERE ? "belongs nowhere" : data.clusters[cluster].name);
  return data;
}

// Neighbours in the tree get like hues; the lightness tells direct neighbours apart.
function makeColors(data, dark) {
  const colors = new Array(data.clusters.length);
  data.order.forEach((cluster, place) => {
    const lightness = (dark ? [0.74, 0.64, 0.82] : [0.62, 0.5, 0.71])[place % 3];
    const hue = (360 * place) / data.order.length + 20;
    colors[cluster] = fromOklch(lightness, data.clusters.length > 1 ? 0.13 : 0.1, hue);
  });
  const quiet = dark ? [92, 100, 107] : [168, 175, 180];
  return { of: (cluster) => (cluster === NOWHERE ? quiet : colors[cluster]), quiet, list: colors };
}

// https://bottosson.github.io/posts/oklab/
function fromOklch(lightness, chroma, hue) {
  const a = chroma * Math.cos((hue * Math.PI) / 180);
  const b = chroma * Math.sin((hue * Math.PI) / 180);
  const l = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3;
  const m = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3;
  const s = (lightness - 0.0894841775 * a - 1.291485548 * b) ** 3;
  const linear = [
    4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s,
    -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s,
    -0.0041960863 * l - 0.7034186147 * m + 1.707614701 * s,
  ];
  return linear.map((value) => {
    const light = Math.min(1, Math.max(0, value));
    return Math.round(255 * (light <= 0.0031308 ? 12.92 * light : 1.055 * light ** (1 / 2.4) - 0.055));
  });
}

const css = (rgb) => `rgb(${rgb.join(" ")})`;

// Returns an element; children are elements or strings, and a string can only become text.
function make(tag, options = {}, ...children) {
  const element = document.createElement(tag);
  const { className, on, color, ...attributes } = options;
  if (className) element.className = className;
  if (color) element.style.background = css(color);
  for (const [event, handler] of Object.entries(on || {})) element.addEventListener(event, handler);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

const count = (number) => number.toLocaleString("en");
const share = (part) => `${Math.round(100 * part)}%`;
const shareIfKnown = (part) => (part === null ? "–" : share(part));

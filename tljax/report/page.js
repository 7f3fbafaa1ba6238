"use strict";
// Draws the page from the JSON beside it. Texts only ever become text: nothing here parses HTML.

const page = JSON.parse(document.getElementById("page").textContent);
let lastId = 0;
const newId = () => `id-${++lastId}`;

function build(node, attributes, ...children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(name, value);
    else if (value !== false && value != null) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(3).filter((child) => child != null && child !== ""));
  return node;
}
const el = (tag, attributes = {}, ...children) => build(document.createElement(tag), attributes, children);
const svg = (tag, attributes = {}, ...children) =>
  build(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

// ---- Words and numbers
function write(number) {
  if (number == null) return "–";
  if (typeof number === "string") return number;
  if (Number.isInteger(number) || Math.abs(number) >= 1e4) return Math.round(number).toLocaleString("en-US");
  return String(Number(number.toPrecision(4)));
}

const percent = (share) => (share > 0 && share < 0.005 ? "<1%" : `${Math.round(share * 100)}%`);

// What a cell is sorted by: its number, or that which its text begins with.
function readNumber(cell) {
  if (typeof cell === "number") return cell;
  return /^[-+]?[\d.,]+(e[-+]?\d+)?%?( |$)/.test(cell ?? "") ? parseFloat(cell.replace(/,/g, "")) : NaN;
}

function compareCells(a, b) {
  const [x, y] = [readNumber(a), readNumber(b)];
  if (!isNaN(x) && !isNaN(y)) return x - y;
  if (isNaN(x) !== isNaN(y)) return isNaN(x) ? 1 : -1;
  return String(a ?? "").localeCompare(String(b ?? ""), "en", { numeric: true });
}

// ---- Small pieces
const said = el("p", { class: "unseen", role: "status" });

// Browsers give pages from disk no clipboard, or ask: then the text is selected and copied as by a keyboard.
async function copyText(text, source) {
  try {
    await navigator.clipboard.writeText(text);
    return "Copied";
  } catch {
    getSelection().selectAllChildren(source);
    return document.execCommand("copy") ? "Copied" : "Selected";
  }
}

function copyButton(text, source) {
  const button = el("button", { type: "button", class: "copy", "aria-label": `Copy ${text}`, click: copy }, "Copy");
  async function copy() {
    button.textContent = await copyText(text, source);
    said.textContent = `${button.textContent}: ${text}`;
    setTimeout(() => (button.textContent = "Copy"), 1500);
  }
  return button;
}

// What is wider than the page scrolls by itself, by the keyboard too.
const scrolling = (label, child, name = "scroll") =>
  el("div", { class: name, role: "group", tabindex: 0, "aria-label": label }, child);

// A name may go on in the next line behind its signs rather than anywhere.
const SIGNS = /(?<=[/_]|\p{L}{2}-)(?=\S)|(?<=\S[.-])(?=\p{L})/u;
const breakable = (text) => text.split(SIGNS).flatMap((part, i) => (i ? [el("wbr"), part] : [part]));
const heading = (title) => title && el("h3", {}, title);
const note = (text) => text && el("p", { class: "note" }, text);
const titled = (title, name, ...children) => el("div", { class: name }, heading(title), children);

// Arrow keys move the focus along `next(from, key)`, which gives a node or nothing.
function moveFocus(next) {
  return (event) => {
    const node = next(event.target.closest("[tabindex]"), event.key);
    if (!node) return;
    event.preventDefault();
    event.target.tabIndex = -1;
    node.tabIndex = 0;
    node.focus();
  };
}

function drawPicture(key) {
  const { name, src, width, height, alt } = page.pictures[key] ?? { name: key };
  if (!src) return el("span", { class: "absent", role: "img", "aria-label": alt || name }, "no picture");
  const factor = Math.max(1, Math.round(96 / Math.max(width, height, 1)));
  const size = { width: width * factor, height: height * factor, class: factor > 1 && "small" };
  return el("img", { src, alt: alt || name, ...size, decoding: "async", loading: "lazy" });
}

function drawCard({ pictures, title, lines, tone }) {
  const keys = pictures.filter((key) => key != null);
  const name = page.pictures[keys[0]]?.name ?? keys[0];
  const code = name && el("code", { title: name }, breakable(name));
  return el("li", { class: `card ${tone}` },
    el("div", { class: "pictures" }, keys.map(drawPicture)),
    title && el("p", { class: "title", title }, title),
    lines.map((line) => el("p", { title: line }, line)),
    name && el("div", { class: "name" }, code, copyButton(name, code)));
}

const drawCards = (items) => el("ul", { class: "cards" }, items.map(drawCard));

// ---- Tables
function drawTable({ columns, rows, caption, wide }) {
  const isNumeric = (cells) => 2 * cells.filter((cell) => !isNaN(readNumber(cell))).length > cells.length;
  const known = (i) => rows.map((row) => row[i]).filter((cell) => cell != null);
  const names = columns.map((_, i) => i > 0 && isNumeric(known(i)) && "number");
  const draw = (cell, i) => el(i ? "td" : "th", i ? { class: names[i] } : { scope: "row" }, breakable(write(cell)));
  const lines = rows.map((row) => ({ row, node: el("tr", {}, row.map(draw)) }));
  const body = el("tbody", {}, lines.map(({ node }) => node));
  const button = (column, i) => el("button", { type: "button", click: () => sort(i) }, column || "name");
  const heads = columns.map((column, i) => el("th", { scope: "col", class: names[i] }, button(column, i)));
  function sort(i) {
    const down = heads[i].getAttribute("aria-sort") === "ascending";
    heads.forEach((head) => head.removeAttribute("aria-sort"));
    heads[i].setAttribute("aria-sort", down ? "descending" : "ascending");
    const has = ({ row }) => row[i] != null;
    const sorted = lines.filter(has).sort((a, b) => compareCells(a.row[i], b.row[i]) * (down ? -1 : 1));
    body.append(...sorted.concat(lines.filter((line) => !has(line))).map(({ node }) => node));
  }
  const [head, label] = [el("thead", {}, el("tr", {}, heads)), caption || columns.join(", ")];
  const table = el("table", { class: wide && "wide", "aria-label": label }, head, body);
  return el("div", {}, note(caption), scrolling(label, table, rows.length > 100 ? "scroll long" : "scroll"));
}

// ---- Charts
const [LEFT, RIGHT, TOP, BOTTOM, HEIGHT] = [58, 16, 28, 246, 280];

const countFrom = (first, last) => Array.from({ length: Math.max(0, last - first + 1) }, (_, i) => first + i);

// About `count` round numbers in a range; on a log axis powers of ten, with 2 and 5 between few of them.
function chooseTicks([low, high], count, log) {
  if (log) {
    const powers = countFrom(Math.floor(Math.log10(low)), Math.floor(Math.log10(high)));
    const some = powers.filter((_, i) => i % Math.ceil(powers.length / count) === 0).map((power) => 10 ** power);
    const ticks = some.flatMap((power) => (powers.length > 3 ? [power] : [power, 2 * power, 5 * power]));
    return ticks.filter((tick) => tick >= low && tick <= high);
  }
  const power = 10 ** Math.floor(Math.log10((high - low) / count));
  const step = [1, 2, 5, 10].map((digit) => digit * power).find((step) => step >= ((high - low) / count) * 0.999);
  return countFrom(Math.ceil(low / step - 1e-9), Math.floor(high / step + 1e-9)).map((i) => i * step);
}

// From values to pixels, at most as many as SVG takes.
function makeScale([low, high], from, to, log) {
  const turn = log ? Math.log10 : Number;
  const part = (value) => (turn(value) - turn(low)) / (turn(high) - turn(low));
  return (value) => Math.max(-1e5, Math.min(1e5, Math.round((from + part(value) * (to - from)) * 10) / 10));
}

// A path through points of pixels; where there is none it begins anew. A point between two gaps is a dot.
function traceLine(points, name, steps) {
  const path = points.map((point, i) => {
    const before = points[i - 1];
    const corner = steps && before ? `L${point?.[0]} ${before[1]}` : "";
    return point ? `${corner}${before ? "L" : "M"}${point[0]} ${point[1]}` : "";
  });
  const alone = points.filter((point, i) => point && !points[i - 1] && !points[i + 1]);
  return [svg("path", { d: path.join(""), class: name }), DRAW_SERIES.dots(alone)];
}

const DRAW_SERIES = {
  line: (points) => traceLine(points, "line", false),
  dashed: (points) => traceLine(points, "line dashed", false),
  steps: (points) => traceLine(points, "line", true),
  dots: (points) => points.filter(Boolean).map(([cx, cy]) => svg("circle", { cx, cy, r: 3.5, class: "dot" })),
};

function drawLegend(series) {
  const sample = ({ color, style }) =>
    svg("svg", { viewBox: "0 0 28 12", width: 28, height: 12, class: `c${color % 8}`, "aria-hidden": "true" },
      DRAW_SERIES[style](style === "dots" ? [[14, 6]] : [[6, 6], [22, 6]]));
  return el("ul", { class: "legend" }, series.map((one) => el("li", {}, sample(one), el("span", {}, one.name))));
}

function drawMark({ x, text }, i, toX, right) {
  const at = toX(x);
  const left = at < right * 0.6;
  const place = { x: left ? at + 4 : at - 4, y: TOP + 12 + 14 * (i % 4), "text-anchor": left ? "start" : "end" };
  const line = svg("line", { x1: at, x2: at, y1: TOP, y2: BOTTOM, class: "mark" });
  return [line, svg("text", { ...place, class: "mark-text" }, svg("title", {}, text), text)];
}

function drawAxes(chart, toX, toY, right) {
  const { x: across, y: upright, xs: places } = chart.axes;
  const whole = places.every(Number.isInteger);
  const xs = chooseTicks(across, Math.max(2, right / 110), false).filter((x) => !whole || Number.isInteger(x));
  return [
    chooseTicks(upright, 6, chart.log_y).map((y) => [
      svg("path", { d: `M${LEFT} ${toY(y)}H${right}`, class: "grid" }),
      svg("text", { x: LEFT - 6, y: toY(y) + 4, "text-anchor": "end" }, write(y)),
    ]),
    xs.map((x) => [
      svg("path", { d: `M${toX(x)} ${BOTTOM}v5`, class: "axis" }),
      svg("text", { x: toX(x), y: BOTTOM + 18, "text-anchor": "middle" }, write(x)),
    ]),
    svg("path", { d: `M${LEFT} ${BOTTOM}H${right}`, class: "axis" }),
    svg("text", { x: 4, y: 14 }, chart.y_label + (chart.log_y ? " (logarithmic axis)" : "")),
    svg("text", { x: right, y: HEIGHT - 3, "text-anchor": "end" }, chart.x_label),
  ];
}

// Draws at a width in pixels, so that letters keep their size on a telephone. Gives the function from x to pixels.
function drawPlot(root, chart, width) {
  const { x: across, y: upright } = chart.axes;
  const right = width - RIGHT;
  const toX = makeScale(across, LEFT, right, false);
  const toY = makeScale(upright, BOTTOM, TOP, chart.log_y);
  const has = ([x, y]) => x != null && y != null && (!chart.log_y || y > 0);
  const lines = chart.series.map((series) => {
    const points = series.points.map((point) => (has(point) ? [toX(point[0]), toY(point[1])] : null));
    return svg("g", { class: `c${series.color % 8}` }, DRAW_SERIES[series.style](points));
  });
  const clip = newId();
  const area = { x: LEFT, y: TOP - 4, width: right - LEFT, height: BOTTOM - TOP + 5 };
  const marks = chart.marks.filter(({ x }) => x != null).map((mark, i) => drawMark(mark, i, toX, right));
  const diagonal = chart.diagonal && svg("path", { d: `M${LEFT} ${BOTTOM}L${right} ${TOP}`, class: "mark" });
  root.replaceChildren();
  build(root, { viewBox: `0 0 ${width} ${HEIGHT}`, height: HEIGHT },
    svg("clipPath", { id: clip }, svg("rect", area)), drawAxes(chart, toX, toY, right),
    svg("g", { "clip-path": `url(#${clip})` }, lines, diagonal || "", marks),
    svg("line", { y1: TOP, y2: BOTTOM, class: "pointer", visibility: "hidden" }));
  return toX;
}

function drawChart(chart) {
  if (!chart.axes) return titled(chart.title, "chart", note("There are no numbers to draw."), note(chart.note));
  const xs = chart.axes.xs;
  const values = chart.series.map(({ points }) => new Map(points));
  const rows = xs.map((x) => [x, ...values.map((value) => value.get(x) ?? null)]);
  const tell = ({ name }, y) => (y == null ? [] : [`${name}: ${write(y)}`]);
  const told = rows.map(([x, ...ys]) =>
    [`${chart.x_label} ${write(x)}`, ...ys.flatMap((y, i) => tell(chart.series[i], y))].join(" · "));
  const readout = el("p", { class: "readout" });
  const moves = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, Home: -Infinity, End: Infinity };
  const root = svg("svg", {
    class: "plot", preserveAspectRatio: "xMinYMid", role: "slider", tabindex: 0,
    "aria-label": chart.title || chart.y_label, "aria-valuemin": 0, "aria-valuemax": xs.length - 1,
    pointermove: point, pointerdown: point, focus: () => show(at),
    keydown: (event) => event.key in moves && (event.preventDefault(), show(at + moves[event.key])),
  });
  let [toX, at, width] = [Number, xs.length - 1, 0];
  function show(i, visibility = "visible") {
    at = Math.max(0, Math.min(xs.length - 1, i));
    build(root, { "aria-valuenow": at, "aria-valuetext": told[at] });
    readout.textContent = told[at];
    build(root.lastChild, { x1: toX(xs[at]), x2: toX(xs[at]), visibility });
  }
  function point(event) {
    const box = root.getBoundingClientRect();
    const far = xs.map((x) => Math.abs(toX(x) - ((event.clientX - box.left) / box.width) * width));
    show(far.indexOf(Math.min(...far)));
  }
  const holder = el("div", {}, root);
  new ResizeObserver(([{ contentRect }]) => {
    if (!contentRect.width || contentRect.width === width) return;
    width = contentRect.width;
    toX = drawPlot(root, chart, width);
    show(at, "hidden");
  }).observe(holder);
  const columns = [chart.x_label, ...chart.series.map(({ name }) => name)];
  const place = (x) => (Number.isInteger(x) ? x : `${Math.floor(x)} to ${Math.ceil(x)}`);
  const marks = chart.marks.map(({ x, text }) => `${text}: ${chart.x_label} ${place(x)}`).join(" · ");
  const numbers = drawDetails("The numbers", () => [drawTable({ columns, rows, caption: chart.title })]);
  const below = [readout, note(marks), note(chart.note), numbers];
  return titled(chart.title, "chart", drawLegend(chart.series), holder, below);
}

// ---- The confusion matrix
function drawMatrix({ names, counts, pictures, title }) {
  const shares = counts.map((row) => row.map((count) => count / row.reduce((sum, other) => sum + other, 0)));
  const shown = el("div", { "aria-live": "polite" }, note("Choose a cell to see its pictures."));
  const cells = counts.map((row, i) => row.map((count, j) => (count ? drawCell(i, j) : null)));
  const buttons = cells.flat().filter(Boolean);
  function drawCell(i, j) {
    const told = `${names[i]} called ${names[j]}: ${write(counts[i][j])}, ${percent(shares[i][j])}`;
    const button = el("button", {
      type: "button", tabindex: -1, class: i === j ? "right" : "wrong", "aria-label": told, "aria-pressed": "false",
      click: () => choose(button, told, pictures[`${i},${j}`] ?? [], counts[i][j]),
    });
    button.style.setProperty("--share", `${Math.round(100 * Math.sqrt(shares[i][j]))}%`);
    return button;
  }
  function choose(button, told, keys, count) {
    buttons.forEach((other) => other.setAttribute("aria-pressed", String(other === button)));
    const few = keys.length < count ? `; ${keys.length || "none"} shown here` : "";
    const items = keys.map((key) => ({ pictures: [key], title: "", lines: [], tone: "" }));
    shown.replaceChildren(el("p", {}, told, few), drawCards(items));
  }
  const fill = (values, how) =>
    cells.forEach((row, i) => row.forEach((cell, j) => cell && (cell.textContent = how(values[i][j]))));
  const steps = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
  function next(from, key) {
    let i = cells.findIndex((row) => row.includes(from));
    let j = cells[i]?.indexOf(from);
    do [i, j] = [i + steps[key]?.[0], j + steps[key]?.[1]];
    while (cells[i]?.[j] === null);
    return cells[i]?.[j];
  }
  if (buttons.length) buttons[0].tabIndex = 0;
  fill(counts, write);
  const group = newId();
  const radio = (label, checked, change) =>
    el("label", {}, el("input", { type: "radio", name: group, checked, change }), label);
  const heads = names.map((name) => el("th", { scope: "col", title: name }, el("span", {}, name)));
  const body = cells.map((row, i) =>
    el("tr", {}, el("th", { scope: "row", title: names[i] }, names[i]), row.map((cell) => el("td", {}, cell))));
  const head = el("tr", {}, el("td", { class: "corner" }, "label ↓ called →"), heads);
  const size = names.length > 16 ? "matrix large" : "matrix";
  const table = el("table", { class: size, keydown: moveFocus(next) }, el("thead", {}, head), el("tbody", {}, body));
  return titled(title, "block", note("A row is a label, a column what the network calls it; shares are of the row."),
    el("fieldset", {}, el("legend", { class: "unseen" }, "What cells show"),
      radio("counts", true, () => fill(counts, write)), radio("shares", false, () => fill(shares, percent))),
    scrolling(title || "Confusion matrix", table), shown);
}

function drawGrid({ title, heads, rows, row_titles }) {
  const named = (scope, text) => el("th", { scope }, el("span", { title: text }, text));
  const name = (i) => (row_titles.length ? named("row", row_titles[i]) : null);
  const cell = (key) => el("td", {}, key == null ? "" : drawPicture(key));
  const body = rows.map((row, i) => el("tr", {}, name(i), row.map(cell)));
  const head = el("tr", {}, row_titles.length ? el("td") : null, heads.map((text) => named("col", text)));
  const table = el("table", { class: "pictures" }, el("thead", {}, head), el("tbody", {}, body));
  return titled(title, "block", scrolling(title || heads.join(", "), table));
}

// Drawn when it is opened.
function drawDetails(title, draw) {
  const body = el("div", { class: "inside" });
  const open = () => body.childNodes.length || body.append(...draw());
  return el("details", { toggle: open }, el("summary", {}, title), body);
}

// Tabs with one label choose together, as far as they have the same titles.
const tabSets = [];
function drawTabs({ label, options, chosen: first }) {
  const titles = options.map(([title]) => title);
  const panels = options.map(() => el("div", { role: "tabpanel", id: newId(), tabindex: 0, hidden: true }));
  const tabs = options.map(([name], i) => {
    const leads = { "aria-controls": panels[i].id, click: () => chooseAll(i) };
    return el("button", { type: "button", role: "tab", id: `of-${panels[i].id}`, ...leads }, name);
  });
  panels.forEach((panel, i) => panel.setAttribute("aria-labelledby", tabs[i].id));
  function choose(chosen) {
    tabs.forEach((tab, i) => build(tab, { "aria-selected": String(i === chosen), tabindex: i === chosen ? 0 : -1 }));
    panels.forEach((panel, i) => (panel.hidden = i !== chosen));
    if (panels[chosen] && !panels[chosen].childNodes.length) panels[chosen].append(...drawBlocks(options[chosen][1]));
  }
  const chooseAll = (i) => tabSets.forEach((follow) => follow(label, titles[i]));
  tabSets.push((other, title) => other === label && titles.includes(title) && choose(titles.indexOf(title)));
  const next = (from, key) => {
    const [i, last] = [tabs.indexOf(from), tabs.length - 1];
    const to = { ArrowLeft: i ? i - 1 : last, ArrowRight: i < last ? i + 1 : 0, Home: 0, End: last }[key];
    if (to != null) chooseAll(to);
    return tabs[to];
  };
  choose(first);
  return el("div", { class: "block" },
    el("div", { role: "tablist", "aria-label": label, keydown: moveFocus(next) }, tabs), panels);
}

function drawCode({ lines, label }) {
  const codes = lines.map((line) => el("code", {}, line));
  const items = codes.map((code, i) => el("li", {}, code, copyButton(lines[i], code)));
  return el("div", { class: "block" }, label && el("p", {}, label), el("ul", { class: "code" }, items));
}

const DRAW = {
  Text: ({ lines, tone }) => el("div", { class: `text ${tone}` }, lines.map((line) => el("p", {}, line))),
  Sheet: drawTable,
  Chart: drawChart,
  Matrix: drawMatrix,
  Gallery: ({ title, items, note: text }) => titled(title, "block", note(text), drawCards(items)),
  PictureGrid: drawGrid,
  Code: drawCode,
  Facts: ({ pairs }) =>
    el("dl", {}, pairs.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, write(value))))),
  Details: ({ title, blocks }) => drawDetails(title, () => drawBlocks(blocks)),
  Tabs: drawTabs,
};

const drawBlocks = (blocks) => blocks.map((block) => DRAW[block.kind](block));
const drawSection = ({ id, title, blocks }) => el("section", { id }, el("h2", {}, title), drawBlocks(blocks));

addEventListener("DOMContentLoaded", () => document.body.append(
  el("header", {}, el("h1", {}, page.title), page.lead.map((line) => el("p", { class: "lead" }, line))),
  el("nav", { "aria-label": "Contents" },
    el("ul", {}, page.sections.map(({ id, title }) => el("li", {}, el("a", { href: `#${id}` }, title))))),
  el("main", {}, page.sections.map(drawSection)),
  said,
));

"use strict";
// Draws the page from the JSON beside it. Texts only ever become text: nothing here parses HTML.

const page = JSON.parse(document.getElementById("page").textContent);
const NO_PICTURE = { name: "", src: "", width: 96, height: 96, alt: "" };
let lastId = 0;
const newId = () => `id-${++lastId}`;

function build(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(name, value);
    else if (value !== false && value != null) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(2).filter((child) => child != null && child !== ""));
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
  return /^[-+]?[\d.]/.test(cell ?? "") ? parseFloat(cell.replace(/,(?=\d{3})/g, "")) : NaN;
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
  const button = el("button", { type: "button", class: "copy", "aria-label": `Copy ${text}` }, "Copy");
  button.addEventListener("click", async () => {
    button.textContent = await copyText(text, source);
    said.textContent = `${button.textContent}: ${text}`;
    setTimeout(() => (button.textContent = "Copy"), 1500);
  });
  return button;
}

// A line that scrolls by itself when it is wider than the page, and then by the keyboard, too.
const region = (label, ...children) =>
  el("div", { class: "scroll", role: "region", tabindex: 0, "aria-label": label }, ...children);

const heading = (title) => title && el("h3", {}, title);
const note = (text) => text && el("p", { class: "note" }, text);

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
  const { name, src, width, height, alt } = page.pictures[key] ?? { ...NO_PICTURE, name: key };
  const factor = Math.max(1, Math.round(96 / Math.max(width, height, 1)));
  if (!src) return el("span", { class: "absent", role: "img", "aria-label": alt || name }, "no picture");
  const size = { width: width * factor, height: height * factor };
  return el("img", { src, alt: alt || name, ...size, class: factor > 1 && "small", decoding: "async", loading: "lazy" });
}

function drawCard({ pictures, title, lines, tone }) {
  const keys = pictures.filter((key) => key != null);
  const name = keys.length ? (page.pictures[keys[0]]?.name ?? keys[0]) : "";
  const code = name && el("code", { title: name }, name);
  return el(
    "li",
    { class: `card ${tone}` },
    el("div", { class: "pictures" }, keys.map(drawPicture)),
    title && el("p", { class: "title", title }, title),
    lines.map((line) => el("p", {}, line)),
    name && el("div", { class: "name" }, code, copyButton(name, code)),
  );
}

const drawCards = (items) => el("ul", { class: "cards" }, items.map(drawCard));

// ---- Tables

function drawTable(columns, rows, caption, wide) {
  const numeric = columns.map((_, i) => rows.every((row) => row[i] == null || !isNaN(readNumber(row[i]))));
  const cells = (row) =>
    row.map((cell, i) =>
      i ? el("td", { class: numeric[i] && "number" }, write(cell)) : el("th", { scope: "row" }, write(cell)),
    );
  const lines = rows.map((row) => ({ row, node: el("tr", {}, cells(row)) }));
  const body = el("tbody", {}, lines.map(({ node }) => node));
  const heads = columns.map((column, i) => {
    const button = el("button", { type: "button", click: () => sort(i) }, column || "name");
    return el("th", { scope: "col", class: numeric[i] && i > 0 && "number" }, button);
  });
  function sort(i) {
    const down = heads[i].getAttribute("aria-sort") === "ascending";
    heads.forEach((head) => head.removeAttribute("aria-sort"));
    heads[i].setAttribute("aria-sort", down ? "descending" : "ascending");
    const has = ({ row }) => row[i] != null;
    const sorted = lines.filter(has).sort((a, b) => compareCells(a.row[i], b.row[i]) * (down ? -1 : 1));
    body.append(...[...sorted, ...lines.filter((line) => !has(line))].map(({ node }) => node));
  }
  const named = caption && el("caption", {}, caption);
  const table = el("table", { class: wide && "wide" }, named, el("thead", {}, el("tr", {}, heads)), body);
  return region(caption || columns.join(", "), table);
}

// ---- Charts

const MARGIN = { left: 58, right: 16, top: 28, bottom: 34 };
const HEIGHT = 280;

// About `count` round numbers from `low` to `high`; powers of ten, with 2 and 5 between few of them, on a log axis.
function chooseTicks(low, high, count, log) {
  if (log) {
    const powers = [];
    for (let p = Math.floor(Math.log10(low)); p <= Math.log10(high); p++) powers.push(p);
    const skip = Math.ceil(powers.length / count);
    const digits = powers.length > 3 ? [1] : [1, 2, 5];
    const ticks = powers.filter((_, i) => i % skip === 0).flatMap((p) => digits.map((d) => d * 10 ** p));
    return ticks.filter((tick) => tick >= low * 0.999 && tick <= high * 1.001);
  }
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].find((digit) => digit * power >= rough * 0.999) * power;
  const first = Math.ceil(low / step - 1e-9);
  return Array.from({ length: Math.floor(high / step + 1e-9) - first + 1 }, (_, i) => (first + i) * step);
}

// From values to pixels.
function makeScale(low, high, from, to, log) {
  const turn = log ? Math.log10 : Number;
  const [a, b] = [turn(low), turn(high)];
  return (value) => from + ((turn(value) - a) / (b - a)) * (to - from);
}

function findRange(values, log) {
  const [low, high] = values.reduce(([a, b], v) => [Math.min(a, v), Math.max(b, v)], [Infinity, -Infinity]);
  if (low === high) return log ? [low / 2, high * 2] : [low - (Math.abs(low) || 1) / 2, high + (Math.abs(high) || 1) / 2];
  return log ? [low / 1.1, high * 1.1] : [low, high];
}

function chooseRanges(chart, points) {
  const hasBars = chart.series.some(({ style }) => style === "bars");
  const square = chart.y_range ?? [0, 1];
  const ys = points.map(([, y]) => y).concat(hasBars && !chart.log_y ? [0] : []);
  const [low, high] = findRange(ys, chart.log_y);
  const pad = chart.log_y ? 0 : (high - low) * 0.05;
  const y = chart.y_range ?? (chart.diagonal ? square : [low === 0 ? 0 : low - pad, high + pad]);
  const half = hasBars ? barWidth(chart) / 2 : 0;
  const x = findRange(points.map(([x]) => x).concat(chart.marks.map((mark) => mark.x).filter((x) => x != null)), false);
  return { x: chart.diagonal ? square : [x[0] - half, x[1] + half], y };
}

function barWidth(chart) {
  const xs = listXs(chart.series.filter(({ style }) => style === "bars"));
  const gaps = xs.slice(1).map((x, i) => x - xs[i]);
  return gaps.length ? Math.min(...gaps) : chart.diagonal ? 0.1 : 1;
}

const listXs = (series) =>
  [...new Set(series.flatMap(({ points }) => points.map(([x]) => x)))].filter((x) => x != null).sort((a, b) => a - b);

// A path through points of pixels, with gaps where there is none.
function tracePath(points, steps) {
  let pen = "M";
  return points.reduce((path, point, i) => {
    if (!point) return (pen = "M"), path;
    const corner = steps && pen === "L" ? `L${point[0]} ${points[i - 1][1]}` : "";
    const next = `${path}${corner}${pen}${point[0]} ${point[1]}`;
    return (pen = "L"), next;
  }, "");
}

const DRAW_SERIES = {
  line: (points) => traceLine(points, "line", false),
  dashed: (points) => traceLine(points, "line dashed", false),
  steps: (points) => traceLine(points, "line", true),
  dots: (points) => points.filter(Boolean).map(([cx, cy]) => svg("circle", { cx, cy, r: 3.5, class: "dot" })),
  bars: (points, base, width, shift) =>
    points.filter(Boolean).map(([x, y]) =>
      svg("rect", { x: x - width / 2 + shift, width, y: Math.min(y, base), height: Math.abs(base - y), class: "bar" }),
    ),
};

// A point between two gaps has no line: it is a dot.
function traceLine(points, name, steps) {
  const alone = points.filter((point, i) => point && !points[i - 1] && !points[i + 1]);
  return [svg("path", { d: tracePath(points, steps), class: name }), ...DRAW_SERIES.dots(alone)];
}

function drawMarks(marks, scale, width, top, bottom) {
  return marks.map(({ x, text }, i) => {
    const at = scale(x);
    const right = at > width * 0.6;
    const label = { x: at + (right ? -4 : 4), y: top + 12 + 14 * (i % 4), "text-anchor": right ? "end" : "start" };
    const room = Math.max(8, Math.floor((right ? at - MARGIN.left : width - at) / 7));
    const short = text.length > room ? `${text.slice(0, room - 1)}…` : text;
    return [
      svg("line", { x1: at, x2: at, y1: top, y2: bottom, class: "mark" }),
      svg("text", { ...label, class: "mark-text" }, svg("title", {}, text), short),
    ];
  });
}

function drawAxes(chart, ranges, toX, toY, width) {
  const [right, bottom] = [width - MARGIN.right, HEIGHT - MARGIN.bottom];
  const whole = listXs(chart.series).every(Number.isInteger);
  const xs = chooseTicks(...ranges.x, Math.max(2, width / 110), false).filter((x) => !whole || Number.isInteger(x));
  return [
    chooseTicks(...ranges.y, 6, chart.log_y).map((y) => [
      svg("line", { x1: MARGIN.left, x2: right, y1: toY(y), y2: toY(y), class: "grid" }),
      svg("text", { x: MARGIN.left - 6, y: toY(y) + 4, "text-anchor": "end" }, write(y)),
    ]),
    xs.map((x) => [
      svg("line", { x1: toX(x), x2: toX(x), y1: bottom, y2: bottom + 5, class: "axis" }),
      svg("text", { x: toX(x), y: bottom + 18, "text-anchor": "middle" }, write(x)),
    ]),
    svg("line", { x1: MARGIN.left, x2: right, y1: bottom, y2: bottom, class: "axis" }),
    svg("text", { x: 4, y: 14 }, chart.y_label + (chart.log_y ? " (logarithmic axis)" : "")),
    svg("text", { x: right, y: HEIGHT - 3, "text-anchor": "end" }, chart.x_label),
  ];
}

// The drawing at a width in pixels, so that letters keep their size on a telephone. Gives the function from x to pixels.
function drawPlot(root, chart, ranges, width) {
  const [right, bottom] = [width - MARGIN.right, HEIGHT - MARGIN.bottom];
  const toX = makeScale(...ranges.x, MARGIN.left, right, false);
  const toY = makeScale(...ranges.y, bottom, MARGIN.top, chart.log_y);
  const has = ([x, y]) => x != null && y != null && (!chart.log_y || y > 0);
  const round = (number) => Math.round(Math.max(-1e5, Math.min(1e5, number)) * 10) / 10;
  const bars = chart.series.filter(({ style }) => style === "bars");
  const wide = (Math.abs(toX(barWidth(chart)) - toX(0)) * 0.85) / Math.max(1, bars.length);
  const lines = chart.series.map((series) => {
    const points = series.points.map((point) => (has(point) ? [round(toX(point[0])), round(toY(point[1]))] : null));
    const shift = (bars.indexOf(series) - (bars.length - 1) / 2) * wide;
    return svg("g", { class: `c${series.color % 8}` }, DRAW_SERIES[series.style](points, bottom, wide, shift));
  });
  const clip = newId();
  const [low, high] = [Math.max(ranges.x[0], ranges.y[0]), Math.min(ranges.x[1], ranges.y[1])];
  const ends = chart.diagonal && { x1: toX(low), y1: toY(low), x2: toX(high), y2: toY(high), class: "mark" };
  const area = { x: MARGIN.left, y: MARGIN.top - 4, width: right - MARGIN.left, height: bottom - MARGIN.top + 5 };
  root.replaceChildren(
    svg("clipPath", { id: clip }, svg("rect", area)),
    ...drawAxes(chart, ranges, toX, toY, width).flat(2),
    svg("g", { "clip-path": `url(#${clip})` }, ends ? svg("line", ends) : "", lines),
    ...drawMarks(chart.marks.filter(({ x }) => x != null), toX, width, MARGIN.top, bottom).flat(),
    svg("line", { y1: MARGIN.top, y2: bottom, class: "pointer", visibility: "hidden" }),
  );
  build(root, { viewBox: `0 0 ${width} ${HEIGHT}`, height: HEIGHT }, []);
  return toX;
}

function drawLegend(series) {
  const sample = ({ color, style }) =>
    svg("svg", { viewBox: "0 0 28 12", width: 28, height: 12, class: `c${color % 8}`, "aria-hidden": "true" },
      style === "dots" ? svg("circle", { cx: 14, cy: 6, r: 4, class: "dot" })
        : style === "bars" ? svg("rect", { x: 6, y: 1, width: 16, height: 10, class: "bar" })
          : svg("line", { x1: 1, x2: 27, y1: 6, y2: 6, class: style === "dashed" ? "line dashed" : "line" }));
  return el("ul", { class: "legend" }, series.map((one) => el("li", {}, sample(one), el("span", {}, one.name))));
}

function drawChart(chart) {
  const has = ([x, y]) => x != null && y != null && (!chart.log_y || y > 0);
  const points = chart.series.flatMap((series) => series.points.filter(has));
  if (!points.length) return el("div", { class: "block" }, heading(chart.title), note("There are no numbers to draw."), note(chart.note));
  const ranges = chooseRanges(chart, points);
  const xs = listXs(chart.series);
  const values = chart.series.map((series) => new Map(series.points));
  const row = (x) => [x, ...values.map((value) => value.get(x) ?? null)];
  const tell = (x) => row(x).slice(1).map((y, i) => `${chart.series[i].name}: ${write(y)}`).join(" · ");
  let [toX, at] = [null, 0];
  const root = svg("svg", {
    class: "plot", role: "slider", tabindex: 0, "aria-label": chart.title || chart.y_label,
    "aria-valuemin": 0, "aria-valuemax": xs.length - 1, "aria-valuenow": 0,
  });
  const readout = el("p", { class: "readout" });
  function show(i) {
    at = Math.max(0, Math.min(xs.length - 1, i));
    const text = `${chart.x_label} ${write(xs[at])} · ${tell(xs[at])}`;
    build(root, { "aria-valuenow": at, "aria-valuetext": text }, []);
    readout.textContent = text;
    build(root.querySelector(".pointer") ?? root, { x1: toX(xs[at]), x2: toX(xs[at]), visibility: "visible" }, []);
  }
  function point(event) {
    const box = root.getBoundingClientRect();
    const left = ((event.clientX - box.left) / box.width) * root.viewBox.baseVal.width;
    const far = xs.map((x) => Math.abs(toX(x) - left));
    show(far.indexOf(Math.min(...far)));
  }
  const moves = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageUp: 10, PageDown: -10, Home: -1e9, End: 1e9 };
  build(root, {
    pointermove: point, pointerdown: point, focus: () => show(at),
    keydown: (event) => event.key in moves && (event.preventDefault(), show(at + moves[event.key])),
  }, []);
  const holder = el("div", { class: "plot-holder" }, root);
  let width = 0;
  new ResizeObserver(([{ contentRect }]) => {
    if (!contentRect.width || contentRect.width === width) return;
    width = contentRect.width;
    toX = drawPlot(root, chart, ranges, width);
  }).observe(holder);
  const numbers = drawDetails("The numbers", () => [
    drawTable([chart.x_label, ...chart.series.map(({ name }) => name)], xs.map(row), chart.title, false),
  ]);
  return el("div", { class: "block" }, heading(chart.title), drawLegend(chart.series), holder, readout, note(chart.note), numbers);
}

// ---- The confusion matrix

function drawMatrix({ names, counts, pictures, title }) {
  const sums = counts.map((row) => row.reduce((sum, count) => sum + count, 0));
  const shown = el("div", { class: "shown", "aria-live": "polite" }, note("Choose a cell to see its pictures."));
  const cells = counts.map((row, i) => row.map((count, j) => (count ? drawCell(i, j) : null)));
  const buttons = cells.flat().filter(Boolean);
  function drawCell(i, j) {
    const [count, share] = [counts[i][j], counts[i][j] / sums[i]];
    const told = `${names[i]} called ${names[j]}: ${write(count)}, ${percent(share)}`;
    const button = el("button", { type: "button", tabindex: -1, class: i === j ? "right" : "wrong", "aria-label": told });
    button.style.setProperty("--share", `${Math.round(100 * Math.sqrt(share))}%`);
    button.addEventListener("click", () => choose(button, told, pictures[`${i},${j}`] ?? [], count));
    return button;
  }
  function choose(button, told, keys, count) {
    buttons.forEach((other) => other.removeAttribute("aria-pressed"));
    button.setAttribute("aria-pressed", "true");
    const few = keys.length < count ? `${keys.length || "None"} of them ${keys.length === 1 ? "is" : "are"} shown.` : "";
    const items = keys.map((key) => ({ pictures: [key], title: "", lines: [], tone: "" }));
    shown.replaceChildren(el("p", {}, `${told}. ${few}`), drawCards(items));
  }
  const fill = (shares) =>
    cells.forEach((row, i) => row.forEach((cell, j) => {
      if (cell) cell.textContent = shares ? percent(counts[i][j] / sums[i]) : write(counts[i][j]);
    }));
  const steps = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
  const next = (from, key) => {
    const step = steps[key];
    const row = cells.findIndex((line) => line.includes(from));
    let [i, j] = [row, cells[row]?.indexOf(from)];
    do [i, j] = [i + (step?.[0] ?? NaN), j + (step?.[1] ?? NaN)];
    while (cells[i]?.[j] === null);
    return cells[i]?.[j];
  };
  if (buttons.length) buttons[0].tabIndex = 0;
  fill(false);
  const group = newId();
  const radio = (label, shares) =>
    el("label", {}, el("input", { type: "radio", name: group, checked: !shares, change: () => fill(shares) }), label);
  const heads = names.map((name) => el("th", { scope: "col", title: name }, el("span", {}, name)));
  const body = cells.map((row, i) =>
    el("tr", {}, el("th", { scope: "row", title: names[i] }, names[i]), row.map((cell) => el("td", {}, cell ?? ""))));
  const corner = el("td", { class: "corner" }, "label ↓ called →");
  const table = el("table", { class: "matrix", keydown: moveFocus(next) },
    el("thead", {}, el("tr", {}, corner, heads)), el("tbody", {}, body));
  return el("div", { class: "block" }, heading(title),
    note("A row is a label, a column what the network calls it; shares are of the row."),
    el("fieldset", {}, el("legend", { class: "unseen" }, "What cells show"), radio("counts", false), radio("shares", true)),
    region(title || "Confusion matrix", table), shown);
}

// ---- The other blocks

function drawGrid({ title, heads, rows, row_titles }) {
  const named = row_titles.length > 0;
  const cells = (row, i) => [
    named && el("th", { scope: "row" }, row_titles[i] ?? ""),
    row.map((key) => el("td", {}, key == null ? "" : drawPicture(key))),
  ].filter(Boolean);
  const head = [named && el("td", {}), heads.map((text) => el("th", { scope: "col" }, text))].filter(Boolean);
  const body = rows.map((row, i) => el("tr", {}, cells(row, i)));
  const table = el("table", { class: "pictures" }, el("thead", {}, el("tr", {}, head)), el("tbody", {}, body));
  return el("div", { class: "block" }, heading(title), region(title || heads.join(", "), table));
}

// What is behind a title is drawn when it is opened.
function drawDetails(title, draw) {
  const body = el("div", { class: "inside" });
  const open = () => body.childNodes.length || body.append(...draw());
  return el("details", { toggle: open }, el("summary", {}, title), body);
}

function drawTabs({ label, options }) {
  const panels = options.map(() => el("div", { role: "tabpanel", id: newId(), tabindex: 0, hidden: true }));
  const tabs = options.map(([name], i) =>
    el("button", { type: "button", role: "tab", id: newId(), "aria-controls": panels[i].id, click: () => choose(i) }, name));
  panels.forEach((panel, i) => panel.setAttribute("aria-labelledby", tabs[i].id));
  function choose(chosen) {
    tabs.forEach((tab, i) => {
      build(tab, { "aria-selected": String(i === chosen), tabindex: i === chosen ? 0 : -1 }, []);
      panels[i].hidden = i !== chosen;
    });
    if (panels[chosen] && !panels[chosen].childNodes.length) panels[chosen].append(...drawBlocks(options[chosen][1]));
  }
  const next = (from, key) => {
    const [i, last] = [tabs.indexOf(from), tabs.length - 1];
    const to = { ArrowLeft: i ? i - 1 : last, ArrowRight: i < last ? i + 1 : 0, Home: 0, End: last }[key];
    if (to != null) choose(to);
    return tabs[to];
  };
  choose(0);
  return el("div", { class: "block" },
    el("div", { role: "tablist", "aria-label": label, keydown: moveFocus(next) }, tabs), panels);
}

function drawCode({ lines, label }) {
  const items = lines.map((line) => {
    const code = el("code", {}, line);
    return el("li", {}, code, copyButton(line, code));
  });
  return el("div", { class: "block" }, label && el("p", {}, label), el("ul", { class: "code" }, items));
}

const DRAW = {
  Text: ({ lines, tone }) => el("div", { class: `text ${tone}` }, lines.map((line) => el("p", {}, line))),
  Sheet: ({ columns, rows, caption, wide }) => drawTable(columns, rows, caption, wide),
  Chart: drawChart,
  Matrix: drawMatrix,
  Gallery: ({ title, items, note: text }) => el("div", { class: "block" }, heading(title), note(text), drawCards(items)),
  Grid: drawGrid,
  Code: drawCode,
  Facts: ({ pairs }) =>
    el("dl", {}, pairs.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, write(value))))),
  Details: ({ title, blocks }) => drawDetails(title, () => drawBlocks(blocks)),
  Tabs: drawTabs,
};

const drawBlocks = (blocks) => blocks.map((block) => DRAW[block.kind](block));

document.body.append(
  el("header", {}, el("h1", {}, page.title), page.lead.map((line) => el("p", { class: "lead" }, line))),
  el("nav", { "aria-label": "Contents" },
    el("ul", {}, page.sections.map(({ id, title }) => el("li", {}, el("a", { href: `#${id}` }, title))))),
  el("main", {}, page.sections.map(({ id, title, blocks }) => el("section", { id }, el("h2", {}, title), drawBlocks(blocks)))),
  said,
);

// What a person decides about pictures, and the table that is saved of it. A picture has one decision: all cards that
// show it show that. Texts, decisions and files are numbers, places in `ledger.texts`.

const ledger = page.ledger;
const [NOTHING, KEEP, DROP] = [0, 1, 2];
// A card has more pictures behind a button: `check/cards.py` has the same number.
const [CARDS_AT_ONCE, PICTURES_OF_A_CARD] = [60, 6];
const WORDS = ["undecided", "keep", "drop"];
const read = (text) => WORDS[text] ?? ledger.shown[text] ?? ledger.texts[text];
const countPictures = (number) => `${write(number)} picture${number === 1 ? "" : "s"}`;

// A row as what stands in its columns.
const columns = ledger.columns.map((text) => ledger.texts[text]);
const readRow = (i) =>
  Object.fromEntries(columns.map((name, j) => [name, ledger.rows[i * columns.length + j]]));
const rows = countFrom(0, ledger.rows.length / columns.length - 1).map(readRow);
const found = rows.slice(0, rows.length - ledger.spare);

// ---- Decisions
const decisions = new Map(rows.filter((row) => row.decision).map((row) => [row.file, row.decision]));
const decide = (file) => decisions.get(file) ?? NOTHING;
const facts = new Map();
// Pictures with a finding: a row without a kind is a decision alone.
const files = new Set(found.filter(({ kind }) => kind).map(({ file }) => file));
// A run ends at one of these that is not dropped.
const broken = new Set(found.filter(({ kind }) => ledger.texts[kind] === "broken").map(({ file }) => file));
const [earlier, watchers] = [[], new Map()];
let [saved, isSaved] = [new Map(decisions), false];

const classes = new Set(ledger.classes);
for (const { file, split, label, suggested } of rows) {
  if (!facts.has(file)) facts.set(file, { split, label, suggested: new Set() });
  if (classes.has(suggested)) facts.get(file).suggested.add(suggested);
}

const isUnsaved = () =>
  saved.size !== decisions.size || [...decisions].some(([file, decision]) => saved.get(file) !== decision);

function change(changes) {
  for (const [file, decision] of changes) {
    decision ? decisions.set(file, decision) : decisions.delete(file);
    const shown = (watchers.get(file) ?? []).filter(({ node }) => node.isConnected);
    watchers.set(file, shown);
    shown.forEach(({ show }) => show());
  }
  showState();
}

// Changes that can be taken back together.
function decideAll(changes) {
  earlier.push(changes.map(([file]) => [file, decide(file)]));
  change(changes);
}

function undo() {
  const changes = earlier.pop() ?? [];
  change(changes);
  said.textContent = `Taken back: ${countPictures(changes.length)}`;
}

// ---- A picture and what is decided about it
function drawChoice(file) {
  const [name, group] = [read(file), newId()];
  const offered = broken.has(file) ? [NOTHING, DROP] : [NOTHING, KEEP, DROP, ...facts.get(file).suggested];
  const set = (decision) => decideAll([[file, decision]]);
  const radios = offered.map((decision) => el("input", { type: "radio", name: group, change: () => set(decision) }));
  const pills = offered.map((decision, i) => el("label", {}, radios[i], el("span", {}, read(decision))));
  const isOther = () => !offered.includes(decide(file));
  const option = (text) => el("option", { value: text }, read(text));
  const first = el("option", { value: "" }, "another label");
  // A thousand classes would be too many for each of many pictures: they are there while they can be chosen.
  const fill = () => {
    if (others.options.length > 2 || broken.has(file)) return;
    others.replaceChildren(first, ...[...classes].map(option));
    others.value = isOther() ? decide(file) : "";
  };
  const empty = () => {
    others.replaceChildren(first, ...(isOther() ? [option(decide(file))] : []));
    others.value = isOther() ? decide(file) : "";
  };
  const others = el("select", {
    "aria-label": `another label for ${name}`, focus: fill, pointerdown: fill, blur: empty,
    change: () => set(Number(others.value) || NOTHING),
  });
  const paper = el("p", { class: "decided" });
  const show = () => {
    radios.forEach((radio, i) => (radio.checked = offered[i] === decide(file)));
    if (document.activeElement !== others) empty();
    others.value = isOther() ? decide(file) : "";
    others.hidden = broken.has(file) && !isOther();
    others.classList.toggle("chosen", isOther());
    paper.textContent = `decision: ${read(decide(file))}`;
  };
  const legend = el("legend", { class: "unseen" }, `decision about ${name}`);
  const node = el("div", {}, el("fieldset", { class: "choice" }, legend, pills, others), paper);
  watchers.set(file, [...(watchers.get(file) ?? []), { node, show }]);
  show();
  return node;
}

function drawSubject(file) {
  const { split, label, suggested } = facts.get(file);
  const code = el("code", { title: read(file) }, breakable(read(file)));
  const key = ledger.keys[file];
  const place = [split, label].filter(Boolean).map(read).join(": ");
  const others = suggested.size ? `suggested: ${[...suggested].map(read).join(", ")}` : "";
  const lines = [place, others, ledger.notes[file]].filter(Boolean);
  return el("div", { class: "subject", role: "group", "aria-label": read(file) },
    key ? drawPicture(key) : "",
    el("div", { class: "about" }, lines.map((line) => el("p", { title: line }, line)),
      el("div", { class: "name" }, code, copyButton(read(file), code))),
    drawChoice(file));
}

// ---- Cards
const unique = (values) => [...new Set(values)];

// What is found of pictures (`about`), beside those that these are compared with.
function readCard(card) {
  const its = card.map((i) => rows[i]);
  const about = unique(its.map(({ file }) => file));
  const others = its.map(({ other }) => other).filter((other) => other && facts.has(other) && !about.includes(other));
  return { kinds: unique(its.map(({ kind }) => kind)), about, files: unique([...others, ...about]), rows: its };
}

// Nothing is left to decide: what was found is decided, or one of several pictures stays without its twins.
function isDone({ about, files }) {
  const left = files.filter((file) => decide(file) !== DROP);
  return about.every(decide) || (files.length > 1 && left.length === 1);
}

const nameKind = (kind) => (kind ? read(kind).replaceAll("_", " ") : "not found any more");

function drawCase({ kinds, files, rows }, hasScore) {
  const subjects = el("div", { class: "subjects" }, files.slice(0, PICTURES_OF_A_CARD).map(drawSubject));
  const left = files.slice(PICTURES_OF_A_CARD);
  const more = el("button", { type: "button", click: showAll }, `Show ${write(left.length)} more of this group`);
  function showAll() {
    const drawn = left.map(drawSubject);
    subjects.append(...drawn);
    more.remove();
    drawn[0].querySelector("button").focus();
  }
  const score = Math.max(...rows.map(({ score }) => Number(ledger.texts[score])));
  const title = kinds.map(nameKind).join(", ") + (hasScore ? ` · ${score.toFixed(2)}` : "");
  const wide = `card case of-${Math.min(files.length, 3)}`;
  return el("li", { class: wide }, el("p", { class: "title" }, title), subjects, left.length ? more : "");
}

// What can be decided about all cards that are shown: a name, and for a card the files with their decisions.
function listActions(cards) {
  const all = (decision) => ({ about }) => about.map((file) => [file, decision]);
  const keep = ({ about }) => about.filter((file) => !broken.has(file)).map((file) => [file, KEEP]);
  const splits = ({ files }) => unique(files.map((file) => facts.get(file).split));
  // One picture is left in any case.
  const leave = (isLeft) => ({ files }) => {
    const left = files.filter((file) => decide(file) !== DROP && isLeft(file));
    return left.length ? files.filter((file) => !isLeft(file)).map((file) => [file, DROP]) : [];
  };
  const allButFirst = ({ files }) => {
    const first = files.find((file) => decide(file) !== DROP);
    return files.filter((file) => file !== first).map((file) => [file, DROP]);
  };
  const suggest = ({ files }) =>
    files.flatMap((file) => [...facts.get(file).suggested].slice(0, 1).map((label) => [file, label]));
  const apart = unique(cards.map(splits).filter((its) => its.length > 1).flat());
  return [
    ["choose …", () => []],
    ...(cards.some((card) => keep(card).length) ? [["keep the undecided", keep]] : []),
    ["drop the undecided", all(DROP)],
    ...(cards.some(({ files }) => files.length > 1) ? [["drop all but the first of each card", allButFirst]] : []),
    ...apart.map((split) =>
      [`drop those in ${read(split)} that another split has`, leave((file) => facts.get(file).split !== split)]),
    ...(cards.some((card) => suggest(card).length) ? [["give the suggested label", suggest]] : []),
    ["make undecided", ({ files }) => files.map((file) => [file, NOTHING])],
  ];
}

function drawDecisions({ title, cards, note: text, score }) {
  const all = cards.map(readCard);
  const kinds = unique(all.flatMap((card) => card.kinds));
  const has = (kind) => all.filter((card) => card.kinds.includes(kind));
  const list = el("ul", { class: "cards cases" });
  const [counted, open] = [el("p", { class: "note" }), el("input", { type: "checkbox", change: choose })];
  const option = (value, words) => el("option", { value }, words);
  const count = (words, its) => `${words} (${write(its.length)})`;
  const kind = el("select", { change: choose },
    option("", count("all", all)), kinds.map((one) => option(one, count(nameKind(one), has(one)))));
  const action = el("select", { change: showApply });
  const start = el("button", { type: "button", click: apply }, "Apply");
  const more = el("button", { type: "button", click: () => drawMore(true) });
  let [shown, drawn, actions] = [[], 0, []];
  function choose() {
    const chosen = kind.value ? has(Number(kind.value)) : all;
    shown = open.checked ? chosen.filter((card) => !isDone(card)) : chosen;
    actions = listActions(shown);
    action.replaceChildren(...actions.map(([name], i) => option(i, name)));
    showApply();
    list.replaceChildren();
    drawn = 0;
    drawMore(false);
  }
  function drawMore(focus) {
    const nodes = shown.slice(drawn, drawn + CARDS_AT_ONCE).map((card) => drawCase(card, Boolean(score)));
    list.append(...nodes);
    drawn += nodes.length;
    const of = `${write(drawn)} of ${write(shown.length)} cards are shown`;
    counted.textContent = score ? `${of}; the number on a card is ${score}.` : of;
    more.textContent = `Show ${write(Math.min(CARDS_AT_ONCE, shown.length - drawn))} more`;
    more.hidden = drawn === shown.length;
    if (focus) nodes[0].querySelector("input:checked, .chosen").focus();
  }
  function showApply() {
    start.setAttribute("aria-disabled", String(!Number(action.value)));
  }
  // What is decided already stays, unless it is to be undecided.
  function apply() {
    if (!Number(action.value)) return;
    const [name, choices] = actions[action.value];
    const wanted = new Map(shown.flatMap(choices));
    const changes = [...wanted].filter(([file, decision]) => (decision ? !decide(file) : decide(file)));
    if (changes.length) decideAll(changes);
    said.textContent = `${name}: ${countPictures(changes.length)}`;
  }
  choose();
  const labelled = (words, control) => el("label", {}, el("span", {}, words), control);
  return titled(title, "block", note(text),
    el("div", { class: "tools" },
      kinds.length > 1 ? labelled("kind", kind) : "", el("label", {}, open, "undecided ones only"),
      labelled("all shown", action), start),
    counted, list, more);
}

DRAW.Decisions = drawDecisions;

// ---- The file
const quote = (text) => `"${ledger.texts[text].replaceAll('"', '""')}"`;
const writeLine = (texts) => `${texts.map(quote).join(",")}\r\n`;

function writeTable() {
  const kept = rows.filter(({ file }, i) => i < found.length || decisions.has(file));
  const lines = kept.map((row) => columns.map((name) => (name === "decision" ? decide(row.file) : row[name])));
  return ["\ufeff", ...[ledger.columns, ...lines].map(writeLine)];
}

function save() {
  const address = URL.createObjectURL(new Blob(writeTable(), { type: "text/csv;charset=utf-8" }));
  el("a", { href: address, download: ledger.name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
  [saved, isSaved] = [new Map(decisions), true];
  said.textContent = SAVED;
  showState();
}

const SAVED = `Saved as ${ledger.name} among the downloads: put it in place of ${ledger.place}`;
const [state, place] = [el("p", {}), el("p", { class: "place" })];
const back = el("button", { type: "button", click: undo }, "Undo");
function showState() {
  const number = [...files].filter((file) => decisions.has(file)).length;
  const others = decisions.size - number;
  const beside = others ? ` and ${write(others)} other${others === 1 ? "" : "s"}` : "";
  const words = isUnsaved() ? "; not saved yet" : "";
  state.textContent = `${write(number)} of ${countPictures(files.size)}${beside} decided${words}`;
  place.replaceChildren(...breakable(isSaved && !words ? SAVED : ""));
  // A button that is disabled would lose the focus.
  back.setAttribute("aria-disabled", String(!earlier.length));
}

addEventListener("beforeunload", (event) => isUnsaved() && event.preventDefault());
addEventListener("DOMContentLoaded", () => {
  showState();
  document.body.append(el("footer", { class: "saving" }, place, state, back,
    el("button", { type: "button", class: "save", click: save }, `Save ${ledger.name}`)));
});

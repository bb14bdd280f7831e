"use strict";
// Everything that comes from data is set as text (textContent), never as markup.

const HOTKEYS = [..."1234567890abcdefghijklmoqrstvwxyzABCDEFGHIJKLMOQRSTVWXYZ"]; // without n, p and u, which are commands
const SET = "solving_operation"; // the axis with several values, most important first

const $ = (id) => document.getElementById(id);
let session; // the forms, and how far the work has come
let record; // the one on the page; null when nothing is left
let label; // what the person says of it so far
let axis = 0; // the active one, as a place in the form
let mark = 0; // the marked value of the active axis
const drafts = new Map(); // position -> what was said of a record that was left without Enter, or taken back
const accepted = []; // [position, label] of the answers of this page, for undo
let busy = false; // a request is on its way: keys that send another wait

function element(tag, text, name) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (name) made.className = name;
  return made;
}

async function call(place, body) {
  const options = body && { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  let response;
  try {
    response = await fetch(place, options);
  } catch {
    throw new Error("The server does not answer: is `annotator review` still running? Nothing was saved.");
  }
  const value = await response.json();
  if (!response.ok) throw new Error(value.error);
  return value;
}

// One request at a time; what goes wrong is said on the page, and the page stays where it is.
async function alone(work) {
  if (busy) return;
  busy = true;
  try {
    await work();
  } catch (error) {
    say(error.message, true);
  } finally {
    busy = false;
  }
}

function say(text, wrong) {
  $("message").textContent = text;
  $("message").className = wrong ? "wrong" : "";
  $("message").hidden = !text;
}

const form = () => session.forms[record.kind];
const equal = (one, other) => JSON.stringify(one) === JSON.stringify(other);
const chosen = (name) => (label[name] === undefined ? [] : name === SET ? label[name] : [String(label[name])]);

// ------------------------------------------------------------------ the record

async function show(position) {
  record = position === null ? null : await call(`record/${position}`);
  document.body.dataset.position = position === null ? "" : String(position);
  for (const id of ["record", "axes", "values", "name"]) $(id).hidden = !record;
  for (const id of ["accept", "next", "previous"]) $(id).disabled = !record;
  drawProgress();
  if (!record) {
    $("about").textContent = "";
    say(`All ${session.total} records have an answer. Press Ctrl-C in the terminal to stop; u takes the latest answer back.`);
    return;
  }
  label = structuredClone(drafts.get(position) ?? record.answer ?? record.label);
  axis = 0;
  drawRecord();
  activate(0);
  $("record").scrollTop = 0;
  const quote = $("text").querySelector("mark");
  if (quote) quote.scrollIntoView({ block: "center" });
}

function drawProgress() {
  const here = record ? `${record.position + 1} of ${session.total}` : "";
  $("count").textContent = `${here}${here ? " · " : ""}${session.answered} answered`;
  $("done").style.width = `${(100 * session.answered) / Math.max(session.total, 1)}%`;
}

function drawRecord() {
  $("name").textContent = record.name;
  const sure = record.confidence === null ? "" : `, confidence ${record.confidence.toFixed(2)}`;
  const judged = record.judge ? `labelled by ${record.judge}${sure}` : "";
  const reviewed = record.reviewed_at ? `answered ${record.reviewed_at}; Enter replaces the answer` : "";
  $("about").textContent = [record.kind, judged, reviewed].filter(Boolean).join(" · ");
  $("evidence").textContent = !record.evidence ? "The judge quoted no evidence."
    : record.quoted ? "The judge's evidence is marked." : `The judge's evidence is not in the text as it stands: “${record.evidence}”`;
  $("text").replaceChildren(...record.pieces.map(([kind, text]) => {
    if (kind === "evidence") return element("mark", text);
    if (kind === "hidden") return element("span", text, "hidden");
    return kind === "gap" ? element("span", text, "gap") : document.createTextNode(text);
  }));
}

// -------------------------------------------------------------------- the form

function activate(place) {
  axis = (place + form().length) % form().length;
  const names = form()[axis].values.map((each) => each.value);
  mark = Math.max(0, names.indexOf(chosen(form()[axis].name)[0]));
  $("values").scrollTop = 0;
  drawForm();
}

function drawForm() {
  const { name, question, rule, values } = form()[axis];
  $("axes").replaceChildren(...form().map(drawAxis));
  $("values").replaceChildren(element("p", question, "question"), drawValues(name, values));
  if (rule) $("values").append(element("p", rule, "rule"));
  $("values").querySelector("li.marked").scrollIntoView({ block: "nearest" });
}

function drawAxis({ name, values }, place) {
  const box = element("div", undefined, place === axis ? "axis active" : "axis");
  box.dataset.axis = name;
  const told = record.label[name];
  if (told !== undefined && !equal(told, label[name])) box.classList.add("changed");
  const names = chosen(name);
  box.append(element("h2", name.replaceAll("_", " ")));
  for (const [rank, each] of names.entries()) box.append(element("b", names.length > 1 ? `${rank + 1}. ${each}` : each));
  if (!names.length) box.append(element("b", "not chosen yet"));
  if (names.length) box.append(element("small", values.find((each) => each.value === names[0]).meaning));
  box.addEventListener("click", () => activate(place));
  return box;
}

function drawValues(name, values) {
  const list = element("ul");
  const names = chosen(name);
  const judged = [record.label[name] ?? []].flat().map(String);
  values.forEach(({ value, meaning }, place) => {
    const line = element("li");
    line.dataset.value = value;
    line.classList.toggle("chosen", names.includes(value));
    line.classList.toggle("marked", place === mark);
    const title = element("span");
    title.append(element("b", value));
    if (name === SET && names.includes(value)) title.append(element("span", `${names.indexOf(value) + 1}.`, "rank"));
    if (judged.includes(value)) title.append(element("span", "judge", "judged"));
    line.append(element("kbd", HOTKEYS[place] ?? " "), title, element("small", meaning));
    line.addEventListener("click", () => choose(place));
    list.append(line);
  });
  return list;
}

function choose(place) {
  const { name, values } = form()[axis];
  if (!values[place]) return;
  mark = place;
  const value = values[place].value;
  if (name !== SET) {
    label[name] = name === "quality" ? Number(value) : value;
  } else if (chosen(SET).includes(value)) {
    label[SET] = label[SET].filter((each) => each !== value);
  } else if (label[SET].length < session.most_operations) {
    label[SET] = [...label[SET], value];
  } else {
    say(`At most ${session.most_operations} operations: take one away first.`, true);
    return;
  }
  say("");
  drawForm();
}

function move(step) {
  const { name, values } = form()[axis];
  mark = (mark + step + values.length) % values.length;
  if (name === SET) drawForm();
  else choose(mark);
}

function makeFirst() {
  if (form()[axis].name !== SET) return;
  const value = form()[axis].values[mark].value;
  label[SET] = [value, ...label[SET].filter((each) => each !== value)].slice(0, session.most_operations);
  drawForm();
}

// ------------------------------------------------------------------- the answers

const accept = () => alone(async () => {
  const progress = await call("answer", { record_id: record.record_id, label });
  Object.assign(session, progress);
  accepted.push([record.position, label]);
  drafts.delete(record.position);
  say("");
  await show(progress.next);
});

const undo = () => alone(async () => {
  const progress = await call("undo", {});
  if (progress.next === null) return say("There is no answer of this session to take back.");
  Object.assign(session, progress);
  const [position, answer] = accepted.pop() ?? [];
  if (position === progress.next) drafts.set(position, answer);
  say("The latest answer was taken back.");
  await show(progress.next);
});

const go = (step) => alone(async () => {
  say("");
  if (!equal(label, record.answer ?? record.label)) drafts.set(record.position, label);
  await show((record.position + step + session.total) % session.total);
});

const reset = () => alone(async () => {
  drafts.delete(record.position);
  await show(record.position);
});

const toggleHelp = () => { $("help").hidden = !$("help").hidden; };

const COMMANDS = {
  Enter: accept,
  n: () => go(1),
  p: () => go(-1),
  ArrowLeft: () => activate(axis - 1),
  ArrowRight: () => activate(axis + 1),
  ArrowUp: () => move(-1),
  ArrowDown: () => move(1),
  " ": () => form()[axis].name === SET && choose(mark),
  ".": makeFirst,
  PageDown: () => $("record").scrollBy(0, $("record").clientHeight * 0.9),
  PageUp: () => $("record").scrollBy(0, -$("record").clientHeight * 0.9),
  Home: () => $("record").scrollTo(0, 0),
  End: () => $("record").scrollTo(0, $("record").scrollHeight),
};

function command(event) {
  if (event.key === "?") return toggleHelp;
  if (!$("help").hidden) return event.key === "Escape" || event.key === "Enter" ? toggleHelp : undefined;
  if (event.key === "u") return undo;
  if (!record) return undefined;
  if (event.key === "Tab") return () => activate(axis + (event.shiftKey ? -1 : 1));
  if (event.key === "Escape") return reset;
  if (Object.hasOwn(COMMANDS, event.key)) return COMMANDS[event.key];
  const place = HOTKEYS.indexOf(event.key);
  return place < 0 ? undefined : () => choose(place);
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || !session) return;
  const work = command(event);
  // A key that is held down must not accept one record after the other unseen.
  if (work && !(event.repeat && ["Enter", "u"].includes(event.key))) work();
  if (work) event.preventDefault();
});
for (const [id, work] of [["accept", accept], ["undo", undo], ["next", () => go(1)], ["previous", () => go(-1)], ["help-button", toggleHelp]]) {
  $(id).addEventListener("click", work);
}

alone(async () => {
  session = await call("session");
  document.title = `Review labels – ${session.gold}`;
  await show(session.next);
});

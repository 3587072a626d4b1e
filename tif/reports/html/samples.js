"use strict";
// The sample browser. All texts of the data go through text nodes (page.js: make), never as markup.
const PAGE = 12; // questions shown at once; "more" adds as many
const ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const FADED = 7; // nats below which a token has no colour: p = 0.001

const data = readJson("samples");
const [SMALLEST, LARGEST, STEPS] = data.scale;
const CODES = new Map([...ALPHABET].map((character, i) => [character, i]));
const NATS = Float64Array.from({ length: STEPS + 1 }, (_, i) =>
  SMALLEST * Math.expm1((i / STEPS) * Math.log1p(LARGEST / SMALLEST)));
const keys = data.models.map((model) => model.key);
const retain = keys.indexOf("retain");
const epochs = keys.map((_, i) => i).filter((i) => i !== retain);
const before = keys[0] === "0" ? 0 : -1;
const questions = data.sets.flatMap((set) =>
  set.samples.map((sample) => ({ ...sample, set: set.name, isForget: /forget/.test(set.name) })));
const state = { shown: PAGE, model: epochs.at(-1), epoch: epochs.at(-1), list: questions };

// Returns {logprob: nats below 0, top: argmax?} of a model's tokens; null where they are unknown.
function scores(question, model) {
  question.cache ??= new Map();
  if (question.cache.has(model)) return question.cache.get(model);
  const text = question.p?.[model];
  let value = null;
  if (text) {
    const count = text.length / 2, logprob = new Float64Array(count), top = new Uint8Array(count);
    for (let i = 0; i < count; i += 1) {
      const code = CODES.get(text[2 * i]) * 64 + CODES.get(text[2 * i + 1]);
      logprob[i] = -NATS[code >> 1];
      top[i] = code & 1;
    }
    value = { logprob, top };
  }
  question.cache.set(model, value);
  return value;
}

function unwanted(question) {
  question.marks ??= question.u ? new Set(question.u) : null;
  return question.marks;
}

// Probability per token of all, the unwanted ("uw") or the general ("gw") tokens; null if unknown.
function probability(question, model, part = "all") {
  const known = scores(question, model);
  if (!known) {
    const loss = question.l?.[model];
    return part === "all" && loss !== null && loss !== undefined ? Math.exp(-loss) : null;
  }
  const marks = unwanted(question);
  if (part !== "all" && !marks) return null;
  let sum = 0, count = 0;
  known.logprob.forEach((value, i) => {
    if (part === "all" || marks.has(i) === (part === "uw")) {
      sum += value;
      count += 1;
    }
  });
  return count ? Math.exp(sum / count) : null;
}

// What should go of a question: its unwanted words where they are known, else the whole answer.
function target(question, model) {
  return probability(question, model, "uw") ?? probability(question, model);
}

function extraction(question, model) {
  const known = scores(question, model);
  if (!known) return null;
  const hasEnd = question.e.at(-1) === 0;
  const count = known.top.length - (hasEnd ? 1 : 0);
  let first = count;
  while (first > 0 && known.top[first - 1]) first -= 1;
  return count ? 1 - first / count : null;
}

function words(question) {
  return (question.w ?? []).map(([start, end]) => question.a.slice(start, end).trim())
    .filter((word) => word.length > 0);
}

// Returns [start, end) of the unwanted words in a text, whole words only, in order.
function findWords(question, text) {
  const places = [];
  for (const word of new Set(words(question))) {
    const escaped = word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
    const left = /^[\p{L}\p{N}]/u.test(word) ? "(?<![\\p{L}\\p{N}])" : "";
    const right = /[\p{L}\p{N}]$/u.test(word) ? "(?![\\p{L}\\p{N}])" : "";
    const pattern = new RegExp(left + escaped + right, "giu");
    for (const match of text.matchAll(pattern)) {
      places.push([match.index, match.index + match[0].length]);
    }
  }
  return places.sort((a, b) => a[0] - b[0]);
}

function generation(question, model) {
  const place = question.g?.[model];
  return place === null || place === undefined ? null : question.texts[place];
}

// Filters and orders
const FILTERS = {
  all: () => true,
  least: (q) => q.isForget && target(q, state.model) !== null,
  hurt: (q) => !q.isForget && change(q) !== null && change(q) < 0,
  said: (q) => findWords(q, generation(q, state.model) ?? "").length > 0,
};
const ORDERS = {
  data: null,
  change: (q) => -Math.abs(change(q) ?? 0),
  likely: (q) => -(target(q, state.model) ?? -1),
  unlikely: (q) => target(q, state.model) ?? 2,
};
const ORDER_OF_FILTER = { all: "data", least: "likely", hurt: "change", said: "likely" };

function change(question) {
  if (before < 0) return null;
  const [now, then] = [target(question, state.model), target(question, before)];
  return now === null || then === null ? null : now - then;
}

const tools = document.querySelector(".tools");
const list = document.getElementById("list");
const field = (name) => tools.querySelector(`[name="${name}"]`);

function refresh() {
  const words = field("find").value.trim().toLocaleLowerCase();
  const set = field("set").value, filter = field("filter").value;
  let order = field("order").value;
  if (order === "auto") order = ORDER_OF_FILTER[filter];
  let found = questions.filter((q) => (set === "" || q.set === set) && FILTERS[filter](q));
  if (words) {
    found = found.filter((q) => {
      q.search ??= [q.id, q.q, q.a, ...(q.texts ?? [])].join("\n").toLocaleLowerCase();
      return q.search.includes(words);
    });
  }
  const value = ORDERS[order];
  if (value) {
    const ranked = found.map((q) => [value(q), q]);
    found = ranked.sort((a, b) => a[0] - b[0]).map((pair) => pair[1]);
  }
  state.list = found;
  state.shown = PAGE;
  render();
}

function render() {
  list.replaceChildren(...state.list.slice(0, state.shown).map(card));
  const total = questions.length, count = state.list.length;
  const text = count === total ? `${total} questions` : `${count} of ${total} questions`;
  document.querySelector(".count").textContent = text;
  document.querySelector(".more").hidden = state.list.length <= state.shown;
  const label = data.models[state.epoch]?.label ?? "";
  field("epoch").setAttribute("aria-valuetext", label);
  tools.querySelector("output").textContent = label;
  for (const button of tools.querySelectorAll(".segments button")) {
    const isShown = modelOf(button.value) === state.model;
    button.setAttribute("aria-pressed", String(isShown));
  }
}

function modelOf(name) {
  return { before, retain, epoch: state.epoch }[name];
}

// Cards
function card(question) {
  const role = question.isForget ? "uw" : "gw";
  const head = make("p", { class: `id ${role}` }, make("b", {}, question.set), question.id);
  const answer = make("p", { class: "a", dir: "auto" }, ...tokens(question));
  const parts = [head];
  if (question.q) parts.push(make("p", { class: "q", dir: "auto" }, question.q));
  return make("article", { class: "sample" }, ...parts, answer, numbers(question), said(question));
}

function tokens(question) {
  const known = scores(question, state.model), marks = unwanted(question);
  if (!known) return [question.a];
  const nodes = [];
  let start = 0;
  question.e.forEach((length, i) => {
    const isEnd = length === 0 && i === question.e.length - 1;
    if (length === 0 && !isEnd) return; // a part of a character: the token that completes it shows
    const text = isEnd ? "end" : question.a.slice(start, start + length);
    start += length;
    const strength = Math.max(0, 1 + known.logprob[i] / FADED).toFixed(2);
    const kind = marks ? (marks.has(i) ? "t u" : "t") : "t plain";
    const blank = isEnd ? "" : text.match(/^\s*/)[0];
    const span = make("span", { class: isEnd ? `${kind} end` : kind, style: `--s:${strength}` });
    span.dataset.token = i;
    span.append(text.slice(blank.length));
    span.question = question;
    nodes.push(blank, span);
  });
  if (start < question.a.length) nodes.push(question.a.slice(start));
  return nodes;
}

function numbers(question) {
  const line = make("div", { class: "nums" });
  const add = (name, value) => {
    if (value !== null && value !== undefined) {
      line.append(make("span", {}, `${name} `, make("b", {}, format(value))));
    }
  };
  add("answer p", probability(question, state.model));
  add("UW p", probability(question, state.model, "uw"));
  add("GW p", probability(question, state.model, "gw"));
  if (state.model !== before) add("change", change(question));
  add("truth ratio", question.r?.[state.model]);
  add("extraction strength", extraction(question, state.model));
  return line;
}

function said(question) {
  const shown = [before, state.epoch, retain].filter((i) => i >= 0 && i !== undefined);
  const models = [...new Set(shown)].filter((i) => scores(question, i) || question.l?.[i] !== null);
  if (!question.texts) return "";
  const columns = make("div", { class: models.length === 2 ? "gens two" : "gens" });
  for (const model of models) {
    const text = generation(question, model);
    const title = make("h4", {}, `${data.models[model].label} says`);
    const isEmpty = text === null || text === "";
    const reason = text === null ? "not kept for this epoch" : "nothing";
    const body = isEmpty
      ? make("p", { class: "none" }, reason)
      : make("p", { dir: "auto" }, ...marked(question, text));
    columns.append(make("div", {}, title, body));
  }
  return columns;
}

function marked(question, text) {
  const nodes = [];
  let end = 0;
  for (const [from, to] of findWords(question, text)) {
    if (from < end) continue;
    nodes.push(text.slice(end, from), make("mark", {}, text.slice(from, to)));
    end = to;
  }
  return [...nodes, text.slice(end)];
}

function describeToken(event) {
  const span = event.target.closest?.(".t");
  if (!span) return hideTip();
  const { question } = span, i = Number(span.dataset.token), marks = unwanted(question);
  const kind = marks ? (marks.has(i) ? "unwanted word" : "general word") : "token";
  const models = [...new Set([before, state.epoch, retain])].filter((m) => m >= 0);
  const rows = [["", "p", "log p", "argmax"]];
  for (const model of models) {
    const known = scores(question, model);
    if (!known) continue;
    const value = known.logprob[i];
    const mark = known.top[i] ? "yes" : "no";
    rows.push([data.models[model].label, format(Math.exp(value)), value.toFixed(2).replace("-", "−"), mark]);
  }
  showTip(event, make("b", {}, `“${span.textContent}”`), ` ${kind}`, tipTable(rows));
}

// Events
function chooseModel(name) {
  state.model = modelOf(name);
  refresh();
}

function chooseEpoch(place) {
  state.epoch = epochs[place];
  state.model = state.epoch;
  const { shown } = state;
  render();
  state.shown = shown;
}

let timer = null;
function play() {
  const slider = field("epoch"), button = tools.querySelector(".play");
  if (timer) {
    clearInterval(timer);
    timer = null;
    button.textContent = "▶ play";
    return;
  }
  let place = 0;
  button.textContent = "■ stop";
  chooseEpoch(place);
  slider.value = place;
  timer = setInterval(() => {
    place += 1;
    if (place >= epochs.length) return play();
    slider.value = place;
    return chooseEpoch(place);
  }, 700);
}

for (const name of ["set", "filter", "order"]) field(name).addEventListener("change", refresh);
let wait = null;
field("find").addEventListener("input", () => {
  clearTimeout(wait);
  wait = setTimeout(refresh, 80);
});
field("epoch").addEventListener("input", (event) => chooseEpoch(Number(event.target.value)));
field("epoch").addEventListener("change", refresh);
tools.querySelector(".play")?.addEventListener("click", play);
for (const button of tools.querySelectorAll(".segments button")) {
  button.addEventListener("click", () => chooseModel(button.value));
}
document.querySelector(".more").addEventListener("click", () => {
  state.shown += PAGE;
  render();
});
list.addEventListener("pointermove", describeToken);
list.addEventListener("pointerdown", describeToken);
list.addEventListener("pointerleave", hideTip);
addEventListener("beforeprint", () => {
  state.shown = Math.min(state.list.length, 60);
  render();
});
refresh();

"use strict";
// Shared by all parts: elements made of plain text, the tooltip, the switch of light and dark.
const SVG = "http://www.w3.org/2000/svg";

function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children); // strings become text nodes, never markup
  return node;
}

function draw(tag, attributes = {}, text = null) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text !== null) node.textContent = text;
  return node;
}

function readJson(id) {
  const node = document.getElementById(id);
  return node ? JSON.parse(node.textContent) : null;
}

function superscript(power) {
  return String(power).replace(/[-\d]/g, (c) => (c === "-" ? "⁻" : "⁰¹²³⁴⁵⁶⁷⁸⁹"[Number(c)]));
}

// 0.000188 -> 1.9 × 10⁻⁴, 0.84712 -> 0.847, as the tables write numbers.
function format(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (size !== 0 && size < 0.001) {
    const [digits, power] = value.toExponential(1).split("e");
    return `${digits} × 10${superscript(Number(power))}`.replace("-", "−");
  }
  return (size >= 1000 ? value.toPrecision(4) : value.toFixed(3)).replace("-", "−");
}

const tip = make("div", { class: "tip", hidden: "", role: "status" });
document.body.append(tip);

function showTip(event, ...content) {
  tip.replaceChildren(...content);
  tip.hidden = false;
  const { offsetWidth: width, offsetHeight: height } = tip;
  const left = Math.min(event.clientX + 14, innerWidth - width - 8);
  const below = event.clientY + 18;
  const top = below + height > innerHeight ? event.clientY - height - 12 : below;
  tip.style.left = `${Math.max(8, left)}px`;
  tip.style.top = `${Math.max(8, top)}px`;
}

function hideTip() {
  tip.hidden = true;
}

function tipTable(rows) {
  const body = make("table");
  for (const cells of rows) {
    body.append(make("tr", {}, ...cells.map((cell) => make("td", {}, cell))));
  }
  return body;
}

document.querySelector(".theme")?.addEventListener("click", () => {
  const root = document.documentElement;
  const preferred = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  root.dataset.theme = (root.dataset.theme ?? preferred) === "dark" ? "light" : "dark";
});

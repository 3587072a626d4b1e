"use strict";
// Draws the charts of #charts (see charts.py) as SVG in the page's width, and again when it changes.
const isDashed = (series) => series.style.startsWith("dashed");
const hasPoints = (series) => series.style.endsWith("points");
const isLevel = (series) => isDashed(series) && series.x.length === 2 && series.y[0] === series.y[1];

const LETTER = 6.2; // about the width of one, in pixels

function ticks(low, high, isLog, count) {
  if (isLog) {
    const first = Math.ceil(low - 1e-9), last = Math.floor(high + 1e-9);
    const step = Math.max(1, Math.ceil((last - first) / count));
    const values = [];
    for (let power = last; power >= first; power -= step) values.push(power);
    if (values.length > 1) return values.reverse();
    for (let power = Math.floor(low); power <= high; power += 1) { // 0.2, 0.5, 1, 2, ...
      for (const digit of [1, 2, 5]) values.push(power + Math.log10(digit));
    }
    const shown = [...new Set(values)].sort((a, b) => a - b).filter((v) => v >= low && v <= high);
    return shown.length > 1 ? shown : [low, high];
  }
  const span = high - low || 1;
  const power = 10 ** Math.floor(Math.log10(span / count));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => span / s <= count + 0.01);
  const values = [];
  for (let v = Math.ceil(low / step - 1e-9) * step; v <= high + step * 1e-6; v += step) {
    values.push(Math.abs(v) < step * 1e-6 ? 0 : v);
  }
  return values.length > 1 || count > 8 ? values : ticks(low, high, isLog, count + 2);
}

function tickText(value, isLog) {
  if (isLog) {
    if (value === 0) return "1";
    if (Math.abs(value) <= 2 && Number.isInteger(value)) return String(10 ** value);
    return Number.isInteger(value) ? `10${superscript(value)}` : String(Number((10 ** value).toPrecision(3)));
  }
  return String(Number(value.toPrecision(6))).replace("-", "−");
}

// Returns the function from a value to a place on the axis, its ends and its tick values.
function makeScale(values, isLog, range, from, to, count, isWhole) {
  const convert = isLog ? (v) => Math.log10(Math.max(v, 1e-300)) : (v) => v;
  const known = values.filter((v) => v !== null).map(convert);
  let [low, high] = range ? range.map(convert) : [Math.min(...known), Math.max(...known)];
  if (!range) {
    if (low === high) [low, high] = [low - 0.5, high + 0.5];
    const pad = isWhole ? 0 : (high - low) * 0.07;
    [low, high] = [low - pad, high + pad];
  }
  const place = (v) => from + ((convert(v) - low) / (high - low)) * (to - from);
  const marks = ticks(low, high, isLog, count);
  const onAxis = (mark) => from + ((mark - low) / (high - low)) * (to - from);
  return { place, marks: marks.map((m) => ({ at: onAxis(m), text: tickText(m, isLog) })) };
}

function pathOf(series, x, y) {
  const parts = [];
  series.x.forEach((value, i) => {
    const [px, py] = [x(value).toFixed(1), y(series.y[i]).toFixed(1)];
    if (i && series.style.endsWith("steps")) parts.push(`H${px}`);
    parts.push(`${i ? "L" : "M"}${px},${py}`);
  });
  return parts.join("");
}

function drawMark(svg, mark, px, py, width) {
  const color = `var(--${mark.role})`;
  if (mark.shape === "star") {
    const points = [];
    for (let i = 0; i < 10; i += 1) {
      const radius = i % 2 ? 3.4 : 8, angle = (Math.PI * i) / 5 - Math.PI / 2;
      points.push(`${px + radius * Math.cos(angle)},${py + radius * Math.sin(angle)}`);
    }
    const style = `fill:${color};stroke:var(--paper);stroke-width:1.5`;
    svg.append(draw("polygon", { points: points.join(" "), style }));
  } else {
    const fill = mark.shape === "hollow" ? "var(--paper)" : color;
    const style = `fill:${fill};stroke:${color};stroke-width:2`;
    svg.append(draw("circle", { cx: px, cy: py, r: 5, style }));
  }
  const toLeft = px > width * 0.62;
  const anchor = toLeft ? "end" : "start";
  const place = { x: px + (toLeft ? -11 : 11), y: py + (mark.dy ?? 4), "text-anchor": anchor };
  svg.append(draw("text", { ...place, class: "mark" }, mark.name));
}

function spreadLabels(marks, y, bottom) {
  // Labels of neighbours would cover each other: move each at least a line's height down, and up
  // again where they would stand on the axis.
  const ordered = marks.map((mark) => ({ mark, at: y(mark.y) })).sort((a, b) => a.at - b.at);
  let last = -Infinity;
  for (const item of ordered) last = item.wanted = Math.max(item.at, last + 15);
  let next = bottom;
  for (const item of ordered.reverse()) {
    next = item.wanted = Math.min(item.wanted, next - 9);
    item.mark.dy = item.wanted - item.at + 4;
    next -= 6;
  }
}

function drawAxes(svg, chart, box, x, y) {
  for (const mark of y.marks) {
    svg.append(draw("line", { x1: box.left, x2: box.right, y1: mark.at, y2: mark.at, class: "grid" }));
    const place = { x: box.left - 8, y: mark.at + 4, "text-anchor": "end" };
    svg.append(draw("text", place, mark.text));
  }
  for (const mark of x.marks) {
    svg.append(draw("text", { x: mark.at, y: box.bottom + 18, "text-anchor": "middle" }, mark.text));
  }
  const base = { x1: box.left, x2: box.right, y1: box.bottom, y2: box.bottom, class: "base" };
  svg.append(draw("line", base));
  const middle = { x: box.right, y: box.bottom + 36, "text-anchor": "end", class: "axis" };
  svg.append(draw("text", middle, chart.x));
  if (chart.y) svg.append(draw("text", { x: 0, y: 11, class: "axis" }, chart.y));
}

// Returns where a text of this width above a level hides least: at an end of it, or in the middle.
function freePlace(chart, box, at, width, x, y) {
  const points = [...chart.marks.map((m) => [m.x, m.y])];
  for (const series of chart.series) series.x.forEach((value, i) => points.push([value, series.y[i]]));
  const hidden = (left) => points.filter(([px, py]) => {
    const dx = x.place(px) - left, dy = y.place(py) - at;
    return dx > -70 && dx < width + 12 && dy > -18 && dy < 14; // a mark's name reaches 70 to its side
  }).length;
  const [first, last] = [box.left + 5, box.right - 5 - width];
  const places = [first, last, (first + last) / 2];
  return { x: places.reduce((best, left) => (hidden(left) < hidden(best) ? left : best)), y: at };
}

function drawGuides(svg, chart, box, x, y) {
  for (const guide of chart.guides) {
    const isX = guide.axis === "x";
    const at = (isX ? x : y).place(guide.at);
    const ends = isX
      ? { x1: at, x2: at, y1: box.top, y2: box.bottom }
      : { x1: box.left, x2: box.right, y1: at, y2: at };
    const style = `stroke:var(--${guide.role});stroke-width:1.25;stroke-dasharray:5 4`;
    svg.append(draw("line", { ...ends, style }));
    // Above the line, clear of the axis title on its left and of the edge on its right.
    const half = guide.name.length * LETTER / 2, title = (chart.y.length + 1) * LETTER;
    const middle = Math.max(Math.min(at, box.right - half), title + half);
    const place = isX
      ? { x: middle, y: box.top - 7, "text-anchor": "middle" }
      : freePlace(chart, box, at - 5, guide.name.length * LETTER, x, y);
    svg.append(draw("text", { ...place, class: "guide" }, guide.name));
  }
}

function drawChart(plot, chart) {
  const isSmall = chart.small;
  const width = Math.max(240, plot.clientWidth), height = isSmall ? 150 : 290;
  const box = { left: isSmall ? 44 : 50, right: width - 12, top: chart.y ? 24 : 10 };
  box.bottom = height - 42;
  const xs = chart.series.flatMap((s) => s.x).concat(chart.marks.map((m) => m.x));
  const ys = chart.series.flatMap((s) => s.y).concat(chart.marks.map((m) => m.y));
  for (const guide of chart.guides) (guide.axis === "x" ? xs : ys).push(guide.at);
  const isPath = chart.series.some(hasPoints);
  const count = Math.max(2, Math.min(8, Math.floor(width / 70)));
  const x = makeScale(xs, chart.x_log, null, box.left, box.right, count, !isPath && !chart.x_log);
  if (chart.x === "epoch") x.marks = x.marks.filter((mark) => Number.isInteger(Number(mark.text)));
  const y = makeScale(ys, chart.y_log, chart.y_range, box.bottom, box.top, isSmall ? 3 : 5, false);
  const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, role: "img" });
  svg.setAttribute("aria-label", `${chart.title}. ${chart.caption}`);
  drawAxes(svg, chart, box, x, y);
  for (const series of chart.series) {
    const color = `var(--${series.role})`, dash = isDashed(series) ? "5 4" : "none";
    const thin = isDashed(series) || isSmall ? 1.6 : 2.4;
    const style = `fill:none;stroke:${color};stroke-width:${thin};stroke-dasharray:${dash};stroke-linejoin:round`;
    svg.append(draw("path", { d: pathOf(series, x.place, y.place), style }));
    if (hasPoints(series)) {
      const fill = series.style === "open-points" ? "var(--paper)" : color;
      series.x.forEach((value, i) => {
        const place = { cx: x.place(value), cy: y.place(series.y[i]), r: 3.2 };
        svg.append(draw("circle", { ...place, style: `fill:${fill};stroke:${color};stroke-width:1.5` }));
      });
    }
  }
  drawGuides(svg, chart, box, x, y);
  spreadLabels(chart.marks, y.place, box.bottom);
  for (const mark of chart.marks) drawMark(svg, mark, x.place(mark.x), y.place(mark.y), width);
  svg.addEventListener("pointermove", (event) => showNearest(event, svg, chart, x, y, width));
  svg.addEventListener("pointerleave", hideTip);
  plot.replaceChildren(svg);
}

function nearestPoint(series, px, py, x, y, isPath) {
  let best = 0, least = Infinity;
  series.x.forEach((value, i) => {
    const dx = x.place(value) - px, dy = isPath ? y.place(series.y[i]) - py : 0;
    const distance = dx * dx + dy * dy;
    if (distance < least) [best, least] = [i, distance];
  });
  return { i: best, distance: least };
}

function showNearest(event, svg, chart, x, y, width) {
  const area = svg.getBoundingClientRect(), scale = width / area.width;
  const px = (event.clientX - area.left) * scale, py = (event.clientY - area.top) * scale;
  const lines = chart.series.filter((s) => !isLevel(s));
  if (chart.series.some(hasPoints)) {
    const all = lines.map((s) => ({ s, ...nearestPoint(s, px, py, x, y, true) }));
    const { s, i } = all.reduce((a, b) => (b.distance < a.distance ? b : a));
    const name = s.labels[i] ?? s.name;
    const rows = [[chart.y, format(s.y[i])], [chart.x, format(s.x[i])]];
    showTip(event, make("b", {}, name), tipTable(rows));
    return;
  }
  const at = lines.map((s) => ({ s, i: nearestPoint(s, px, py, x, y, false).i }));
  const rows = at.map(({ s, i }) => [s.name, format(s.y[i])]);
  for (const s of chart.series) {
    if (!lines.includes(s)) rows.push([s.name, format(s.y[0])]);
  }
  const { s, i } = at[0];
  const isWhole = Number.isInteger(s.x[i]) || !chart.x_log;
  const value = isWhole ? String(Math.round(s.x[i])) : format(s.x[i]);
  showTip(event, make("b", {}, `${chart.x} ${value}`), tipTable(rows));
}

function drawLegend(legend, chart) {
  for (const series of chart.series) {
    const look = isDashed(series) ? "dashed" : series.x.length === 1 ? series.style : "";
    const line = make("i", { class: look, style: `--role: var(--${series.role})` });
    legend.append(make("span", {}, line, series.name));
  }
}

for (const chart of readJson("charts") ?? []) {
  const figure = document.querySelector(`[data-chart="${CSS.escape(chart.name)}"]`);
  const plot = figure.querySelector(".plot");
  const legend = figure.querySelector(".legend");
  if (legend) drawLegend(legend, chart);
  let drawnAt = 0;
  new ResizeObserver(() => {
    if (Math.abs(plot.clientWidth - drawnAt) < 2) return;
    drawnAt = plot.clientWidth;
    drawChart(plot, chart);
  }).observe(plot);
}

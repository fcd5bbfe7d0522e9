// Drawings as inline SVG, each with a text alternative.

import { NONE, number, points, ratio, s } from "./dom.js";

const WIDE = { width: 460, height: 210, left: 52, right: 12, top: 12, bottom: 26 };

/** Round steps that divide [low, high] into about `wanted` parts. */
function ticks(low, high, wanted = 4) {
  const span = high - low || Math.abs(high) || 1;
  const rough = span / wanted;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((each) => each * power).find((each) => each >= rough);
  const found = [];
  for (let at = Math.ceil(low / step) * step; at <= high + step * 1e-9; at += step) found.push(Math.abs(at) < step * 1e-9 ? 0 : at);
  return found;
}

const label = (value) => (value === 0 ? "0" : Math.abs(value) >= 1000 || Math.abs(value) < 0.001 ? number(value) : String(Number(value.toPrecision(4))));

/** Numbers of an axis, all with as many decimals as their step needs. */
function even(values) {
  const step = values.length > 1 ? values[1] - values[0] : 1;
  const power = Math.floor(Math.log10(step) + 1e-9);
  const decimals = Math.max(0, -power + (Math.abs(step / 10 ** power - 2.5) < 1e-6 ? 1 : 0));
  return (value) => (decimals > 6 ? number(value) : (value < 0 ? "−" : "") + Math.abs(value).toFixed(decimals));
}

function axes(box, yTicks, y, xTicks, x, xWords = label) {
  const yWords = even(yTicks);
  return [
    ...yTicks.map((at) => [s("line", { class: "grid", x1: box.left, x2: box.width - box.right, y1: y(at), y2: y(at) }),
      s("text", { x: box.left - 8, y: y(at) + 4, "text-anchor": "end" }, yWords(at))]),
    ...xTicks.map((at) => s("text", { x: x(at), y: box.height - 8, "text-anchor": "middle" }, xWords(at))),
    s("line", { class: "axis", x1: box.left, x2: box.width - box.right, y1: box.height - box.bottom, y2: box.height - box.bottom }),
  ];
}

/**
 * A curve over epochs. `series` are [x, y] pairs a part of the training each; `lines` are {value, kind, words}.
 * Null where there is nothing to draw.
 */
export function curve(series, { words, lines = [], second = false }) {
  const all = series.flat();
  if (!all.length) return null;
  const box = WIDE;
  const values = [...all.map(([, y]) => y), ...lines.map((each) => each.value)];
  let [low, high] = [Math.min(...values), Math.max(...values)];
  const pad = high - low ? (high - low) * 0.08 : 0.5 * (Math.abs(high) < 1 ? Math.abs(high) || 1 : 1);
  [low, high] = [low - pad, high + pad];
  const last = Math.max(...all.map(([x]) => x), 2);
  const x = (at) => box.left + ((at - 1) / Math.max(last - 1, 1)) * (box.width - box.left - box.right - 8) + 4;
  const y = (at) => box.height - box.bottom - ((at - low) / (high - low)) * (box.height - box.top - box.bottom);
  const whole = ticks(1, last, 5).filter((each) => Number.isInteger(each) && each >= 1);
  const name = second ? "second" : "";
  const starts = series.slice(1).map((part) => part[0]).filter(Boolean).map(([at]) => at);
  return s("svg", { class: "chart", viewBox: `0 0 ${box.width} ${box.height}`, role: "img", "aria-label": words },
    axes(box, ticks(low, high), y, whole, x),
    starts.map((at) => s("line", { class: "part", x1: x(at - 0.5), x2: x(at - 0.5), y1: box.top, y2: box.height - box.bottom })),
    lines.map((each) => [s("line", { class: each.kind, x1: box.left, x2: box.width - box.right, y1: y(each.value), y2: y(each.value) }),
      s("text", { class: "number", x: box.left + 4, y: y(each.value) - 5 }, each.words)]),
    series.map((part) => s("polyline", { class: `curve ${name}`, points: part.map(([at, value]) => `${x(at).toFixed(1)},${y(value).toFixed(1)}`).join(" ") })),
    series.map((part) => part.length === 1 || part.length < 12 ? part.map(([at, value]) => s("circle", { class: `dot-mark ${name}`, cx: x(at), cy: y(value), r: 2.5 })) : []));
}

/** Chosen runs, ratio (across, logarithmic) against drop (up); each `mark` is {number, ratio, drop, verdict, words}. */
export function scatter(marks) {
  const box = innerWidth < 640 ? { width: 380, height: 280, left: 46, right: 14, top: 18, bottom: 46 } : { width: 720, height: 320, left: 60, right: 24, top: 18, bottom: 46 };
  const drops = [0, ...marks.map((each) => each.drop)];
  let [low, high] = [Math.min(...drops), Math.max(...drops)];
  const pad = (high - low || 1) * 0.14;
  [low, high] = [low - pad, high + pad];
  const most = Math.max(2, ...marks.map((each) => each.ratio)) * 1.15;
  const least = Math.min(1, ...marks.map((each) => each.ratio)) * 0.98;
  const x = (at) => box.left + (Math.log(at / least) / Math.log(most / least)) * (box.width - box.left - box.right);
  const y = (at) => box.top + ((high - at) / (high - low)) * (box.height - box.top - box.bottom);
  const scale = [1, 1.5, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100, 200, 300, 500, 1000].filter((each) => each >= least && each <= most);
  const thinned = scale.length > (innerWidth < 640 ? 4 : 7) ? scale.filter((each) => [1, 2, 5].includes(Number(String(each)[0]))) : scale;
  const words = `Ratio against drop: ${marks.map((each) => `${each.number}. ${each.words}, ${ratio(each.ratio)}, drop ${points(each.drop, each.metric)}`).join("; ") || NONE}`;
  const placed = [];
  const where = (mark) => {
    const at = { x: x(mark.ratio) + 9, y: y(mark.drop) - 8 };
    while (placed.some((other) => Math.abs(other.x - at.x) < 14 && Math.abs(other.y - at.y) < 12)) at.y -= 12;
    placed.push(at);
    return at;
  };
  return s("svg", { class: "chart", viewBox: `0 0 ${box.width} ${box.height}`, role: "img", "aria-label": words },
    axes(box, ticks(low, high), y, [], x),
    thinned.map((at) => s("text", { x: x(at), y: box.height - box.bottom + 18, "text-anchor": "middle" }, `${at}×`)),
    s("text", { x: box.width - box.right, y: box.height - 8, "text-anchor": "end" }, innerWidth < 640 ? "ratio" : "ratio: how many times less than the original"),
    s("line", { class: "base", x1: box.left, x2: box.width - box.right, y1: y(0), y2: y(0) }),
    s("text", { x: box.left + 4, y: box.top - 6 }, "drop: how much is lost"),
    marks.map((mark) => {
      const at = where(mark);
      return s("g", { class: mark.verdict }, s("circle", { class: `point ${mark.verdict === "met" ? "full" : ""}`, cx: x(mark.ratio), cy: y(mark.drop), r: 6 }),
        s("text", { class: "number", x: at.x, y: at.y }, String(mark.number)));
    }));
}

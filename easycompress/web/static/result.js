// What a finished run came to, and its files.

import { amount, bytes, capital, h, milliseconds, points, quality, ratio, typeset } from "./dom.js";

export const VERDICTS = { met: "Met", "target-missed": "Target missed", "floor-missed": "Floor missed", undecided: "Undecided" };

/** The value of an objective in a measurement of the report. */
export function valueOf(measured, objective, batch) {
  if (objective === "latency") return (measured.latency_ms.find((each) => each.batch === batch) || measured.latency_ms[0] || {}).median;
  if (objective === "energy") return measured.energy_mj.value;
  return objective === "size" ? measured.size_bytes : measured.macs;
}

const latency = (measured) => (measured.latency_ms[0] ? measured.latency_ms[0].median : null);

/** A drop in words: 0.42 points, better by 0.10 points. */
function lost(value, metric) {
  const text = `${points(Math.abs(value), metric)}${metric.percent ? " points" : ""}`;
  return value < 0 ? `better by ${text}` : text;
}

function headline(label, before, after, ...notes) {
  return h("div", { class: "headline" }, h("p", { class: "label" }, label),
    h("p", { class: "value" }, before === null ? null : [h("span", { class: "from" }, `${before} →`), " "], h("span", {}, after)), notes.map((note) => h("p", { class: "note" }, note)));
}

export function resultView(run) {
  const { result } = run;
  const { goal, metric, drop } = result;
  const sentence = result.summary.slice(result.summary.indexOf(": ") + 2);
  const value = (measured) => amount(valueOf(measured, goal.objective, result.batch), goal.objective);
  const judged = run.look && run.look.metric;
  return h("div", {},
    h("p", { class: "verdict" }, h("span", { class: `badge ${result.verdict}` }, VERDICTS[result.verdict]), `${typeset(capital(sentence))}.`),
    h("div", { class: "headlines" },
      headline(capital(goal.objective), value(result.baseline), value(result.final), `${ratio(result.ratio)}; asked: ${goal.target.replace(/x$/i, "×")}`),
      headline(capital(metric.name), quality(result.baseline.quality, metric), quality(result.final.quality, metric), judged ? `${drop.worse} of ${drop.n} samples became worse, ${drop.better} better` : "on random inputs"),
      headline("Drop", null, lost(drop.estimate, metric), drop.upper_95 === null ? "without a bound" : `at most ${points(drop.upper_95, metric)} with 95 % confidence`)),
    latency(result.final) === null ? null : h("p", { class: "note" }, `Latency of one sample ${milliseconds(latency(result.baseline))} → ${milliseconds(latency(result.final))}.`),
    h("div", { class: "actions" },
      run.files.some((file) => file.name === "report.html") ? h("a", { class: "button main", href: `/api/runs/${run.id}/report`, target: "_blank", rel: "noopener" }, "Open the report") : null,
      h("a", { class: "button", href: `/api/runs/${run.id}/files.zip`, download: "" }, "Download everything (ZIP)")));
}

export function filesView(run) {
  return h("div", { class: "scroll", role: "region", "aria-label": "Files", tabindex: "0" }, h("table", {},
    h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "File"), h("th", { scope: "col", class: "n" }, "Size"))),
    h("tbody", {}, run.files.map((file) => h("tr", {},
      h("th", { scope: "row", class: "name-cell" }, h("a", { href: `/api/runs/${run.id}/files/${file.name.split("/").map(encodeURIComponent).join("/")}`, download: "" }, file.name), file.what ? h("small", {}, file.what) : null),
      h("td", { class: "n" }, bytes(file.bytes)))))));
}

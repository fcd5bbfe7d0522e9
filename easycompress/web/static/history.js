// All runs, and chosen ones beside each other.

import { amount, ask, bytes, capital, h, milliseconds, NONE, points, quality, ratio, seconds, typeset, when } from "./dom.js";
import { scatter } from "./charts.js";
import { goalWords } from "./goal.js";
import { titled } from "./plan.js";
import { stateWords } from "./run.js";
import { valueOf, VERDICTS } from "./result.js";

const FIRST = 8;

const words = (kinds) => kinds.map((kind) => titled(String(kind).split(" ")[0])).join(", ");

/** Show the history in `main`; returns how to leave it. */
export function historyPage(main) {
  const chosen = new Set();
  let known = null;
  let left = false;
  let timer = 0;
  let shown = "";
  const list = h("div", {});
  const compared = h("div", {});
  main.replaceChildren(h("div", { class: "lead" }, h("h1", { tabindex: "-1" }, "Runs")), list, compared);
  document.title = "Runs – easycompress";
  load();
  return () => { left = true; clearTimeout(timer); };

  async function load() {
    let runs;
    try {
      runs = await ask("/api/runs");
    } catch (refusal) {
      list.replaceChildren(h("div", { class: "alarm", role: "alert" }, h("p", {}, refusal.message)));
      timer = setTimeout(load, 3000);
      return;
    }
    if (left) return;
    if (known === null) runs.filter((run) => run.result).slice(0, FIRST).forEach((run) => chosen.add(run.id));
    known = runs;
    draw();
    if (runs.some((run) => !["done", "failed", "cancelled"].includes(run.state))) timer = setTimeout(load, 2000);
  }

  function draw() {
    const key = JSON.stringify(known);
    if (key === shown) return;
    shown = key;
    list.replaceChildren(known.length ? table() : empty());
    compare();
  }

  function table() {
    return h("div", { class: "scroll", role: "region", "aria-label": "Runs", tabindex: "0" }, h("table", { class: "wordy" },
      h("thead", {}, h("tr", {}, h("th", { scope: "col" }, h("span", { class: "hidden" }, "Compare")), ["Model and goal", "State"].map((each) => h("th", { scope: "col" }, each)),
        ["Ratio", "Drop"].map((each) => h("th", { scope: "col", class: "n" }, each)), h("th", { scope: "col", class: "n" }, "Begun"))),
      h("tbody", {}, known.map(row))));
  }

  function row(run) {
    const { result } = run;
    const box = result ? h("input", { type: "checkbox", checked: chosen.has(run.id), "aria-label": `Compare ${run.name}, ${when(run.created)}`, onchange: (event) => {
      if (event.target.checked) chosen.add(run.id);
      else chosen.delete(run.id);
      compare();
    } }) : null;
    return h("tr", {}, h("td", { class: "check" }, box),
      h("th", { scope: "row", class: "name-cell" }, h("a", { href: `#/run/${run.id}` }, run.name), h("small", {}, goalWords(run.goal) || "no goal yet")),
      h("td", {}, h("span", { class: `badge ${result ? result.verdict : run.state}` }, result ? VERDICTS[result.verdict] : stateWords(run)), run.failure ? h("small", {}, run.failure.line.slice(0, 90)) : null),
      h("td", { class: "n" }, result ? ratio(result.ratio) : NONE), h("td", { class: "n" }, result ? points(result.drop.estimate, result.metric) : NONE),
      h("td", { class: "n" }, when(run.created), run.ended && run.begun && run.stage === "compress" ? h("small", {}, seconds(run.ended - run.begun)) : null));
  }

  function empty() {
    return h("div", { class: "lead" }, h("p", {}, "Nothing here yet. Give a trained model and the data it was made for, say how small or fast it should be and what may be lost, and see the plan before anything is done."),
      h("div", { class: "actions" }, h("a", { class: "button main", href: "#/new" }, "New run")));
  }

  function compare() {
    const runs = known.filter((run) => run.result && chosen.has(run.id));
    if (!known.some((run) => run.result)) return compared.replaceChildren();
    if (!runs.length) return compared.replaceChildren(h("section", {}, h("h2", {}, "Compare"), h("p", { class: "note" }, "Tick finished runs to see them beside each other.")));
    const marks = runs.map((run, place) => ({ number: place + 1, ratio: run.result.ratio, drop: run.result.drop.estimate, metric: run.result.metric, verdict: run.result.verdict, words: run.name }));
    return compared.replaceChildren(h("section", { class: "whole" }, h("h2", {}, "Compare"), h("div", {},
      h("figure", {}, scatter(marks), h("figcaption", { class: "note" }, "Further right is smaller or faster, further up loses more. Filled: target and floor are met. The numbers are those of the table below.")),
      beside(runs))));
  }

  function beside(runs) {
    const value = (run, measured) => amount(valueOf(measured, run.result.goal.objective, run.result.batch), run.result.goal.objective);
    const first = (measured) => (measured.latency_ms[0] ? milliseconds(measured.latency_ms[0].median) : NONE);
    return h("div", { class: "scroll", role: "region", "aria-label": "Comparison", tabindex: "0" }, h("table", { class: "wordy" },
      h("thead", {}, h("tr", {}, ["", "Run"].map((each) => h("th", { scope: "col" }, each)), ["Objective", "Ratio", "Quality", "Drop", "File", "Latency"].map((each) => h("th", { scope: "col", class: "n" }, each)), h("th", { scope: "col" }, "What was done"))),
      h("tbody", {}, runs.map((run, place) => h("tr", {}, h("td", { class: "n" }, String(place + 1)),
        h("th", { scope: "row", class: "name-cell" }, h("a", { href: `#/run/${run.id}` }, run.name), h("small", {}, VERDICTS[run.result.verdict])),
        h("td", { class: "n" }, value(run, run.result.final), h("small", {}, `${capital(run.result.goal.objective)}, from ${value(run, run.result.baseline)}`)),
        h("td", { class: "n" }, ratio(run.result.ratio), h("small", {}, `asked ${typeset(run.result.goal.target)}`)),
        h("td", { class: "n" }, quality(run.result.final.quality, run.result.metric), h("small", {}, `from ${quality(run.result.baseline.quality, run.result.metric)}`)),
        h("td", { class: "n" }, points(run.result.drop.estimate, run.result.metric), run.result.drop.upper_95 === null ? null : h("small", {}, `at most ${points(run.result.drop.upper_95, run.result.metric)}`)),
        h("td", { class: "n" }, bytes(run.result.final.size_bytes)), h("td", { class: "n" }, first(run.result.final), h("small", {}, `from ${first(run.result.baseline)}`)),
        h("td", {}, words(run.result.actions) || "nothing", run.edited ? h("small", {}, "plan changed by hand") : null))))));
  }
}

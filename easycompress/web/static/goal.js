// The goal: what to shrink, how far, what may be lost, how long it may take.

import { amount, capital, h } from "./dom.js";
import { choices, field, select, showWrong, text, tick, values } from "./form.js";

const TARGETS = {
  size: "10x smaller, 90% less, an amount such as 120KB, or max for the most within the floor",
  latency: "2x faster, 50% less, an amount such as 3ms, or max",
  compute: "4x fewer, 75% less, an amount such as 40MMACs, or max",
  energy: "2x less, 50% less, an amount such as 2mJ, or max",
};

/** The form, filled with what was asked before, else with what the settings beside the model say. */
export function goalForm(run, failure, sent) {
  const { look, given } = run;
  const before = (name, usual) => given[name] ?? look.asked[name] ?? usual;
  const level = before("min_quality");
  const drop = before("max_drop", level ? "" : look.metric && !look.metric.percent ? "1%rel" : "1%");
  const values_ = { size: look.size, compute: look.profile.macs, latency: look.latency };
  const objective = before("objective", "size");
  const target = text("target", before("target", "10x"));
  const targetField = field("Target", target, TARGETS[objective]);
  const alarm = h("div", {});
  const floors = {
    drop: field("Largest drop", text("max_drop", drop), look.metric && look.metric.percent
      ? "1% is one percentage point; 1%rel is one percent of the original's." : "1%rel is one percent of the original's; 0.5 is absolute."),
    level: field("Lowest level", text("min_quality", level, { placeholder: look.metric && look.metric.percent ? "98%" : "" }), look.metric ? `In the unit of ${look.metric.name}.` : ""),
  };
  const showFloor = (which) => Object.entries(floors).forEach(([key, part]) => (part.hidden = key !== which));
  const floor = look.metric ? [choices("What may be lost", "floor", level ? "level" : "drop", [["drop", "At most a drop of"], ["level", "Nothing below a level of"]], showFloor), floors.drop, floors.level]
    : h("div", { class: "info" }, h("p", {}, "Without data the quality can't be judged: there is no floor, and only the weights are compressed."));
  showFloor(level ? "level" : "drop");
  const button = h("button", { class: run.plan ? null : "main", type: "submit" }, run.plan ? "Plan again" : "Make the plan");
  const unusual = ["backend", "batch", "threads", "seed", "repeats", "certify", "also", "force"].some((each) => given[each] && given[each] !== "cpu");
  const form = h("form", { novalidate: true, onsubmit: submit }, alarm,
    choices("What to reduce", "objective", objective, ["size", "latency", "compute", "energy"].map((each) =>
      [each, capital(each), values_[each] ? `now ${amount(values_[each], each)}` : ""]), (each) => {
      targetField.querySelector(".hint").textContent = TARGETS[each];
    }),
    targetField, floor,
    h("div", { class: "pair" },
      field("Budget", text("budget", before("budget", "20min")), "Time for all of it: 20min, 90s, 2h; 30ep for epochs of training; none for no training."),
      field("Format", select("format", before("format", "onnx"), [["onnx", "ONNX, for any ONNX Runtime"], ["packed", "Packed, the smallest file"]]))),
    h("details", { open: unusual }, h("summary", {}, "More settings"), h("div", { class: "pair" },
      field("Runs on", select("backend", before("backend", "cpu"), [["cpu", "CPU"], ["gpu", "GPU"]])),
      field("Batch", text("batch", before("batch", ""), { placeholder: "1", inputmode: "numeric" }), "What latency is judged at."),
      field("Threads", text("threads", before("threads", ""), { placeholder: "physical cores", inputmode: "numeric" }), "What latency is judged at."),
      field("Seed", text("seed", before("seed", ""), { placeholder: "0", inputmode: "numeric" }), "Fixes all randomness."),
      field("Repeats", text("repeats", before("repeats", ""), { placeholder: "1", inputmode: "numeric" }), "Seeds that share the budget; the best is delivered."),
      field("Further outputs", text("also", before("also", ""), { placeholder: "none" }), "pt2, hf, or both.")),
    look.metric ? tick("certify", before("certify", false), "The floor must hold at 95 % confidence") : null,
    tick("force", before("force", false), "Go on where easycompress refuses and says that it can be forced")),
    h("div", { class: "actions" }, button));

  function refuse(refusal) {
    alarm.replaceChildren(...showWrong(form, refusal).map((line) => h("div", { class: "alarm", role: "alert" }, h("p", {}, line))));
  }

  async function submit(event) {
    event.preventDefault();
    button.disabled = true;
    const found = values(form);
    if (found.floor === "level") delete found.max_drop;
    else delete found.min_quality;
    delete found.floor;
    try {
      await sent(found);
    } catch (refusal) {
      refuse(refusal);
    } finally {
      button.disabled = false;
    }
  }

  if (failure) refuse({ message: failure.line, fields: failure.field ? { [failure.field]: failure.line } : {} });
  return form;
}

/** The goal in one line of words. */
export function goalWords(goal) {
  if (!goal || !goal.target) return "";
  const of = goal.objective || "size";
  const words = { size: "smaller", latency: "faster", compute: "fewer MACs", energy: "less energy" }[of];
  const to = goal.target === "max" ? `as much ${words === "fewer MACs" ? "less compute" : words} as the floor permits`
    : /x$/i.test(goal.target) ? `${goal.target.replace(/x$/i, "×")} ${words}`
      : /%$/.test(goal.target) ? `${goal.target} less ${of}` : `${of} of at most ${goal.target}`;
  const floor = goal.max_drop ? `, at most ${goal.max_drop.replace(/%rel$/, " % (relative)").replace(/%$/, goal.max_drop === "1%" ? " point" : " points")} lost`
    : goal.min_quality ? `, at least ${goal.min_quality}` : "";
  return capital(to + floor);
}

/** The goal as it was asked. */
export function goalView(run) {
  const words = { max_drop: "Largest drop", min_quality: "Lowest level", also: "Further outputs", backend: "Runs on" };
  const rows = Object.entries(run.goal).filter(([, value]) => value !== false && value !== null);
  return h("dl", { class: "pairs" }, rows.map(([key, value]) => [h("dt", {}, words[key] || capital(key)), h("dd", {}, value === true ? "yes" : String(value))]));
}

// The plan: what it rests on, its steps with their settings, and the decisions behind them.

import { capital, h, typeset } from "./dom.js";
import { schemaFields, settingsOf, showWrong } from "./form.js";

const TITLES = {
  "structured-pruning": "Structured pruning", "depth-pruning": "Depth pruning", "transformer-pruning": "Transformer pruning",
  "unstructured-pruning": "Unstructured pruning", "low-rank-layers": "Low-rank layers", distillation: "Distillation",
  "qat-int8": "Quantization-aware training, int8", "static-int8": "Static int8 quantization", "dynamic-int8": "Dynamic int8 quantization",
  "weight-only": "Weight-only quantization", float16: "Half precision", "entropy-quantization": "Entropy-constrained quantization",
  "tuned-quantization": "Entropy-constrained quantization, tuned",
  lc: "Learning-compression (LC)",
};

const USES = { train: "training", calibration: "calibration", select: "choosing", report: "the report" };

/** What is unusual about a step, without its name. */
const unusual = (step) => typeset((/^[^(]*\((.*)\)$/.exec(step.brief) || [])[1] || "the usual settings");

export const titled = (kind) => TITLES[kind] || capital(kind);

function table(label, head, rows, wordy) {
  return h("div", { class: "scroll", role: "region", "aria-label": label, tabindex: "0" }, h("table", { class: wordy ? "wordy" : null },
    h("thead", {}, h("tr", {}, head.map((each) => h("th", { scope: "col" }, each)))), h("tbody", {}, rows)));
}

function about(plan) {
  const goals = plan.rows.filter(([, asked]) => asked);
  const data = plan.rows.filter(([, asked]) => !asked).map(([label, , given]) => `${given.replace(/ samples.*/, "")} for ${USES[label] || label}`);
  return table("What the plan rests on", ["", "Asked", "Given"], [...goals, ["samples", "", data.join(", ")]].map(([label, asked, given]) =>
    h("tr", {}, h("th", { scope: "row" }, capital(label)), h("td", {}, typeset(asked)), h("td", {}, typeset(given)))));
}

function decisions(plan) {
  if (!plan.decisions.length) return null;
  return h("details", {}, h("summary", {}, `Why: ${plan.decisions.length} rules, each with its evidence`),
    table("Decisions", ["Rule", "Question", "Answer", "Evidence"], plan.decisions.map((each) =>
      h("tr", {}, h("td", { class: "rule" }, each.rule), h("td", {}, each.question), h("td", {}, typeset(each.answer)), h("td", { class: "note" }, typeset(each.evidence)))), true));
}

function quick(plan) {
  if (!plan.quick.length) return null;
  return h("div", { class: "info" }, h("p", {}, `Tried first, without training: ${plan.quick.map((line) => typeset(line)).join("; then ")}. Where that meets the goal, the steps aren't needed.`),
    h("p", { class: "note" }, "A plan that you change is carried out as you leave it, without this shortcut."));
}

/** What follows where the steps miss the target; plans of earlier versions don't say it. */
function otherwise(plan) {
  const told = [["as much as the floor permits, by", plan.lesser], ["without training,", plan.last]].filter(([, steps]) => steps && steps.length);
  if (!told.length) return null;
  return h("div", { class: "info" }, told.map(([how, steps]) =>
    h("p", {}, `Where the steps miss the target: ${how} ${steps.map((line) => typeset(line)).join("; then ")}.`)));
}

/** One step: on or off, its settings as a form. */
function stepItem(step, place, edited) {
  const kept = edited === null ? step.settings : edited;
  const box = h("input", { type: "checkbox", id: `step${place}`, checked: kept !== undefined, "aria-describedby": `step${place}b` });
  const settings = { ...step.settings, ...(kept || {}) };
  const fields = schemaFields(step.schema, settings, place);
  const item = h("li", {},
    h("div", { class: "step-head" }, box, h("div", {}, h("label", { for: box.id }, titled(step.kind)), h("small", { id: `step${place}b` }, unusual(step)))),
    fields.length ? h("div", { class: "step-body" }, h("details", {}, h("summary", {}, "Settings"),
      step.schema.description ? h("p", { class: "note doc" }, words(step.schema.description)) : null, h("div", { class: "pair" }, fields))) : null);
  const show = () => item.classList.toggle("off", !box.checked);
  box.addEventListener("change", show);
  show();
  return { item, box };
}

/** A docstring as prose: its lines joined, without the marks around names. */
const words = (text) => text.replace(/\n\n/g, "\u0000").replace(/\n/g, " ").replace(/\u0000/g, "\n").replaceAll("`", "");

/** The plan as a form; `sent(steps)` gets null where nothing was changed. */
export function planForm(run, failure, sent) {
  const { plan } = run;
  const alarm = h("div", {});
  const items = plan.steps.map((step, place) => stepItem(step, place, null));
  const button = h("button", { class: "main", type: "submit" }, "Run it");
  const changed = h("p", { class: "hint" });
  const list = h("ol", { class: "steps" }, items.map((each) => each.item));
  const form = h("form", { novalidate: true, onsubmit: submit }, alarm, about(plan),
    h("h3", {}, plan.steps.length ? "Steps" : "No step is needed"), quick(plan), list, otherwise(plan),
    plan.notes.length ? h("details", {}, h("summary", {}, `${plan.notes.length} note${plan.notes.length === 1 ? "" : "s"}`), h("ul", { class: "plain note" }, plan.notes.map((note) => h("li", {}, typeset(note))))) : null,
    decisions(plan), h("div", { class: "actions" }, button, h("button", { type: "reset", class: "quiet" }, "Undo my changes")), changed);

  function steps() {
    const found = items.map(({ box }, place) => (box.checked ? { place, settings: settingsOf(form, place) } : null)).filter(Boolean);
    const same = found.length === plan.steps.length && found.every(({ place, settings }) =>
      Object.entries(settings).every(([name, value]) => JSON.stringify(value) === JSON.stringify(plan.steps[place].settings[name] ?? null)));
    return same ? null : found;
  }

  function mark() {
    changed.textContent = steps() === null ? "" : "Changed: the plan is carried out as it stands here.";
    items.forEach(({ item, box }) => item.classList.toggle("off", !box.checked));
  }
  form.addEventListener("input", mark);
  form.addEventListener("reset", () => setTimeout(() => {
    items.forEach(({ box }) => (box.checked = true));
    form.querySelectorAll("[name]").forEach((control) => {
      const [place, name] = split(control.name);
      const value = plan.steps[place].settings[name];
      control.value = value === null || value === undefined ? "" : Array.isArray(value) ? value.join(", ") : String(value);
    });
    mark();
  }));

  function refuse(refusal) {
    alarm.replaceChildren(...showWrong(form, refusal).map((line) => h("div", { class: "alarm", role: "alert" }, h("p", {}, line))));
  }

  async function submit(event) {
    event.preventDefault();
    button.disabled = true;
    try {
      await sent(steps());
    } catch (refusal) {
      refuse(refusal);
      alarm.scrollIntoView({ block: "nearest" });
    } finally {
      button.disabled = false;
    }
  }

  if (failure) refuse({ message: failure.line, fields: {} });
  return form;
}

const split = (name) => [Number(name.slice(0, name.indexOf("."))), name.slice(name.indexOf(".") + 1)];

/** The plan as it was, or is being, carried out. */
export function planView(run) {
  const { plan } = run;
  const kept = run.steps;
  const lines = kept === null ? plan.steps.map((step) => [titled(step.kind), unusual(step)])
    : kept.map((step) => [titled(step.kind), Object.entries(step).filter(([key, value]) => key !== "kind" && value !== null).map(([key, value]) => `${key} ${value}`).join(", ")]);
  return h("div", {}, about(plan), h("h3", {}, kept === null ? "Steps" : "Steps, as changed by you"), kept === null ? quick(plan) : null,
    h("ol", { class: "steps" }, lines.map(([title, line]) => h("li", {}, h("div", {}, h("strong", {}, title), h("div", { class: "note" }, line))))),
    kept === null ? otherwise(plan) : null,
    plan.notes.length ? h("ul", { class: "plain note" }, plan.notes.map((note) => h("li", {}, typeset(note)))) : null, decisions(plan));
}

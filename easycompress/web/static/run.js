// One run, from its model to its files. Each section is drawn anew only where what it shows has changed.

import { announce, ask, capital, h } from "./dom.js";
import { modelForm, modelView } from "./model.js";
import { goalForm, goalView, goalWords } from "./goal.js";
import { planForm, planView } from "./plan.js";
import { follow, liveView, Story } from "./live.js";
import { filesView, resultView } from "./result.js";

export const STATES = { queued: "Waiting", running: "At work", cancelling: "Stopping", done: "Done", failed: "Failed", cancelled: "Cancelled" };

const RESTING = ["done", "failed", "cancelled"];

/** What state a run is in, in one or two words. */
export function stateWords(run) {
  if (run.stage === "compress" || !RESTING.includes(run.state)) return STATES[run.state];
  if (run.state !== "done") return `${STATES[run.state]}`;
  return run.stage === "look" ? "Looked at" : "Planned";
}

/** Show a run in `main`; returns how to leave it. */
export function runPage(main, id, server, places) {
  let run = null;
  let stop = () => {};
  let left = false;
  let changing = false;
  let story = new Story();
  let live = null;
  const sections = new Map();
  const head = h("div", { class: "lead" });
  const body = h("div", {});
  main.replaceChildren(head, body);
  const timer = setInterval(() => live && live.tick(), 1000);
  load(true);
  return () => {
    left = true;
    clearInterval(timer);
    stop();
  };

  async function load(watching) {
    let now;
    try {
      now = await ask(`/api/runs/${id}`);
    } catch (refusal) {
      if (!left) main.replaceChildren(h("div", { class: "lead" }, h("h1", { tabindex: "-1" }, "This run is not here"), h("p", {}, refusal.message), h("a", { class: "button", href: "#/" }, "All runs")));
      return;
    }
    if (left) return;
    const before = run;
    run = now;
    if (RESTING.includes(run.state)) changing = changing && run.stage !== "compress";
    draw();
    if (before && before.state !== run.state && RESTING.includes(run.state)) arrived();
    if (watching) watch();
  }

  function watch() {
    stop();
    story = new Story();
    live = null;
    sections.delete("live");
    stop = follow(id, story, () => live && live.show(run), (event, over) => {
      if (left) return;
      if (over || (event && event.kind === "state" && (event.stage !== run.stage || event.state !== run.state))) load(false);
    });
    draw();
  }

  /** A stage is over: say so, and lead to what comes next. */
  function arrived() {
    const words = run.state === "failed" ? `It failed: ${run.failure.line}`
      : run.state === "cancelled" ? "Cancelled" : { look: "The model was looked at; set the goal", plan: "The plan is made", compress: "The run is done" }[run.stage];
    announce(words);
    const next = run.state === "failed" ? { look: "model", plan: "goal", compress: "trouble" }[run.stage] : { look: "goal", plan: "plan", compress: run.state === "done" ? "result" : "live" }[run.stage];
    const heading = body.querySelector(`[data-section="${next}"] h2`);
    if (heading) {
      heading.focus({ preventScroll: true });
      const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
      heading.parentElement.scrollIntoView({ behavior: calm ? "auto" : "smooth", block: "start" });
    }
  }

  async function act(path, given, method) {
    run = await ask(`/api/runs/${id}${path}`, given ?? {}, method);
    changing = false;
    if (left) return;
    draw();
    watch();
  }

  function draw() {
    document.title = `${run.name}: ${stateWords(run)} – easycompress`;
    drawHead();
    const wanted = content();
    const nodes = wanted.map(([name, title, key, make]) => {
      const kept = sections.get(name);
      if (kept && kept.key === key) return kept.node;
      const node = h("section", { "data-section": name }, h("h2", { tabindex: "-1" }, title), h("div", {}, make()));
      sections.set(name, { key, node });
      return node;
    });
    [...sections.keys()].filter((name) => !wanted.some(([each]) => each === name)).forEach((name) => sections.delete(name));
    nodes.forEach((node, place) => body.children[place] === node || body.insertBefore(node, body.children[place] || null));
    while (body.children.length > nodes.length) body.lastChild.remove();
    if (live) live.show(run);
  }

  function drawHead() {
    const words = goalWords(run.goal);
    const result = run.result;
    const tone = result ? result.verdict : run.state;
    const key = JSON.stringify([run.name, words, tone, stateWords(run)]);
    if (head.dataset.key === key) return;
    head.dataset.key = key;
    head.replaceChildren(h("h1", { tabindex: "-1" }, h("span", { class: "label" }, words ? run.name : "Model"), words || run.name),
      result ? "" : h("p", {}, h("span", { class: `badge ${run.state}` }, stateWords(run))));
  }

  /** [name, title, what it depends on, how it is made] of each section, in order. */
  function content() {
    const { stage, state } = run;
    const busy = !RESTING.includes(state);
    const begun = stage === "compress";
    const key = (...parts) => JSON.stringify([...parts]);
    const found = [];
    const failed = state === "failed" ? run.failure : null;
    if (run.result) found.push(["result", "Result", key(run.result.summary), () => resultView(run)], ["files", "Files", key(run.files), () => filesView(run)]);
    if (failed && begun) found.push(["trouble", "What went wrong", key(failed), trouble]);
    if (begun) found.push(["live", run.result ? "Course" : "Progress", key(state), () => progress(busy)]);
    const shownPlan = run.plan && (begun || !busy || stage === "plan") && !(stage === "plan" && busy);
    if (!begun) {
      found.push(modelSection(busy, failed));
      if (run.look && !(stage === "look" && busy)) found.push(goalSection(busy, failed));
      if (shownPlan && stage === "plan" && !busy) found.push(["plan", "Plan", key(run.plan, state), () => planForm(run, null, (steps) => act("/start", { steps }))]);
    } else {
      if (run.plan) found.push(["plan", "Plan", key("view", run.plan, run.steps), () => folded("What was planned", planView(run), !run.result && !busy)]);
      found.push(["goal", "Goal", key("view", run.goal), () => goalView(run)]);
      if (run.look) found.push(["model", "Model", key("view", run.look), () => folded(run.given.model.split("/").pop(), modelView(run), false)]);
    }
    if (!busy) found.push(["more", "More", key(stage, state, run.resumable), more]);
    return found;
  }

  function modelSection(busy, failed) {
    const here = run.stage === "look";
    const editing = changing || (here && !busy && run.state !== "done") || (!busy && !run.look);
    if (here && busy) return ["model", "Model", JSON.stringify(["busy", run.state]), () => waiting("Looking at the model")];
    if (editing) {
      return ["model", "Model", JSON.stringify(["form", run.given, failed && here ? failed : null]), () => h("div", {},
        here && run.output ? output() : null,
        modelForm(run.given, places, server, failed && here ? failed : null, (fields) => act("/model", fields)))];
    }
    return ["model", "Model", JSON.stringify(["view", run.look, busy]), () => h("div", {}, run.stage === "look" ? modelView(run) : folded(run.given.model.split("/").pop(), modelView(run), false),
      busy ? null : h("div", { class: "actions" }, h("button", { type: "button", onclick: () => { changing = true; draw(); } }, "Change model or data")))];
  }

  function goalSection(busy, failed) {
    if (run.stage === "plan" && busy) return ["goal", "Goal", JSON.stringify(["busy", run.state]), () => waiting("Making the plan")];
    const mine = failed && run.stage === "plan" ? failed : null;
    return ["goal", "Goal", JSON.stringify(["form", run.look, mine]), () => h("div", {}, mine && run.output ? output() : null,
      goalForm(run, mine, (fields) => act("/plan", fields)))];
  }

  function waiting(words) {
    live = liveView(story, run);
    return h("div", {}, h("p", {}, `${words}…`), live.node, h("div", { class: "actions" }, cancelButton()));
  }

  function progress(busy) {
    live = liveView(story, run);
    return h("div", {}, live.node, h("div", { class: "actions" }, busy ? cancelButton() : null,
      run.resumable ? h("button", { type: "button", class: "main", onclick: (event) => press(event, () => act("/resume")) }, "Go on from where it stopped") : null));
  }

  function cancelButton() {
    return h("button", { type: "button", class: "bad", disabled: run.state === "cancelling", onclick: (event) => press(event, async () => {
      run = await ask(`/api/runs/${id}/cancel`, {});
      draw();
    }) }, run.state === "cancelling" ? "Stopping…" : "Cancel");
  }

  function trouble() {
    return h("div", {}, h("div", { class: "alarm", role: "alert" }, h("p", {}, capital(run.failure.line))), output());
  }

  function output() {
    return run.output ? h("details", {}, h("summary", {}, "What the process printed"), h("pre", { tabindex: "0" }, run.output)) : null;
  }

  function more() {
    return h("div", {}, run.stage === "compress" ? h("p", { class: "note" }, "The same model with another goal is a new run; this one stays as it is.") : null,
      h("div", { class: "actions" },
        run.look && run.stage === "compress" ? h("button", { type: "button", onclick: (event) => press(event, async () => {
          const made = await ask(`/api/runs/${id}/copy`, {});
          location.hash = `#/run/${made.id}`;
        }) }, "Another goal for this model") : null,
        h("button", { type: "button", class: "bad", onclick: (event) => press(event, async () => {
          if (!confirm(`Remove this run of ${run.name} and its files from the server?`)) return;
          await ask(`/api/runs/${id}`, undefined, "DELETE");
          location.hash = "#/";
        }) }, "Remove this run")));
  }

  async function press(event, action) {
    const button = event.currentTarget;
    button.disabled = true;
    try {
      await action();
    } catch (refusal) {
      button.after(h("p", { class: "wrong", role: "alert" }, refusal.message));
    } finally {
      button.disabled = button.textContent === "Stopping…";
    }
  }
}

function folded(title, node, open) {
  return h("details", { open }, h("summary", {}, title), node);
}

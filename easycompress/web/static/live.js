// A run while it is at work: its events, and the part of the page that shows them.

import { announce, amount, capital, h, NONE, number, points, quality, ratio, seconds, typeset } from "./dom.js";
import { curve } from "./charts.js";

/** What the events of a run come to. `take` gets them in order, also again from the start. */
export class Story {
  constructor() {
    this.log = [];
    this.now = "";
    this.seed = "";
    this.attempt = null;
    this.lost = false;
    this.begin();
  }

  begin() {
    this.attempts = new Map();
    this.epochs = new Map();
    this.left = null;
  }

  take(event) {
    const { kind } = event;
    if (kind === "state" && event.state === "running") {
      this.now = "starting";
      if (event.stage !== "compress") this.begin();
      if (event.stage === "plan") this.log = [];
    } else if (kind === "say") {
      this.log.push([event.at, event.text]);
      const named = /^seed (\d+),/.exec(event.text);
      if (named) this.seed = named[1];
    } else if (kind === "now") this.now = event.text;
    else if (kind === "attempt-begun") {
      this.attempt = event.number;
      this.attempts.set(this.key(event.number), { ...event, seed: this.seed });
    } else if (kind === "attempt-done") {
      this.attempts.set(this.key(event.number), { ...event, seed: this.seed, done: true });
    } else if (kind === "epoch-done") {
      this.attempt = this.attempt ?? 1;
      this.now = `${event.label}: epoch ${event.epoch} of ${event.epochs}`;
      this.epochs.set(`${this.key(this.attempt)}|${event.label}|${event.epoch}`, { ...event, part: `${this.key(this.attempt)}|${event.label}` });
    } else if (kind === "time-left") this.left = { ...event };
  }

  key(attempt) {
    return `${this.seed}|${attempt}`;
  }

  /** [x, y] pairs of one of the epochs' values, in parts. */
  series(name) {
    const parts = new Map();
    let at = 0;
    for (const epoch of this.epochs.values()) {
      at += 1;
      if (epoch[name] === null || epoch[name] === undefined) continue;
      if (!parts.has(epoch.part)) parts.set(epoch.part, []);
      parts.get(epoch.part).push([at, epoch[name]]);
    }
    return [...parts.values()];
  }
}

const RETRY = 1500;

/**
 * Follow a run's events; `told` is called after each batch, `rested` when nothing more comes. Returns how to stop.
 * A server that ended is asked again until it is back: browsers differ in when they give up by themselves.
 */
export function follow(id, story, told, rested) {
  let source = null;
  let since = 0;
  let waiting = 0;
  let timer = 0;
  const stop = () => {
    source.close();
    clearTimeout(timer);
    cancelAnimationFrame(waiting);
    waiting = 0;
  };
  const open = () => {
    source = new EventSource(`/api/runs/${id}/events?since=${since}`);
    source.onopen = () => (story.lost = false);
    source.onmessage = (message) => {
      const event = JSON.parse(message.data);
      since = Number(message.lastEventId) || since;
      story.take(event);
      if (!waiting) waiting = requestAnimationFrame(() => { waiting = 0; told(event); });
      if (event.kind === "state") rested(event, false);
    };
    source.onerror = () => {
      stop();
      story.lost = true;
      told(null);
      timer = setTimeout(open, RETRY);
    };
    source.addEventListener("rest", () => {
      stop();
      told(null);
      rested(null, true);
    });
  };
  open();
  return stop;
}

/** The part of the page that a story is shown in. `show(run)` draws it anew. */
export function liveView(story, run) {
  const text = h("span", { class: "text" });
  const dot = h("span", { class: "dot", "aria-hidden": "true" });
  const bar = h("progress", { max: 1, "aria-label": "Time used of what this run is expected to take" });
  const left = h("p", { class: "note" });
  const attempts = h("div", {});
  const curves = h("div", { class: "curves" });
  const log = h("pre", { tabindex: "0", "aria-label": "Log" });
  const logPart = h("details", { open: true }, h("summary", {}, "Log"), log);
  const node = h("div", {}, h("div", { class: "live" }, dot, text), bar, left, attempts, curves, logPart);
  let drawn = { attempts: "", epochs: -1, log: -1 };
  let told = "";
  return {
    node,
    show(now) {
      run = now;
      const busy = !["done", "failed", "cancelled"].includes(run.state);
      dot.hidden = !busy;
      text.textContent = busy ? capital(typeset(status(run, story))) : "";
      if (busy && phase(story) !== told) {
        told = phase(story);
        announce(capital(told));
      }
      clock(busy);
      drawn = { ...drawn, ...draw(drawn) };
    },
    tick: () => clock(!["done", "failed", "cancelled"].includes(run.state)),
  };

  function clock(busy) {
    const begun = run.begun || run.created;
    const spent = ((busy ? Date.now() / 1000 : run.ended) || begun) - begun;
    const passed = story.left ? Date.now() / 1000 - story.left.at : 0;
    const rest = busy && story.left && story.left.seconds !== null ? Math.max(0, story.left.seconds - passed) : null;
    const most = busy && story.left && story.left.at_most !== null ? Math.max(0, story.left.at_most - passed) : null;
    bar.hidden = !busy || run.state !== "running" || rest === null;
    if (rest !== null) bar.value = spent / (spent + rest);
    const parts = [run.begun ? `${seconds(spent)} ${busy ? "so far" : "in all"}` : null,
      rest === null ? null : rest < 1 ? "almost done" : `about ${seconds(rest)} left`, most === null || most < 1 ? null : `at most ${seconds(most)} by the budget`];
    left.textContent = run.state === "queued" ? "" : parts.filter(Boolean).join("; ");
  }

  function draw(before) {
    const rows = [...story.attempts.values()];
    const key = JSON.stringify(rows);
    if (key !== before.attempts) attempts.replaceChildren(...(rows.length ? [attemptTable(rows, run)] : []));
    if (story.epochs.size !== before.epochs) curves.replaceChildren(...curveFigures(story, run));
    if (story.log.length !== before.log) {
      const near = log.scrollTop + log.clientHeight > log.scrollHeight - 40;
      log.textContent = story.log.map(([, line]) => typeset(line)).join("\n");
      if (near) log.scrollTop = log.scrollHeight;
    }
    logPart.hidden = !story.log.length;
    return { attempts: key, epochs: story.epochs.size, log: story.log.length };
  }
}

function phase(story) {
  return story.now.split(":")[0];
}

function status(run, story) {
  if (story.lost) return "the server can't be reached; the page asks again, and the run may well go on";
  if (run.state === "queued") return run.ahead ? `waits for ${run.ahead} other job${run.ahead === 1 ? "" : "s"}` : "about to start";
  if (run.state === "cancelling") return "stopping; what was done is kept";
  return story.now || "starting";
}

function attemptTable(rows, run) {
  const seeds = rows.some((row) => row.seed);
  const metric = run.look && run.look.metric;
  const objective = run.goal.objective || "size";
  return h("div", { class: "scroll", role: "region", "aria-label": "Attempts", tabindex: "0" }, h("table", { class: "wordy" },
    h("caption", { class: "hidden" }, "Attempts"),
    h("thead", {}, h("tr", {}, seeds ? h("th", { scope: "col" }, "Seed") : null, h("th", { scope: "col" }, "Attempt"), ...["Ratio", capital(objective), metric ? capital(metric.name) : "Quality", "Drop", "Time"].map((each) => h("th", { scope: "col", class: "n" }, each)), h("th", { scope: "col" }, "Verdict"))),
    h("tbody", {}, rows.map((row) => h("tr", {}, seeds ? h("td", {}, row.seed) : null,
      h("th", { scope: "row" }, String(row.number), h("small", {}, typeset(row.what))),
      row.done ? [h("td", { class: "n" }, ratio(row.ratio)), h("td", { class: "n" }, amount(row.objective, objective)), h("td", { class: "n" }, quality(row.quality, metric)),
        h("td", { class: "n" }, points(row.drop, metric), row.error ? h("small", {}, `± ${points(row.error, metric)}`) : null),
        h("td", { class: "n" }, seconds(row.seconds), row.epochs ? h("small", {}, `${row.epochs} epoch${row.epochs === 1 ? "" : "s"}`) : null),
        h("td", {}, h("span", { class: `mark-cell ${row.accepted ? "met" : "floor-missed"}` }, row.accepted ? "● accepted" : "✕ rejected"), h("small", {}, typeset(row.reason)))]
        : [h("td", { class: "n" }, NONE), h("td", { class: "n" }, NONE), h("td", { class: "n" }, NONE), h("td", { class: "n" }, NONE), h("td", { class: "n" }, NONE),
          h("td", {}, h("span", { class: "mark-cell undecided" }, run.state === "running" ? "○ in progress" : "○ not finished"))])))));
}

function curveFigures(story, run) {
  const metric = run.look && run.look.metric;
  const total = story.epochs.size;
  const loss = story.series("loss");
  const score = story.series("quality");
  const gap = story.series("distance");
  const base = run.look && run.look.quality;
  const last = (series) => series.flat().slice(-1)[0];
  const figure = (title, drawing) => (drawing ? h("figure", {}, h("figcaption", {}, title), drawing) : null);
  return [
    figure("Loss, epoch by epoch", curve(loss, { words: loss.length ? `Loss over ${total} epochs, now ${number(last(loss)[1])}` : "" })),
    figure(`${metric ? capital(metric.name) : "Score"} on select while training`, curve(score, {
      second: true, words: score.length ? `Score over ${total} epochs, now ${quality(last(score)[1], metric)}` : "",
      lines: base === null || base === undefined ? [] : [{ value: base, kind: "base", words: "original" }],
    })),
    figure("Distance of the weights from their codes, ‖w − Δ(Θ)‖", curve(gap, { words: gap.length ? `Distance over the L steps, now ${number(last(gap)[1])}` : "" })),
  ].filter(Boolean);
}

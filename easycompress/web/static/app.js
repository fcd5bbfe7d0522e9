// Which page is shown: #/ all runs, #/new a new one, #/run/ID.

import { ask, h } from "./dom.js";
import { historyPage } from "./history.js";
import { modelForm } from "./model.js";
import { runPage } from "./run.js";

const main = document.getElementById("main");
let leave = () => {};
let server = null;

function newPage(places) {
  document.title = "New run – easycompress";
  const made = async (fields) => {
    const run = await ask("/api/runs", fields);
    location.hash = `#/run/${run.id}`;
  };
  main.replaceChildren(h("div", { class: "lead" }, h("h1", { tabindex: "-1" }, "New run"), h("p", {}, "First the model, and data that shows what it should do. Nothing is changed: the model is read and measured.")),
    h("section", {}, h("h2", {}, "Model"), modelForm({}, places, server, null, made)));
}

async function show(first) {
  leave();
  leave = () => {};
  const path = location.hash.slice(1) || "/";
  const page = path.startsWith("/run/") ? "run" : path === "/new" ? "new" : "runs";
  document.querySelectorAll("nav a").forEach((link) => {
    if (link.dataset.page === page) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  });
  try {
    server = server || (await ask("/api/server"));
    const places = page === "runs" ? null : await ask("/api/places");
    if ((location.hash.slice(1) || "/") !== path) return;
    if (page === "run") leave = runPage(main, path.slice(5), server, places);
    else if (page === "new") newPage(places);
    else leave = historyPage(main);
  } catch (refusal) {
    main.replaceChildren(h("div", { class: "lead" }, h("h1", { tabindex: "-1" }, "That did not work"), h("p", {}, refusal.message)));
  }
  if (!first) {
    scrollTo(0, 0);
    const heading = main.querySelector("h1");
    if (heading) heading.focus({ preventScroll: true });
  }
}

addEventListener("hashchange", () => show(false));
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});
show(true);

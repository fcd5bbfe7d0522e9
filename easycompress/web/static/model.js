// The model and its data: the form, and what was found in them.

import { announce, ask, bytes, capital, count, h, macs, milliseconds, quality, s, send, typeset } from "./dom.js";
import { choices, field, select, showWrong, text, values } from "./form.js";

const MORE = ["columns", "shape", "mean", "std", "augment", "metric", "loss"];

/** One thing that lies on the server or is uploaded: both fields, and what to send for it. */
function source(name, label, given, { hint, suffixes, listed, empty, pathLabel }) {
  const uploaded = (given || "").startsWith("upload:");
  let spec = uploaded ? given : "";
  const path = text(name, uploaded ? "" : given, { list: `${name}-places`, placeholder: empty });
  const note = h("p", { class: "hint" }, uploaded ? `${given.split("/").pop()} is on the server; choose another file to replace it.` : `One file: ${suffixes.join(", ")}. It is stored on the server, and never run or unpickled.`);
  const bar = h("progress", { max: 1, value: 0, hidden: true, "aria-label": `Upload of the ${label.toLowerCase()}` });
  const file = h("input", { type: "file", accept: suffixes.join(","), name: `${name}-file` });
  const wrong = h("p", { class: "wrong", "data-wrong": name });
  let going = Promise.resolve();
  file.addEventListener("change", () => {
    if (!file.files.length) return;
    wrong.textContent = "";
    bar.hidden = false;
    note.textContent = `Sending ${file.files[0].name}…`;
    going = send(file.files[0], (share) => (bar.value = share)).then((taken) => {
      spec = taken.spec;
      note.textContent = `${taken.name} is on the server.`;
      announce(note.textContent);
    }).catch((refusal) => {
      spec = "";
      file.value = "";
      note.textContent = "";
      wrong.textContent = refusal.message;
      announce(refusal.message);
    }).finally(() => (bar.hidden = true));
  });
  const fileId = `${name}-upload`;
  file.id = fileId;
  const parts = {
    path: h("div", {}, field(pathLabel, path, hint), h("datalist", { id: `${name}-places` }, listed.map((each) => h("option", { value: each })))),
    upload: h("div", { class: "field" }, h("label", { class: "name", for: fileId }, `File of the ${label.toLowerCase()}`), file, bar, note, wrong),
  };
  const show = (which) => Object.entries(parts).forEach(([key, part]) => (part.hidden = key !== which));
  const from = choices(label, `${name}-from`, uploaded ? "upload" : "path", [["path", "On this server"], ["upload", "Upload a file"]], show);
  show(uploaded ? "upload" : "path");
  return {
    nodes: [from, parts.path, parts.upload],
    async spec(form) {
      await going;
      return form.elements[`${name}-from`].value === "upload" ? spec : path.value.trim();
    },
  };
}

/** The form. `sent(fields)` asks the server; what it refuses is shown at the fields. */
export function modelForm(given, places, server, failure, sent) {
  const model = source("model", "Model", given.model, {
    hint: `.onnx, .pt2, .safetensors or .pt, or a Hugging Face folder. Paths start at ${server.root || server.work}. An easycompress.toml beside the model fills in the rest.`,
    suffixes: [".onnx", ".pt2", ".safetensors"], listed: places.models, empty: "model.onnx", pathLabel: "Path of the model",
  });
  const data = source("data", "Data", given.data, {
    hint: "A .npz file, a folder, a table, digits, or file.py:function. Without data the quality can't be judged.",
    suffixes: [".npz"], listed: ["digits", ...places.data], empty: "data.npz", pathLabel: "Path or name of the data",
  });
  const alarm = h("div", {});
  const more = h("details", { open: MORE.some((name) => given[name]) }, h("summary", {}, "More about the data and the score"),
    h("div", { class: "pair" },
      field("Mean", text("mean", given.mean, { placeholder: "0.49,0.48,0.45" }), "Of each channel, for images scaled to 0..1; as in training."),
      field("Standard deviation", text("std", given.std, { placeholder: "0.25,0.24,0.26" }), "Of each channel."),
      field("Columns", text("columns", given.columns, { placeholder: "text,label" }), "Of a table: inputs and label."),
      field("Shape of a sample", text("shape", given.shape, { placeholder: "3,224,224" }), "Only where there is no data."),
      field("Augmentation", text("augment", given.augment, { placeholder: "none", list: "augments" }), "Of training data: none, flip, flip-crop or file.py:function."),
      field("Metric", text("metric", given.metric, { placeholder: "by the data" }), "accuracy, f1, mse, miou, … or file.py:function."),
      field("Loss", text("loss", given.loss, { placeholder: "by the data" }), "cross-entropy, mse, … or file.py:function."),
      h("datalist", { id: "augments" }, ["none", "flip", "flip-crop"].map((each) => h("option", { value: each })))));
  const button = h("button", { class: "main", type: "submit" }, "Look at the model");
  const form = h("form", { novalidate: true, onsubmit: submit }, alarm, model.nodes,
    field("Factory", text("factory", given.factory, { placeholder: "torchvision:resnet18" }),
      "For .safetensors and .pt, which hold weights alone: the function that makes the module, torchvision:NAME or file.py:function of a file on the server."),
    data.nodes, more, h("div", { class: "actions" }, button));

  function refuse(refusal) {
    alarm.replaceChildren(...showWrong(form, refusal).map((line) => h("div", { class: "alarm", role: "alert" }, h("p", {}, line))));
  }

  async function submit(event) {
    event.preventDefault();
    button.disabled = true;
    try {
      const found = values(form);
      const fields = Object.fromEntries(["factory", ...MORE].map((name) => [name, found[name]]));
      await sent({ ...fields, model: await model.spec(form), data: await data.spec(form) });
    } catch (refusal) {
      refuse(refusal);
    } finally {
      button.disabled = false;
    }
  }

  if (failure) refuse({ message: failure.line, fields: failure.field ? { [failure.field]: failure.line } : {} });
  return form;
}

/** What was found: facts, layers, notes. */
export function modelView(run) {
  const { look, given } = run;
  const facts = look.profile;
  const rows = [
    ["Architecture", `${facts.architecture}, ${facts.layers.length} layers, input ${facts.input_shape.join("×")}`],
    ["Size", `${bytes(look.size)} as an ONNX file`],
    ["Parameters", count(facts.params)],
    ["Compute", `${macs(facts.macs)} a sample`],
    look.latency === null ? null : ["Latency", `${milliseconds(look.latency)} a sample, ${look.threads} thread${look.threads === 1 ? "" : "s"}`],
    look.metric ? [capital(look.metric.name), `${quality(look.quality, look.metric)} on ${count(look.samples.select)} samples`] : ["Quality", "not judged: no data was given"],
    look.metric ? ["Data", `${name(look.asked.data || given.data)}: ${count(look.samples.train)} to train, ${count(look.samples.select)} to choose by, ${count(look.samples.report)} to report on`] : null,
  ].filter(Boolean);
  return h("div", {},
    h("dl", { class: "pairs" }, rows.map(([label, value]) => [h("dt", {}, label), h("dd", {}, value)])),
    look.notes.length ? h("ul", { class: "plain note" }, look.notes.map((note) => h("li", {}, typeset(note)))) : null,
    layers(facts));
}

const name = (spec) => String(spec).split("/").pop();

function layers(facts) {
  const most = Math.max(...facts.layers.map((layer) => layer.params), 1);
  const ops = Math.max(...facts.layers.map((layer) => layer.macs), 1);
  return h("details", { open: facts.layers.length <= 12 }, h("summary", {}, `${facts.layers.length} layers`),
    h("div", { class: "scroll", role: "region", "aria-label": "Layers", tabindex: "0" }, h("table", {},
      h("thead", {}, h("tr", {}, ["Layer", "Type"].map((each) => h("th", { scope: "col" }, each)),
        ["Parameters", "", "MACs a sample", ""].map((each) => h("th", { scope: "col", class: each ? "n" : "" }, each || h("span", { class: "hidden" }, "share"))))),
      h("tbody", {}, facts.layers.map((layer) => h("tr", {}, h("th", { scope: "row", class: "name-cell" }, layer.name || "(the model)"), h("td", {}, layer.type),
        h("td", { class: "n" }, count(layer.params)), h("td", { class: "share" }, bar(layer.params / most)),
        h("td", { class: "n" }, count(layer.macs)), h("td", { class: "share" }, bar(layer.macs / ops))))))));
}

function bar(share) {
  return s("svg", { viewBox: "0 0 100 8", preserveAspectRatio: "none", "aria-hidden": "true" },
    s("rect", { class: "bar", width: 100, height: 8 }), s("rect", { class: "bar-on", width: 100 * share, height: 8 }));
}

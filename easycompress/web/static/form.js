// Fields with their label, hint and error; and forms made from the JSON schema of a step's settings.

import { announce, capital, h } from "./dom.js";

let serial = 0;

/** A labelled field. `control` is an input or a select; its name says which error belongs to it. */
export function field(label, control, hint) {
  const id = `f${(serial += 1)}`;
  control.id = id;
  const described = [];
  const parts = [h("label", { class: "name", for: id }, label), control];
  if (hint) {
    parts.push(h("p", { class: "hint", id: `${id}h` }, hint));
    described.push(`${id}h`);
  }
  parts.push(h("p", { class: "wrong", id: `${id}e`, "data-wrong": control.name }));
  control.setAttribute("aria-describedby", [...described, `${id}e`].join(" "));
  control.addEventListener("input", () => clear(control));
  return h("div", { class: "field" }, parts);
}

export const text = (name, value, more) =>
  h("input", { type: "text", name, value: value ?? "", autocomplete: "off", spellcheck: "false", autocapitalize: "off", ...more });

export const select = (name, value, options) => {
  const made = h("select", { name }, options.map(([key, words]) => h("option", { value: key }, words)));
  made.value = value;
  return made;
};

/** A group of radio buttons: [value, words, note] each. */
export function choices(legend, name, value, options, changed) {
  const id = `f${(serial += 1)}`;
  return h("fieldset", { "aria-describedby": `${id}e` }, h("legend", {}, legend), h("div", { class: "choices" },
    options.map(([key, words, note]) => h("label", { class: "choice" },
      h("input", { type: "radio", name, value: key, checked: key === value, onchange: () => changed && changed(key) }),
      h("span", {}, words, note ? h("small", {}, ` ${note}`) : null)))),
  h("p", { class: "wrong", id: `${id}e`, "data-wrong": name }));
}

export const tick = (name, value, words) =>
  h("div", { class: "field" }, h("label", { class: "choice" }, h("input", { type: "checkbox", name, checked: Boolean(value) }), h("span", {}, words)),
    h("p", { class: "wrong", "data-wrong": name }));

function clear(control) {
  control.removeAttribute("aria-invalid");
  const line = document.getElementById(`${control.id}e`);
  if (line) line.textContent = "";
}

/** Show what is wrong at its fields, lead to the first of them, and return what has no field here. */
export function showWrong(form, refusal) {
  form.querySelectorAll("[data-wrong]").forEach((line) => (line.textContent = ""));
  form.querySelectorAll("[aria-invalid]").forEach((control) => control.removeAttribute("aria-invalid"));
  let first = null;
  const left = [];
  for (const [name, line] of Object.entries(refusal.fields)) {
    const all = [...form.querySelectorAll(`[data-wrong="${CSS.escape(name)}"]`)];
    const place = all.find((each) => !each.closest("[hidden]")) || all[0];
    if (!place) {
      left.push(`${name}: ${line}`);
      continue;
    }
    place.textContent = line;
    const named = [...form.querySelectorAll(`[name="${CSS.escape(name)}"]`)];
    named.forEach((control) => control.setAttribute("aria-invalid", "true"));
    for (let parent = place.closest("details"); parent; parent = parent.parentElement.closest("details")) parent.open = true;
    const beside = place.parentElement.querySelector("input, select");
    first = first || named.find((control) => control.offsetParent !== null) || beside;
  }
  if (first) first.focus();
  const lines = Object.keys(refusal.fields).length ? left : [refusal.message];
  if (!lines.length) announce("Some fields need another look.");
  return lines;
}

/** What a form's fields say. */
export function values(form) {
  const found = {};
  for (const control of form.elements) {
    if (!control.name || control.type === "file" || (control.type === "radio" && !control.checked)) continue;
    found[control.name] = control.type === "checkbox" ? control.checked : control.value.trim();
  }
  return found;
}

const WORDS = (name) => capital(name.replaceAll("_", " "));

/** A setting's schema without the part that says it may be left empty. */
function inner(schema) {
  if (!schema.anyOf) return [schema, false];
  return [schema.anyOf.find((each) => each.type !== "null"), schema.anyOf.some((each) => each.type === "null")];
}

function range(schema) {
  const low = schema.minimum ?? schema.exclusiveMinimum;
  const high = schema.maximum ?? schema.exclusiveMaximum;
  const least = low === undefined ? null : `${schema.minimum === undefined ? "more than" : "from"} ${low}`;
  const most = high === undefined ? null : `${schema.maximum === undefined ? "to below" : "to"} ${high}`;
  return [least, most].filter(Boolean).join(" ");
}

/** The fields of one step's settings; each name is `place.setting`, as the server names what is wrong. */
export function schemaFields(schema, settings, place) {
  return Object.entries(schema.properties).filter(([name]) => name !== "kind").map(([name, whole]) => {
    const [kind, empty] = inner(whole);
    const value = settings[name] ?? whole.default ?? null; // what is as usual may be left out
    const key = `${place}.${name}`;
    const list = kind.type === "array";
    const options = kind.type === "boolean" ? ["true", "false"] : kind.enum;
    let control;
    if (options) {
      const usual = empty ? [["", "chosen for you"]] : [];
      control = select(key, value === null ? "" : String(value), [...usual, ...options.map((each) =>
        [String(each), each === "true" ? "yes" : each === "false" ? "no" : String(each)])]);
    } else {
      control = text(key, list ? value.join(", ") : value === null ? "" : String(value),
        { placeholder: empty ? "chosen for you" : "", inputmode: list || kind.type === "string" ? null : "decimal" });
    }
    control.dataset.type = list ? "array" : kind.type;
    const usual = whole.default === null || whole.default === undefined ? null : `usually ${list ? whole.default.join(", ") || "none" : yes(whole.default)}`;
    const hint = [list ? "parted by commas" : null, options ? null : range(kind), usual].filter(Boolean).join("; ");
    return field(WORDS(name), control, hint);
  });
}

const yes = (value) => (value === true ? "yes" : value === false ? "no" : String(value));

/** The settings that the fields of one step say. What is no number stays text: the server says what is wrong. */
export function settingsOf(holder, place) {
  const found = {};
  holder.querySelectorAll(`[name^="${place}."]`).forEach((control) => {
    const name = control.name.slice(`${place}.`.length);
    found[name] = read(control.value.trim(), control.dataset.type);
  });
  return found;
}

function read(value, type) {
  if (type === "array") return value ? value.split(",").map((part) => part.trim()).filter(Boolean) : [];
  if (value === "") return null;
  if (type === "boolean") return value === "true";
  if ((type === "number" || type === "integer") && Number.isFinite(Number(value))) return Number(value);
  return value;
}

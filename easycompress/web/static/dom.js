// Elements, requests and numbers: what every part of the page uses.

const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "value" && "value" in node) node.value = value;
    else if (name === "checked") node.checked = value;
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/** An HTML element; text among the children stays text. */
export function h(tag, attributes, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** An SVG element. */
export function s(tag, attributes, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

/** Tell a screen reader something that others see. */
export function announce(text) {
  document.getElementById("status").textContent = text;
}

/** What the server refused: its one line, and a line for each wrong field. */
export class Refusal extends Error {
  constructor(line, fields) {
    super(line);
    this.fields = fields || {};
  }
}

export async function ask(path, given, method) {
  const options = { method: method || (given === undefined ? "GET" : "POST") };
  if (given !== undefined) {
    options.headers = { "content-type": "application/json" };
    options.body = JSON.stringify(given);
  }
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Refusal("The server can't be reached. Is easycompress serve still at work?");
  }
  const body = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Refusal(body.error || `The server answers ${answer.status}.`, body.fields);
  return body;
}

/** Send a file; `told` hears the share that went, from 0 to 1. */
export function send(file, told) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", `/api/uploads?name=${encodeURIComponent(file.name)}`);
    request.setRequestHeader("content-type", "application/octet-stream");
    request.upload.onprogress = (event) => event.lengthComputable && told(event.loaded / event.total);
    request.onerror = () => reject(new Refusal("The upload broke off. Is easycompress serve still at work?"));
    request.onload = () => {
      let body = {};
      try {
        body = JSON.parse(request.responseText);
      } catch {
        // a server that ended in between sends nothing
      }
      if (request.status === 201) resolve(body);
      else reject(new Refusal(body.error || `The server answers ${request.status}.`));
    };
    request.send(file);
  });
}

export const NONE = "–";

/** Significant digits, and more only before the point: 0.0580, 12.3, 1 234. */
export function number(value, digits = 3) {
  if (value === null || value === undefined || !Number.isFinite(value)) return NONE;
  const rounded = Number(value.toPrecision(digits));
  if (rounded === 0) return "0";
  if (Math.abs(rounded) < 1e-4) return value.toExponential(digits - 1);
  const decimals = Math.max(0, digits - 1 - Math.floor(Math.log10(Math.abs(rounded))));
  return grouped(value.toFixed(decimals));
}

function grouped(text) {
  const [whole, rest] = text.split(".");
  const spaced = whole.replace(/\B(?=(\d{3})+(?!\d))/g, "\u202f");
  return rest === undefined ? spaced : `${spaced}.${rest}`;
}

export const count = (value) => (Number.isFinite(value) ? grouped(Math.round(value).toString()) : NONE);

function scaled(value, units) {
  if (value === null || value === undefined || !Number.isFinite(value)) return NONE;
  let power = 0;
  while (Math.abs(Number(value.toPrecision(3))) >= 1000 && power < units.length - 1) {
    value /= 1000;
    power += 1;
  }
  return `${power === 0 && Number.isInteger(value) ? count(value) : number(value)}\u202f${units[power]}`;
}

export const bytes = (value) => scaled(value, ["B", "KB", "MB", "GB", "TB"]);
export const macs = (value) => scaled(value, ["MACs", "KMACs", "MMACs", "GMACs", "TMACs"]);
export const milliseconds = (value) => scaled(value, ["ms", "s"]);
export const energy = (value) => scaled(value, ["mJ", "J", "kJ"]);

/** A value of an objective in its unit. */
export function amount(value, objective) {
  return { size: bytes, latency: milliseconds, compute: macs, energy }[objective](value);
}

/** A ratio, rounded down as the report does: 9.996 is no 10. */
export function ratio(value) {
  if (!Number.isFinite(value) || value <= 0) return NONE;
  const decimals = Math.max(0, 2 - Math.floor(Math.log10(value)));
  const floored = Math.floor(value * 10 ** decimals * (1 + 1e-12)) / 10 ** decimals;
  return `${grouped(floored.toFixed(decimals))}×`;
}

export function quality(value, metric) {
  if (value === null || value === undefined || !Number.isFinite(value)) return NONE;
  return metric && metric.percent ? `${value.toFixed(2)}\u202f%` : number(value, 4);
}

/** A distance of two qualities; negative where the later one is better. */
export function points(value, metric) {
  if (value === null || value === undefined || !Number.isFinite(value)) return NONE;
  const text = metric && metric.percent ? Math.abs(value).toFixed(2) : number(Math.abs(value));
  return (value < 0 && Number(text) !== 0 ? "−" : "") + text;
}

export function seconds(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return NONE;
  if (value < 59.95) return value < 1 ? `${number(value, 2)}\u202fs` : `${value < 9.95 ? value.toFixed(1) : Math.round(value)}\u202fs`;
  const whole = Math.round(value);
  if (whole < 3600) return `${Math.floor(whole / 60)}\u202fmin ${String(whole % 60).padStart(2, "0")}\u202fs`;
  const minutes = Math.round(value / 60);
  return `${Math.floor(minutes / 60)}\u202fh ${String(minutes % 60).padStart(2, "0")}\u202fmin`;
}

export function when(epoch) {
  const date = new Date(epoch * 1000);
  const today = new Date().toDateString() === date.toDateString();
  const time = date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", hour12: false });
  return today ? `today, ${time}` : `${date.toLocaleDateString([], { day: "numeric", month: "short", year: "numeric" })}, ${time}`;
}

export const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);

/** Text as print wants it. */
export const typeset = (text) =>
  String(text).replace(/(\d)x\b/g, "$1×").replace(/ -> /g, " → ").replace(/(\d) (?=\d{3}(?!\d)|%|[KMG]?B\b|ms\b)/g, "$1\u202f");

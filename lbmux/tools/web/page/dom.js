// Small helpers: elements, requests, figures as text, and severities as symbols.

export const find = (id) => document.getElementById(id);
export const view = (name) => document.querySelector(`section[data-view=${name}]`);

export function made(name, text, kind) {
  const element = document.createElement(name);
  if (text !== undefined) element.textContent = text;
  if (kind) element.className = kind;
  return element;
}

export async function ask(path, given, options) {
  const query = given ? `?${new URLSearchParams(given)}` : "";
  const response = await fetch(path + query, options);
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error);
  return answer;
}

export function rate(value) {
  if (value === null || value === undefined) return "unknown";
  if (value >= 1e9) return `${(value / 1e9).toFixed(1)} G`;
  if (value >= 1e6) return `${(value / 1e6).toFixed(1)} M`;
  if (value >= 1e4) return `${(value / 1e3).toFixed(0)} k`;
  if (value >= 1e3) return `${(value / 1e3).toFixed(1)} k`;
  return value && value < 10 ? value.toFixed(1) : String(Math.round(value));
}

// A rate with its unit, such as 330/s, 1.2 k/s, 0 bit/s, 132 kbit/s.
export function withUnit(value, unit) {
  const shown = rate(value);
  if (shown === "unknown") return shown;
  return unit.startsWith("/") || !unit || shown.includes(" ") ? shown + unit : `${shown} ${unit}`;
}

// A sum over the muxes whose rates are known.
export function sum(value, pool, unit = "") {
  if (pool.unknown.length && pool.unknown.length === pool.muxes.length) return "unknown";
  return withUnit(value, unit) + (pool.unknown.length ? " + ?" : "");
}

export const counted = (number, one, many = `${one}s`) => `${number.toLocaleString("en")} ${number === 1 ? one : many}`;
export const clock = (seconds) => new Date(seconds * 1000).toTimeString().slice(0, 8);
export const address = (service) => {
  const vip = service.vip.includes(":") ? `[${service.vip}]` : service.vip;
  return `${vip}:${service.port || "any"}/${service.protocol}`;
};

// Each severity has a symbol and a name, so that nothing depends on colours.
const SYMBOLS = { good: "●", bad: "▲", unknown: "?", planned: "◆" };
export const SEVERITIES = { good: "up", bad: "bad", unknown: "unknown", planned: "planned" };
const PLANNED = ["draining", "disabled", "removed", "removing"];

export function symbol(severity) {
  const element = made("span", SYMBOLS[severity], `symbol ${severity}`);
  element.title = SEVERITIES[severity];
  return element;
}

export function severityOf(state) {
  if (state === "up") return "good";
  if (PLANNED.includes(state)) return "planned";
  return state === "down" ? "bad" : "unknown";
}

export function worst(backend) {
  if (!backend.reachable) return "bad";
  const all = backend.health.map((said) => severityOf(said.state));
  return ["bad", "unknown", "planned"].find((one) => all.includes(one)) ?? "good";
}

export const healthText = (backend) => [
  ...backend.health.map(({ state, reason, muxes }) =>
    `${state}: ${reason}${backend.health.length > 1 ? ` (${muxes.join(", ")})` : ""}`),
  ...(backend.reachable ? [] : ["no next hop"]),
].join("; ");

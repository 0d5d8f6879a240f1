// The page: it shows the events from /events, and fetches tables and explanations from /api.

import { tables } from "/scoreboard.js";
import { draw, rate, sum } from "/map.js";

const COLOURS = ["#4269d0", "#efb118", "#ff725c", "#6cc5b0", "#3ca951", "#ff8ab7", "#a463f2", "#97bbf5"];
const NO_BACKEND = 0xffff;
const find = (id) => document.getElementById(id);
let pool = null, shown = null, proposed = null, scoreboard = null;

function made(name, text, kind) {
  const element = document.createElement(name);
  if (text !== undefined) element.textContent = text;
  if (kind) element.className = kind;
  return element;
}

async function ask(path, options) {
  const response = await fetch(path, options);
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error);
  return answer;
}

const colour = (at) => COLOURS[at] ?? `hsl(${(at * 137.5) % 360} 55% 58%)`;

function cells(row, ...entries) {
  for (const [text, kind] of entries) row.append(text instanceof Node ? text : made("td", text, kind));
}

function table(titles) {
  const whole = made("table"), head = whole.createTHead().insertRow();
  for (const [title, kind] of titles) head.append(made("th", title, kind));
  return [whole, whole.createTBody()];
}

const KINDS = { up: "good", down: "bad" };

// A backend's health, with the muxes' names where they disagree.
function health(backend) {
  const cell = made("td", undefined, "health");
  const add = (text, kind, reason) => {
    const line = cell.appendChild(made("div"));
    line.append(made("span", text, kind), ...(reason ? [" ", made("small", reason)] : []));
  };
  for (const { state, reason, muxes } of backend.health)
    add(state, KINDS[state] ?? "warn", backend.health.length > 1 ? `${muxes.join(", ")}: ${reason}` : reason);
  if (!backend.reachable) add("no next hop", "bad");
  return cell;
}

function showServices() {
  const list = find("service-list");
  list.replaceChildren(...pool.services.map((service) => {
    const section = made("div", undefined, "service");
    section.append(made("h3", service.service));
    const port = service.port || "any", vip = service.vip.includes(":") ? `[${service.vip}]` : service.vip;
    section.append(made("span", `${vip}:${port}/${service.protocol}`, "where"));
    if (!service.agree) section.append(made("strong", "  muxes have different tables", "bad"));
    const [whole, body] = table([["backend"], ["DIP", "wide"], ["health"], ["weight", "number"], ["live flows", "number"],
      ["new flows/s", "number wide"], ["packets/s", "number"], ["", "wide share"]]);
    const most = Math.max(1, ...service.backends.map((backend) => backend.packets_per_s));
    for (const backend of service.backends) {
      const share = made("td", undefined, "wide share"), bar = made("div", undefined, "bar"), fill = made("i");
      fill.style.width = `${(100 * backend.packets_per_s) / most}%`;
      bar.append(fill);
      share.append(bar);
      cells(body.insertRow(), [backend.backend], [`${backend.dip} port ${backend.port}`, "wide code"], [health(backend)],
        [backend.weight, backend.weight ? "number" : "number warn"], [backend.live_flows, "number"], [sum(backend.new_flows_per_s, pool), "number wide"],
        [sum(backend.packets_per_s, pool), "number"], [share]);
    }
    const scroll = made("div", undefined, "scroll");
    scroll.append(whole);
    section.append(scroll);
    return section;
  }));
}

function options(select, names) {
  if ([...select.options].map((option) => option.value).join() === names.join()) return;
  const chosen = select.value;
  select.replaceChildren(...names.map((name) => new Option(name)));
  if (names.includes(chosen)) select.value = chosen;
}

function showPool() {
  const added = (lines, key) => lines.reduce((total, line) => total + (line[key] ?? 0), 0);
  const perSecond = (value) => sum(value, pool, "/s");
  const backends = pool.services.flatMap((service) => service.backends);
  const drops = pool.muxes.flatMap((mux) => Object.entries(mux.drops_per_s ?? {}).map(([name, value]) => [mux.name, name, value]));
  find("total-packets").textContent = perSecond(added(pool.muxes, "packets_per_s"));
  find("total-flows").textContent = perSecond(added(backends, "new_flows_per_s"));
  find("total-drops").textContent = perSecond(drops.reduce((total, [, , value]) => total + value, 0));
  draw(find("map"), pool);
  find("troubles").replaceChildren(
    ...pool.muxes.filter((mux) => mux.error).map((mux) => made("li", `${mux.name}: ${mux.error}; its rates are unknown`)),
    ...pool.sessions.filter((one) => !one.up && one.state).map((one) =>
      made("li", `${one.mux}: BGP session with ${one.router} is ${one.state}: ${one.reason || "no reason given"}`)),
    ...pool.out.map((one) => made("li", `${one.mux}: ${one.service}/${one.backend} is ${one.state}: ${one.reason}`)),
    ...drops.map(([mux, name, value]) => made("li", `${mux}: ${rate(value)}/s dropped, ${name}`)));
  showServices();
  options(find("explain-mux"), pool.muxes.map((mux) => mux.name));
  options(find("table-service"), pool.services.map((service) => service.service));
  // Redraw the table only when its digest changes.
  const service = pool.services.find((one) => one.service === find("table-service").value);
  const digest = service && `${service.service} ${service.digests[0]}`;
  if (proposed === null && digest && digest !== shown) showTable(service.service, digest);
}

const unpacked = (text) => new Uint16Array(Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer);

// One pixel per slot; with a proposed change, slots that stay are faint.
function paint(slots, changed) {
  const canvas = find("table"), columns = Math.max(1, Math.ceil(Math.sqrt(slots.length * 2.5)));
  canvas.width = columns;
  canvas.height = Math.max(1, Math.ceil(slots.length / columns));
  const context = canvas.getContext("2d", { willReadFrequently: true }), image = context.createImageData(canvas.width, canvas.height);
  const known = new Map();
  const colours = (at) => {
    if (!known.has(at)) {
      context.fillStyle = colour(at);
      context.fillRect(0, 0, 1, 1);
      known.set(at, context.getImageData(0, 0, 1, 1).data.slice());
    }
    return known.get(at);
  };
  slots.forEach((name, at) => {
    if (name === NO_BACKEND) return;
    image.data.set(colours(name), at * 4);
    if (changed && !changed[at]) image.data[at * 4 + 3] = 34;
  });
  context.putImageData(image, 0, 0);
}

function legend(names, texts) {
  find("legend").replaceChildren(...names.map((name, at) => {
    const line = made("li"), swatch = made("i");
    swatch.style.background = colour(at);
    line.append(swatch, `${name} ${texts[at]}`);
    return line;
  }));
}

const percent = (share) => `${(share * 100).toFixed(share < 0.1 ? 2 : 1)} %`;

async function showTable(service, digest) {
  shown = digest;
  try {
    const answer = await ask(`/api/table?service=${encodeURIComponent(service)}`), slots = unpacked(answer.slots);
    const counts = answer.names.map(() => 0);
    for (const name of slots) if (name !== NO_BACKEND) counts[name] += 1;
    paint(slots);
    legend(answer.names, counts.map((count) => percent(count / (slots.length || 1))));
    find("table-said").textContent = `${slots.length} slots, one pixel each`;
  } catch (error) {
    find("table-said").textContent = error.message;
  }
}

// Only for the chosen service: all tables together would be large.
async function showProposal() {
  const said = find("proposal-error"), service = find("table-service").value;
  said.hidden = true;
  try {
    const { services } = await ask(`/api/proposal?service=${encodeURIComponent(service)}`, { method: "POST", body: proposed });
    if (services.length) showMove(services[0]);
    else find("table-said").textContent = "the proposed configuration has no such service";
  } catch (error) {
    said.textContent = error.message;
    said.hidden = false;
  }
}

function showMove(move) {
  paint(unpacked(move.slots), unpacked(move.changed));
  legend(move.names, move.shares.map(([old, fresh]) => `${percent(old)} → ${percent(fresh)}`));
  find("table-said").textContent = `${percent(move.moved)} of the slots would move (in full colour)`;
}

find("table-service").addEventListener("change", () => {
  if (proposed !== null) showProposal();
  else if (pool) showPool();
});
find("proposed-file").addEventListener("change", async (event) => {
  if (event.target.files.length) find("proposed").value = await event.target.files[0].text();
});
find("proposal-clear").addEventListener("click", () => {
  proposed = shown = null;
  if (pool) showPool();
});
find("proposal").addEventListener("submit", (event) => {
  event.preventDefault();
  proposed = find("proposed").value;
  showProposal();
});

find("question").addEventListener("submit", async (event) => {
  event.preventDefault();
  const said = find("explain-error"), asked = new URLSearchParams({ packet: find("packet").value, mux: find("explain-mux").value });
  said.hidden = true;
  try {
    const answer = await ask(`/api/explain?${asked}`);
    const steps = answer.steps.map(({ step, found }) => [step, found]);
    if (answer.hint) steps.push(["hint", answer.hint]);
    find("steps").replaceChildren(...steps.map(([step, found]) => {
      const line = made("li");
      const kind = step === "verdict" ? (answer.kind === "send" ? "good" : "bad") : undefined;
      line.append(made("b", step), made("span", found, kind));
      return line;
    }));
  } catch (error) {
    said.textContent = error.message;
    said.hidden = false;
  }
});

async function showScoreboard() {
  try {
    const { result } = await ask("/api/scoreboard");
    find("result").replaceChildren(...(result ? tables(result) : []));
  } catch (error) {
    find("result").replaceChildren(made("p", error.message, "error"));
  }
}

function follow() {
  const events = new EventSource("/events"), state = find("state");
  events.onmessage = (event) => {
    pool = JSON.parse(event.data);
    state.textContent = "live";
    state.className = "live";
    showPool();
    if (pool.scoreboard !== scoreboard) {
      scoreboard = pool.scoreboard;
      showScoreboard();
    }
  };
  events.onerror = () => {
    state.textContent = "not connected, retrying";
    state.className = "lost";
  };
}

new ResizeObserver(() => pool && draw(find("map"), pool)).observe(find("pool"));
follow();

// The page: it follows the events from /events, and shows the view that the address names (#/service/web).

import { ask, find, made, view } from "/dom.js";
import { showBackend, showMux } from "/details.js";
import { showMuxesToAsk } from "/explain.js";
import { listViews } from "/lists.js";
import { showTable } from "/maglev.js";
import { draw } from "/map.js";
import { showOverview } from "/overview.js";
import { tables } from "/scoreboard.js";
import { close } from "/search.js";

const KEPT_S = 900, MOST_EVENTS = 500;
let pool = null, map = null, scoreboard = null, points = [], events = [];

const lists = listViews(() => pool, () => events);
const VIEWS = {
  overview: () => showOverview(pool, points, events),
  ...lists,
  service: async (name) => {
    const service = await lists.service(name);
    find("maglev").hidden = !pool.can.explain;
    if (pool.can.explain) await showTable(service);
  },
  backend: (service, name) => showBackend(pool, service, name),
  mux: showMux,
  map: showMap,
  explain: () => showMuxesToAsk(pool.muxes.map((mux) => mux.name)),
  apply: () => {},
  scoreboard: () => {},
};

// The view's name and the names that it shows, from the part of the address behind #.
function current() {
  const [name, ...of] = location.hash.replace(/^#\/?/, "").split("/").map(decodeURIComponent);
  return name in VIEWS ? [name, ...of] : ["overview"];
}

async function show() {
  const [name, ...of] = current();
  for (const section of document.querySelectorAll("section[data-view]")) section.hidden = section.dataset.view !== name;
  for (const link of document.querySelectorAll("nav a")) {
    if ((link.hash.slice(2) || "overview") === name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (pool === null) return;
  try {
    await VIEWS[name](...of);
    view(name).querySelector(":scope > .error")?.remove();
  } catch (error) {
    const said = view(name).querySelector(":scope > .error") ?? view(name).appendChild(made("p", "", "error"));
    said.textContent = error.message;
  }
}

async function showMap() {
  const { pool: whole, size } = await ask("/api/map"), said = find("map-said");
  map = whole;
  said.hidden = map !== null;
  if (map) draw(find("map"), map);
  else {
    find("map").replaceChildren();
    said.textContent = `The map is for small pools; this one has ${size.muxes} muxes and ${size.hosts} hosts. The lists have all of them.`;
  }
}

async function showScoreboard() {
  find("scoreboard-link").hidden = scoreboard === null;
  try {
    const { result } = await ask("/api/scoreboard");
    find("result").replaceChildren(...(result ? tables(result) : []));
  } catch (error) {
    find("result").replaceChildren(made("p", error.message, "error"));
  }
}

// Adds what is new; after a reconnection all of the history comes again.
function remember(fresh) {
  const from = fresh.points[0]?.second ?? Infinity;
  points = [...points.filter((point) => point.second < from), ...fresh.points].slice(-KEPT_S);
  const known = new Set(events.map((event) => `${event.time} ${event.mux} ${event.text}`));
  events = [...events, ...fresh.events.filter((event) => !known.has(`${event.time} ${event.mux} ${event.text}`))].slice(-MOST_EVENTS);
}

function follow() {
  const stream = new EventSource("/events"), state = find("state");
  stream.onmessage = (event) => {
    pool = JSON.parse(event.data);
    remember(pool);
    find("apply-link").hidden = !pool.can.apply;
    find("explain-link").hidden = !pool.can.explain;
    find("visitor").hidden = !pool.visitor;
    find("visitor").querySelector("output").textContent = pool.visitor;
    state.textContent = "live";
    state.className = "live";
    show();
    if (pool.scoreboard !== scoreboard) {
      scoreboard = pool.scoreboard;
      showScoreboard();
    }
  };
  stream.onerror = () => {
    state.textContent = "not connected, retrying";
    state.className = "lost";
    if (stream.readyState === EventSource.CLOSED) setTimeout(() => location.reload(), 1000); // the session has ended
  };
}

window.addEventListener("hashchange", () => { close(); show(); });
new ResizeObserver(() => map && draw(find("map"), map)).observe(view("map"));
show();
follow();

// Draw the pool: VIPs, routers, muxes and hosts, in columns or, on a narrow page, in rows.

import { rate, sum } from "/dom.js";
import { layout, curve, after, before } from "/map_layout.js";

const SPACE = "http://www.w3.org/2000/svg";
const MOST_VIPS = 8;

function node(parent, name, attributes, text) {
  const made = parent.appendChild(document.createElementNS(SPACE, name));
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

const short = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);

function box(svg, place, lines, kind, tip) {
  const group = node(svg, "g", { class: kind }), most = Math.floor((place.width - 10) / 7.4);
  node(group, "title", {}, tip);
  node(group, "rect", { x: place.x, y: place.y, width: place.width, height: place.height, rx: 9 });
  const top = place.y + place.height / 2 - (lines.length - 1) * 9 + 4.5;
  lines.forEach((line, at) => node(group, "text",
    { x: place.x + place.width / 2, y: top + at * 18, "text-anchor": "middle", class: at ? "small" : "" }, short(line, most)));
}

const breadth = (packets) => (packets ? Math.min(8, 1.5 + Math.log10(1 + packets)) : 1.5);

// An edge.  If its own rate is unknown, it shows only whether there is traffic.
function edge(svg, down, [from, fromName], [to, toName], { cut, packets, known = true, said = rate(packets) }) {
  const kind = cut ? "edge cut" : packets ? "edge busy" : "edge", figure = known && !cut;
  const path = node(svg, "path", {
    d: curve(from, to, down), class: kind, "stroke-width": breadth(figure ? packets : 0),
    "data-from": fromName, "data-to": toName });
  node(path, "title", {}, `${fromName} → ${toName}${figure ? `: ${said} packets per second` : ""}`);
}

function label(svg, pool, down, point, packets, of, leaving) {
  const unit = down ? "" : "/s", one = packets === null ? "unknown" : `${rate(packets)}${unit}`;
  const x = down ? 0 : leaving ? 8 : -8, y = down ? (leaving ? 15 : -6) : leaving ? -5 : 4;
  node(svg, "text", {
    x: point.x + x, y: point.y + y, "text-anchor": down ? "middle" : leaving ? "start" : "end", "data-of": of,
    class: packets ? "rate" : "rate idle" }, leaving ? sum(packets, pool, unit) : one);
}

// The busiest VIPs, and one box for all others.
function folded(vips) {
  if (vips.length <= MOST_VIPS) return vips;
  const busiest = [...vips].sort((one, other) => other.packets_per_s - one.packets_per_s);
  const others = busiest.splice(MOST_VIPS - 1);
  const packets = others.reduce((sum, one) => sum + one.packets_per_s, 0);
  const routers = [...new Set(others.flatMap((one) => one.routers))];
  return [...busiest, { vip: `${others.length} more VIPs`, services: [], routers, packets_per_s: packets }];
}

function hostsOf(pool) {
  const hosts = new Map();
  for (const service of pool.services)
    for (const backend of service.backends) {
      if (!hosts.has(backend.host)) hosts.set(backend.host, { host: backend.host, backends: new Set(), states: new Set() });
      hosts.get(backend.host).backends.add(backend.backend);
      for (const said of backend.health) hosts.get(backend.host).states.add(said.state);
    }
  return [...hosts.values()];
}

function drawVips(svg, pool, vips, at, down) {
  vips.forEach((vip, v) => {
    const announced = pool.routers.filter((router) => vip.routers.includes(router));
    (announced.length ? announced : pool.routers).forEach((router) => edge(svg, down,
      [after(at.vips[v], down), vip.vip], [before(at.routers[pool.routers.indexOf(router)], down, 0, 1), router],
      { cut: !announced.length, packets: vip.packets_per_s, known: announced.length === 1, said: sum(vip.packets_per_s, pool) }));
  });
  return vips.map((vip, v) => [after(at.vips[v], down), vip.packets_per_s, vip.vip, true]);
}

function drawMuxes(svg, pool, at, down) {
  return pool.muxes.map((mux, m) => {
    const entry = before(at.muxes[m], down, 0, 1), sessions = pool.sessions.filter((one) => one.mux === mux.name);
    const up = sessions.filter((one) => one.up).length, packets = mux.packets_per_s;
    for (const session of sessions)
      edge(svg, down, [after(at.routers[pool.routers.indexOf(session.router)], down), session.router], [entry, mux.name],
        { cut: !session.up, packets, known: up === 1 });
    return [entry, packets, mux.name, false];
  });
}

function drawHosts(svg, pool, hosts, at, down) {
  return pool.edges.map((one) => {
    const m = pool.muxes.findIndex((mux) => mux.name === one.mux), h = hosts.findIndex((host) => host.host === one.host);
    if (m < 0 || h < 0) return null;
    const end = before(at.hosts[h], down, m, pool.muxes.length), packets = one.packets_per_s;
    edge(svg, down, [after(at.muxes[m], down), one.mux], [end, one.host], { cut: !one.reachable || !one.serves, packets });
    return one.serves ? [end, packets, `${one.mux} ${one.host}`, false] : null;
  }).filter(Boolean);
}

function drawBoxes(svg, pool, vips, hosts, at) {
  vips.forEach((vip, v) => box(svg, at.vips[v], [vip.vip, vip.services.join(", ")].filter(Boolean),
    vip.routers.length ? "vip" : "vip bad", `${vip.vip}: ${vip.services.join(", ")}`));
  pool.routers.forEach((router, r) => {
    const own = pool.sessions.filter((one) => one.router === router), up = own.filter((one) => one.up).length;
    const isPlain = router === "router", lines = isPlain ? [router] : [router, `BGP: ${up} of ${own.length} up`];
    box(svg, at.routers[r], lines, isPlain || up ? "router" : "router bad", isPlain ? "unknown: no mux has a BGP session" : lines.join(", "));
  });
  pool.muxes.forEach((mux, m) => {
    const lines = mux.error ? [mux.name, "does not answer"] : [mux.name, mux.addresses[0], `${rate(mux.flows)} ${mux.flows === 1 ? "flow" : "flows"}`];
    box(svg, at.muxes[m], lines, mux.error ? "mux bad" : "mux", mux.error || `${mux.addresses.join(", ")}, ${mux.driver}`);
  });
  hosts.forEach((host, h) => {
    const edges = pool.edges.filter((one) => one.host === host.host), names = [...host.backends].join(", ");
    const cut = edges.some((one) => !one.reachable), out = edges.every((one) => !one.serves);
    const second = cut ? "no next hop" : out ? `${names}: ${[...host.states].join(", ")}` : names;
    box(svg, at.hosts[h], [host.host, second], cut || out ? "host bad" : "host", `${host.host}: ${names}`);
  });
}

export function draw(svg, pool) {
  const width = svg.clientWidth;
  if (!width) return;
  const vips = folded(pool.vips), hosts = hostsOf(pool);
  const at = layout(width, { vips, routers: pool.routers, muxes: pool.muxes, hosts }), down = at.down;
  svg.replaceChildren();
  svg.setAttribute("viewBox", `0 0 ${width} ${at.height}`);
  svg.setAttribute("height", at.height);
  const labels = [...drawVips(svg, pool, vips, at, down), ...drawMuxes(svg, pool, at, down), ...drawHosts(svg, pool, hosts, at, down)];
  for (const line of labels) label(svg, pool, down, ...line);
  drawBoxes(svg, pool, vips, hosts, at);
}

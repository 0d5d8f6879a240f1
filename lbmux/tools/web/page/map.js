// The pool drawn: client and router, muxes, hosts; across where there is room, else downwards.

const SPACE = "http://www.w3.org/2000/svg";
const NARROW = 720, MUX = { width: 168, height: 62 }, MUX_GAP = 28, HOST_GAP = 20, PORT = 17;

export function rate(value) {
  if (value >= 1e6) return `${(value / 1e6).toFixed(1)} M`;
  if (value >= 1e4) return `${(value / 1e3).toFixed(0)} k`;
  if (value >= 1e3) return `${(value / 1e3).toFixed(1)} k`;
  return value && value < 10 ? value.toFixed(1) : String(Math.round(value));
}

function node(parent, name, attributes, text) {
  const made = parent.appendChild(document.createElementNS(SPACE, name));
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

function box(svg, place, lines, kind, tip) {
  const group = node(svg, "g", { class: kind });
  node(group, "title", {}, tip);
  node(group, "rect", { x: place.x, y: place.y, width: place.width, height: place.height, rx: 9 });
  const top = place.y + place.height / 2 - (lines.length - 1) * 9 + 4.5;
  lines.forEach((line, at) => node(group, "text",
    { x: place.x + place.width / 2, y: top + at * 18, "text-anchor": "middle", class: at ? "small" : "" }, line));
}

function curve(svg, from, to, down, kind, width) {
  const middle = down ? (from.y + to.y) / 2 : (from.x + to.x) / 2;
  const bends = down ? `${from.x} ${middle} ${to.x} ${middle}` : `${middle} ${from.y} ${middle} ${to.y}`;
  node(svg, "path", { d: `M${from.x} ${from.y} C${bends} ${to.x} ${to.y}`, class: kind, "stroke-width": width });
}

const breadth = (packets) => (packets ? Math.min(8, 1.5 + Math.log10(1 + packets)) : 1.5);
const short = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);

function hostsOf(pool) {
  const hosts = new Map();
  for (const service of pool.services)
    for (const backend of service.backends) {
      if (!hosts.has(backend.host)) hosts.set(backend.host, new Set());
      hosts.get(backend.host).add(backend.backend);
    }
  return [...hosts].map(([host, backends]) => ({ host, backends: [...backends] }));
}

// Where everything stands: across, columns that are centred on one another; downwards, rows.
function places(width, muxes, hosts) {
  const down = width < NARROW;
  if (down) {
    const columns = Math.min(hosts.length || 1, 3), gap = 8;
    const hostWidth = (width - gap * (columns - 1)) / columns, hostHeight = 60;
    const muxWidth = Math.min(MUX.width, (width - 12 * (muxes.length - 1)) / (muxes.length || 1));
    const start = (width - muxes.length * muxWidth - (muxes.length - 1) * 12) / 2;
    const rows = Math.ceil(hosts.length / columns);
    return {
      down, height: 240 + rows * (hostHeight + 40) - 38,
      router: { x: width / 2 - 75, y: 2, width: 150, height: 50 },
      muxes: muxes.map((_, at) => ({ x: start + at * (muxWidth + 12), y: 116, width: muxWidth, height: MUX.height })),
      hosts: hosts.map((_, at) => ({
        x: (at % columns) * (hostWidth + gap), y: 240 + Math.floor(at / columns) * (hostHeight + 40),
        width: hostWidth, height: hostHeight,
      })),
    };
  }
  const hostHeight = Math.max(58, PORT * (muxes.length + 1)), hostWidth = Math.min(250, width * 0.24);
  const hostTotal = hosts.length * (hostHeight + HOST_GAP) - HOST_GAP;
  const muxTotal = muxes.length * (MUX.height + MUX_GAP) - MUX_GAP;
  const height = Math.max(hostTotal, muxTotal, 70) + 4;
  return {
    down, height,
    router: { x: 1, y: height / 2 - 28, width: 150, height: 56 },
    muxes: muxes.map((_, at) => ({
      x: width * 0.46 - MUX.width / 2, y: (height - muxTotal) / 2 + at * (MUX.height + MUX_GAP), ...MUX })),
    hosts: hosts.map((_, at) => ({
      x: width - hostWidth - 1, y: (height - hostTotal) / 2 + at * (hostHeight + HOST_GAP),
      width: hostWidth, height: hostHeight })),
  };
}

const after = (place, down) => (down
  ? { x: place.x + place.width / 2, y: place.y + place.height } : { x: place.x + place.width, y: place.y + place.height / 2 });
// The place of the at-th of so many edges that come in: each has its own, so that their figures stand apart.
const before = (place, down, at, many) => (down
  ? { x: place.x + (place.width * (at + 0.5)) / many, y: place.y }
  : { x: place.x, y: place.y + place.height / 2 + (at - (many - 1) / 2) * PORT });

export function draw(svg, pool) {
  const hosts = hostsOf(pool), width = svg.clientWidth;
  if (!width) return;
  const at = places(width, pool.muxes, hosts), down = at.down;
  svg.replaceChildren();
  svg.setAttribute("viewBox", `0 0 ${width} ${at.height}`);
  svg.setAttribute("height", at.height);
  const label = (point, packets, where) => node(svg, "text", {
    x: point.x + (down ? 0 : -8), y: point.y + (down ? -6 : 4), "text-anchor": down ? "middle" : "end",
    class: packets ? "rate" : "rate idle" }, down ? rate(packets) : `${rate(packets)}/s`);
  const labels = [];
  pool.muxes.forEach((mux, m) => {
    const packets = mux.packets_per_s ?? 0, entry = before(at.muxes[m], down, 0, 1);
    curve(svg, after(at.router, down), entry, down, mux.error ? "cut" : packets ? "busy" : "", breadth(packets));
    labels.push([entry, packets]);
    hosts.forEach((host, h) => {
      const edge = pool.edges.find((one) => one.mux === mux.name && one.host === host.host);
      if (!edge) return;
      const end = before(at.hosts[h], down, m, pool.muxes.length), busy = edge.packets_per_s;
      const kind = edge.reachable ? (busy ? "busy" : "") : "cut";
      curve(svg, after(at.muxes[m], down), end, down, kind, breadth(busy));
      labels.push([end, busy]);
    });
  });
  for (const [point, packets] of labels) label(point, packets);
  const vips = [...new Set(pool.services.map((service) => service.vip))];
  box(svg, at.router, ["router", vips.length === 1 ? vips[0] : `${vips.length} VIPs`], "router", `VIPs: ${vips.join(", ")}`);
  pool.muxes.forEach((mux, m) => {
    const lines = mux.error ? [mux.name, "does not answer"] : [mux.name, short(mux.addresses[0], 22), `${rate(mux.flows)} flows`];
    box(svg, at.muxes[m], lines, mux.error ? "mux bad" : "mux", mux.error || `${mux.addresses.join(", ")}, ${mux.driver}`);
  });
  hosts.forEach((host, h) => {
    const edges = pool.edges.filter((one) => one.host === host.host), cut = edges.some((one) => !one.reachable);
    const most = Math.floor(at.hosts[h].width / 8);
    const names = short(host.backends.join(", "), most);
    box(svg, at.hosts[h], [short(host.host, most), cut ? "no next hop" : names], cut ? "bad" : "", `${host.host}: ${host.backends.join(", ")}`);
  });
}

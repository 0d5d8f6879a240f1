// The views that are lists: services, hosts, backends of either, problems, events.

import { address, ask, clock, counted, healthText, made, rate, sum, symbol, view, worst } from "/dom.js";
import { VirtualRows } from "/virtual_rows.js";

const part = (...names) => `#/${names.map(encodeURIComponent).join("/")}`;
const state = (severity, text) => {
  const cell = made("span");
  cell.append(symbol(severity), ` ${text}`);
  return cell;
};

// A list with a filter; `names` of a line are searched, `isProblem` lines stay with the box ticked.
class List {
  constructor(name, columns, { link, names, isProblem, one }) {
    this.section = view(name);
    Object.assign(this, { names, isProblem, one, lines: [] });
    this.rows = new VirtualRows(this.section.querySelector(".rows"), columns, link);
    this.filter = this.section.querySelector(".filter");
    this.only = this.section.querySelector(".only-problems");
    for (const input of [this.filter, this.only]) input.addEventListener("input", () => this.draw());
  }

  show(lines, note = "") {
    this.lines = lines;
    this.note = note;
    this.draw();
  }

  draw() {
    const text = this.filter.value.trim().toLowerCase();
    const shown = this.lines.filter((line) => (!this.only.checked || this.isProblem(line))
      && (!text || this.names(line).some((name) => name.toLowerCase().includes(text))));
    this.rows.show(shown);
    const of = shown.length < this.lines.length ? `${shown.length.toLocaleString("en")} of ` : "";
    this.section.querySelector("output").textContent = `${of}${counted(this.lines.length, this.one)}${this.note}`;
  }
}

const age = ({ age_s: seconds }) => (seconds > 3 ? `, read ${Math.round(seconds)} s ago` : "");
const figures = (pool) => [
  ["live flows", "minmax(60px, 1fr)", (line) => line.live_flows.toLocaleString("en"), "number wide"],
  ["new flows/s", "minmax(60px, 1fr)", (line) => (line.new_flows_per_s === undefined ? "" : sum(line.new_flows_per_s, pool())), "number wide"],
  ["packets/s", "minmax(70px, 1fr)", (line) => sum(line.packets_per_s, pool()), "number"],
];

function makeLists(pool) {
  const backend = (title, link) => [
    [title, "minmax(90px, 2fr)", link],
    ["DIP", "minmax(90px, 2fr)", (line) => `${line.dip} port ${line.port}`, "code wide"],
    ["state", "minmax(110px, 4fr)", (line) => state(worst(line), healthText(line)), "health"],
    ["weight", "60px", (line) => String(line.weight), "number"],
    ...figures(pool),
  ];
  const isBad = (line) => ["bad", "unknown"].includes(line.severity ?? worst(line));
  return {
    services: new List("services", [
      ["service", "minmax(110px, 3fr)", (line) => state(line.severity, line.service)],
      ["VIP", "minmax(110px, 3fr)", address, "code wide"],
      ["up", "minmax(60px, 1fr)", (line) => `${line.up} of ${line.of}`, "number"], ...figures(pool),
    ], { link: (line) => part("service", line.service), names: (line) => [line.service, line.vip], isProblem: isBad, one: "service" }),
    hosts: new List("hosts", [
      ["host", "minmax(110px, 3fr)", (line) => state(line.severity, line.host)],
      ["backends up", "minmax(80px, 1fr)", (line) => `${line.up} of ${line.of}`, "number"],
      ["live flows", "minmax(60px, 1fr)", (line) => line.live_flows.toLocaleString("en"), "number wide"],
      ["packets/s", "minmax(70px, 1fr)", (line) => sum(line.packets_per_s, pool()), "number"],
    ], { link: (line) => part("host", line.host), names: (line) => [line.host], isProblem: isBad, one: "host" }),
    service: new List("service", backend("backend", (line) => line.backend),
      { link: (line) => part("backend", line.service, line.backend), names: (line) => [line.backend, line.dip], isProblem: isBad, one: "backend" }),
    host: new List("host", backend("service/backend", (line) => `${line.service}/${line.backend}`),
      { link: (line) => part("backend", line.service, line.backend), names: (line) => [line.service, line.backend], isProblem: isBad, one: "backend" }),
    problems: new List("problems", [
      ["what", "minmax(120px, 2fr)", (line) => state(line.severity, line.what)],
      ["", "minmax(160px, 5fr)", (line) => line.text],
    ], { link: (line) => line.at, names: (line) => [line.what, line.text], isProblem: (line) => line.severity !== "planned", one: "line" }),
    events: new List("events", [
      ["time", "80px", (line) => clock(line.time)], ["mux", "minmax(60px, 1fr)", (line) => line.mux],
      ["", "minmax(180px, 8fr)", (line) => state(line.level === "info" ? "good" : "bad", line.text)],
    ], { names: (line) => [line.mux, line.text], isProblem: (line) => line.level !== "info", one: "line" }),
  };
}

let lists = null;
const list = (name, pool) => (lists ??= makeLists(pool))[name];

export const listViews = (pool, events) => ({
  services: async () => {
    const answer = await ask("/api/services");
    list("services", pool).show(answer.services, age(answer));
  },
  hosts: async () => {
    const answer = await ask("/api/hosts");
    list("hosts", pool).show(answer.hosts, age(answer));
  },
  problems: async () => {
    const answer = await ask("/api/problems");
    list("problems", pool).show(answer.problems, age(answer));
  },
  events: () => list("events", pool).show([...events()].reverse()),
  host: async (name) => {
    const answer = await ask("/api/host", { name });
    view("host").querySelector("h2").textContent = `Host ${name}`;
    list("host", pool).show(answer.backends, age(answer));
  },
  service: async (name) => {
    const answer = await ask("/api/service", { name }), { service } = answer;
    view("service").querySelector("h2").textContent = service.service;
    const where = view("service").querySelector(".where");
    where.replaceChildren(address(service), ...(service.agree ? [] : [made("strong", " muxes have different tables", "bad")]));
    list("service", pool).show(service.backends.map((line) => ({ ...line, service: name })), age(answer));
    return service;
  },
});

// The overview: totals, 15 minutes of history, muxes, the busiest services, and what needs attention.

import { address, counted, find, made, rate, sum, symbol, SEVERITIES } from "/dom.js";
import { trafficPlots } from "/plot.js";

const MOST_TILES = 12, MOST_PROBLEMS = 8;
let plots = null;

export function showOverview(pool, points, events) {
  const total = (key) => pool.muxes.reduce((all, mux) => all + (mux[key] ?? 0), 0);
  find("total-packets").textContent = sum(total("packets_per_s"), pool, "/s");
  find("total-bits").textContent = sum(total("bytes_per_s") * 8, pool, "bit/s");
  find("total-flows").textContent = sum(total("new_flows_per_s"), pool, "/s");
  find("total-drops").textContent = sum(total("drops_per_s"), pool, "/s");
  find("counts").textContent = pool.counts ? countsText(pool) : "Reading services and backends…";
  plots ??= trafficPlots(find("plots"));
  for (const plot of plots) plot.show(points, events);
  showMuxes(pool);
  showBusiest(pool);
  showProblems(pool);
}

function countsText({ counts }) {
  const states = Object.entries(counts.severities).map(([severity, number]) => `${number.toLocaleString("en")} ${SEVERITIES[severity]}`);
  const hosts = `${counted(counts.backends, "backend")} on ${counted(counts.hosts, "host")}`;
  return `${counted(counts.services, "service")}, ${hosts}: ${states.join(", ")}`;
}

function tile(mux, sessions) {
  const made_ = made("a", undefined, mux.error ? "tile bad" : "tile"), own = sessions.filter((one) => one.mux === mux.name && one.state);
  made_.href = `#/mux/${encodeURIComponent(mux.name)}`;
  const up = own.filter((one) => one.up).length, isBad = mux.error || up < own.length;
  const name = made("b");
  name.append(symbol(isBad ? "bad" : mux.packets_per_s === null ? "unknown" : "good"), ` ${mux.name}`);
  const bgp = own.length ? `, BGP ${up}/${own.length}` : "";
  made_.append(name, made("span", `${rate(mux.packets_per_s)}${mux.packets_per_s === null ? "" : "/s"}`),
    made("small", mux.error ? "does not answer" : `${counted(mux.flows, "flow")}${bgp}`));
  return made_;
}

function showMuxes(pool) {
  const ordered = [...pool.muxes].sort((one, other) => Boolean(other.error) - Boolean(one.error));
  const tiles = ordered.slice(0, MOST_TILES).map((mux) => tile(mux, pool.sessions));
  const more = ordered.length - tiles.length;
  find("muxes").replaceChildren(...tiles, ...(more > 0 ? [made("span", `and ${more} more without a fault`, "note")] : []));
}

function showBusiest(pool) {
  find("busiest").replaceChildren(...pool.busiest.map((service) => {
    const line = made("li"), link = made("a", service.service);
    link.href = `#/service/${encodeURIComponent(service.service)}`;
    line.append(symbol(service.severity), " ", link, made("small", ` ${address(service)}`), made("b", `${rate(service.packets_per_s)}/s`));
    return line;
  }));
}

export function problemLine({ severity, what, text, at }) {
  const line = made("li"), link = made("a", what);
  link.href = at;
  line.append(symbol(severity), " ", link, ` ${text}`);
  return line;
}

function showProblems(pool) {
  const counts = Object.entries(pool.problem_counts), all = counts.reduce((total, [, number]) => total + number, 0);
  find("problem-counts").textContent = counts.map(([severity, number]) => `${number} ${SEVERITIES[severity]}`).join(", ");
  const shown = pool.problems.slice(0, MOST_PROBLEMS).map(problemLine);
  if (all > shown.length) {
    const line = made("li"), link = made("a", `${counted(all - shown.length, "more line")}`);
    link.href = "#/problems";
    line.append(link);
    shown.push(line);
  }
  find("troubles").replaceChildren(...(shown.length ? shown : [made("li", "Nothing needs attention.", "note")]));
}

// The views of one backend and of one mux.

import { showOverride } from "/actions.js";
import { ask, counted, made, rate, severityOf, sum, view } from "/dom.js";
import { problemLine } from "/overview.js";
import { trafficPlots } from "/plot.js";

function facts(section, entries) {
  section.querySelector(".facts").replaceChildren(...entries.flatMap(([name, value]) => {
    const entry = made("div");
    entry.append(made("dt", name), value instanceof Node ? value : made("dd", value));
    return [entry];
  }));
}

function linked(text, at) {
  const cell = made("dd"), link = made("a", text);
  link.href = at;
  cell.append(link);
  return cell;
}

export async function showBackend(pool, service, name) {
  showOverride(pool.can.override, service, name);
  const section = view("backend"), answer = await ask("/api/service", { name: service });
  const backend = answer.service.backends.find((one) => one.backend === name);
  section.querySelector("h2").textContent = `${service}/${name}`;
  if (!backend) throw new Error(`service ${service} has no backend ${name} any more`);
  facts(section, [
    ["service", linked(service, `#/service/${encodeURIComponent(service)}`)], ["DIP", `${backend.dip} port ${backend.port}`],
    ["host", linked(backend.host, `#/host/${encodeURIComponent(backend.host)}`)], ["weight", String(backend.weight)],
    ["live flows", backend.live_flows.toLocaleString("en")], ["new flows", sum(backend.new_flows_per_s, pool, "/s")],
    ["packets", sum(backend.packets_per_s, pool, "/s")], ["bits", sum(backend.bytes_per_s * 8, pool, "bit/s")],
  ]);
  section.querySelector(".problems").replaceChildren(
    ...backend.health.map(({ state, reason, muxes }) => problemLine({
      severity: severityOf(state), what: muxes.join(", "), text: `${state}: ${reason}`, at: `#/mux/${encodeURIComponent(muxes[0])}` })),
    ...(backend.reachable ? [] : [made("li", "▲ a mux has no next hop to its host", "bad")]));
}

let plots = null;

export async function showMux(name) {
  const section = view("mux"), { mux, points, events } = await ask("/api/mux", { name });
  section.querySelector("h2").textContent = name;
  facts(section, mux.error ? [["state", mux.error], ["socket", mux.socket]] : [
    ["addresses", mux.addresses.join(", ")], ["driver", mux.driver], ["up for", counted(Math.round(mux.uptime_s), "second")],
    ["flow entries", `${mux.flows.toLocaleString("en")} of ${mux.flow_rows.toLocaleString("en")}`],
    ["packets", `${rate(mux.packets_per_s)}/s`], ["dropped", `${rate(mux.drops_per_s)}/s`], ["socket", mux.socket],
  ]);
  plots ??= trafficPlots(section.querySelector(".plots"));
  for (const plot of plots) plot.show(points, events);
  section.querySelector(".problems").replaceChildren(...mux.sessions.filter((one) => one.state).map((one) => problemLine({
    severity: one.up ? "good" : "bad", what: `BGP ${one.router}`, text: one.up ? one.state : `${one.state}: ${one.reason || "no reason given"}`,
    at: `#/mux/${encodeURIComponent(name)}` })));
}

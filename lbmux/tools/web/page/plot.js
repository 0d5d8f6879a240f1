// A plot over the last 15 minutes: lines that end where nothing is known, and marks where the muxes logged something.

import { clock, made, rate, withUnit } from "/dom.js";

const SPAN_S = 900, LEFT = 46, BOTTOM = 20, TOP = 8, RIGHT = 6, TICK_S = 300;
const DASHES = [[], [6, 3], [2, 2], [8, 2, 2, 2]];

function niceTop(most) {
  if (!most) return 1;
  const power = 10 ** Math.floor(Math.log10(most));
  return [1, 2, 5, 10].map((one) => one * power).find((one) => one >= most);
}

export class Plot {
  // `series`: from the points to [[name, function from a point to a value]].
  constructor(parent, title, unit, series) {
    Object.assign(this, { title, unit, series, at: null });
    const figure = parent.appendChild(made("figure"));
    this.caption = figure.appendChild(made("figcaption"));
    this.canvas = figure.appendChild(made("canvas"));
    this.canvas.setAttribute("role", "img");
    this.canvas.addEventListener("mousemove", (event) => { this.at = event.offsetX; this.draw(); });
    this.canvas.addEventListener("mouseleave", () => { this.at = null; this.draw(); });
    new ResizeObserver(() => this.draw()).observe(this.canvas);
  }

  show(points, events) {
    this.points = points;
    this.events = events;
    this.draw();
  }

  draw() {
    if (!this.points || !this.canvas.clientWidth) return;
    const { canvas } = this, scale = devicePixelRatio, width = canvas.clientWidth, height = canvas.clientHeight;
    canvas.width = width * scale;
    canvas.height = height * scale;
    const pen = canvas.getContext("2d"), style = getComputedStyle(canvas);
    pen.scale(scale, scale);
    pen.font = "11px system-ui, sans-serif";
    const colour = (name) => style.getPropertyValue(`--${name}`);
    const end = this.points.length ? this.points.at(-1).second : Math.floor(Date.now() / 1000), begin = end - SPAN_S;
    const lines = this.series(this.points), values = lines.map(([, of]) => this.points.map(of));
    const top = niceTop(Math.max(0, ...values.map((one) => one.reduce((most, value) => Math.max(most, value), 0))));
    const x = (second) => LEFT + ((second - begin) / SPAN_S) * (width - LEFT - RIGHT);
    const y = (value) => TOP + (1 - value / top) * (height - TOP - BOTTOM);
    this.axes(pen, colour, { begin, end, top, width, height, x, y });
    this.marks(pen, colour, { begin, height, x });
    lines.forEach((_, at) => this.line(pen, colour(at ? `series-${at}` : "accent"), DASHES[at % DASHES.length], values[at], x, y));
    this.say(lines, values, begin, end, width);
  }

  axes(pen, colour, { begin, end, top, width, height, x, y }) {
    pen.strokeStyle = colour("line");
    pen.fillStyle = colour("muted");
    pen.textAlign = "right";
    for (const value of [0, top / 2, top]) {
      pen.beginPath();
      pen.moveTo(LEFT, y(value));
      pen.lineTo(width - RIGHT, y(value));
      pen.stroke();
      pen.fillText(rate(value), LEFT - 5, y(value) + 4);
    }
    pen.textAlign = "center";
    for (let second = Math.ceil(begin / TICK_S) * TICK_S; second <= end; second += TICK_S)
      if (x(second) > LEFT + 16 && x(second) < width - 20) pen.fillText(clock(second).slice(0, 5), x(second), height - 5);
  }

  marks(pen, colour, { begin, height, x }) {
    for (const { time, level } of this.events) {
      if (time < begin) continue;
      const at = x(time), isBad = level !== "info";
      pen.fillStyle = colour(isBad ? "bad" : "planned");
      pen.beginPath();
      pen.moveTo(at, height - BOTTOM);
      pen.lineTo(at - 4, height - BOTTOM + 6);
      pen.lineTo(at + 4, height - BOTTOM + 6);
      pen.fill();
      if (isBad) pen.fillRect(at - 0.5, TOP, 1, height - TOP - BOTTOM);
    }
  }

  line(pen, colour, dash, values, x, y) {
    pen.strokeStyle = colour;
    pen.lineWidth = 1.5;
    pen.setLineDash(dash);
    pen.beginPath();
    let before = null;
    this.points.forEach(({ second }, at) => {
      if (before === second - 1) pen.lineTo(x(second), y(values[at]));
      else pen.moveTo(x(second), y(values[at]));
      before = second;
    });
    pen.stroke();
    pen.setLineDash([]);
    pen.lineWidth = 1;
  }

  // The caption has the latest figures, or those under the pointer with what was logged then.
  say(lines, values, begin, end, width) {
    let at = this.points.length - 1, events = [];
    if (this.at !== null) {
      const second = begin + ((this.at - LEFT) / (width - LEFT - RIGHT)) * SPAN_S;
      at = this.points.findIndex((point) => point.second === Math.round(second));
      events = this.events.filter((event) => Math.abs(event.time - second) < SPAN_S / (width - LEFT - RIGHT) * 5);
    }
    const figures = lines.map(([name], n) => `${name ? `${name} ` : ""}${at < 0 ? "unknown" : withUnit(values[n][at], this.unit)}`);
    const when = this.at !== null && at >= 0 ? `${clock(this.points[at].second)} ` : "";
    this.caption.replaceChildren(made("b", this.title), ` ${when}${figures.join(", ") || withUnit(0, this.unit)}`);
    this.canvas.title = events.map(({ time, text, mux }) => `${clock(time)} ${mux}: ${text}`).join("\n");
    this.canvas.setAttribute("aria-label", this.caption.textContent);
  }
}

const MOST_REASONS = 4;

// Drops by reason: the most frequent ones, and the others together.
function dropSeries(points) {
  const totals = {};
  for (const { drops } of points)
    for (const [name, value] of Object.entries(drops)) totals[name] = (totals[name] ?? 0) + value;
  const names = Object.keys(totals).sort((one, other) => totals[other] - totals[one]);
  const shown = names.slice(0, MOST_REASONS - (names.length > MOST_REASONS ? 1 : 0)), rest = names.slice(shown.length);
  return [
    ...shown.map((name) => [name, (point) => point.drops[name] ?? 0]),
    ...(rest.length ? [["others", (point) => rest.reduce((total, name) => total + (point.drops[name] ?? 0), 0)]] : []),
  ];
}

export const trafficPlots = (parent) => [
  new Plot(parent, "Packets", "/s", () => [["", (point) => point.packets]]),
  new Plot(parent, "Bits", "bit/s", () => [["", (point) => point.bytes * 8]]),
  new Plot(parent, "New flows", "/s", () => [["", (point) => point.new_flows]]),
  new Plot(parent, "Dropped", "/s", dropSeries),
];

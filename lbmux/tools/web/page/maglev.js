// A service's Maglev table, one pixel a slot, and what a proposed configuration would move in it.

import { ask, find, made } from "/dom.js";

const COLOURS = ["#4269d0", "#efb118", "#ff725c", "#6cc5b0", "#3ca951", "#ff8ab7", "#a463f2", "#97bbf5"];
const NO_BACKEND = 0xffff, MOST_NAMES = 64;
let shown = null, proposed = null, service = null;

const colour = (at) => COLOURS[at] ?? `hsl(${(at * 137.5) % 360} 55% 58%)`;
const unpacked = (text) => new Uint16Array(Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer);
const percent = (share) => `${(share * 100).toFixed(share < 0.1 ? 2 : 1)} %`;

// With a proposed change, slots that stay are faint.
function paint(slots, changed) {
  const canvas = find("table"), columns = Math.max(1, Math.ceil(Math.sqrt(slots.length * 6)));
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
  const lines = names.slice(0, MOST_NAMES).map((name, at) => {
    const line = made("li"), swatch = made("i");
    swatch.style.background = colour(at);
    line.append(swatch, `${name} ${texts[at]}`);
    return line;
  });
  if (names.length > lines.length) lines.push(made("li", `and ${names.length - lines.length} more`));
  find("legend").replaceChildren(...lines);
}

// Reads the table again only when its digest changes.
export async function showTable(of) {
  if (service !== of.service) proposed = shown = null;
  service = of.service;
  const digest = `${of.service} ${of.digests[0]}`;
  if (proposed !== null || digest === shown) return;
  shown = digest;
  const answer = await ask("/api/table", { service }), slots = unpacked(answer.slots);
  const counts = answer.names.map(() => 0);
  for (const name of slots) if (name !== NO_BACKEND) counts[name] += 1;
  paint(slots);
  legend(answer.names, counts.map((count) => percent(count / (slots.length || 1))));
  find("table-said").textContent = `${slots.length.toLocaleString("en")} slots, one pixel each`;
}

// Only for this service: all tables together would be large.
async function showProposal() {
  const said = find("proposal-error");
  said.hidden = true;
  try {
    const { services } = await ask("/api/proposal", { service }, { method: "POST", body: proposed });
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

find("proposed-file").addEventListener("change", async (event) => {
  if (event.target.files.length) find("proposed").value = await event.target.files[0].text();
});
find("proposal-clear").addEventListener("click", () => { proposed = shown = null; });
find("proposal").addEventListener("submit", (event) => {
  event.preventDefault();
  proposed = find("proposed").value;
  showProposal();
});

// The layout of the map: centred columns, or rows if the page is narrow.

const NARROW = 900, GAP = 22, PORT = 17;
const ORDER = ["vips", "routers", "muxes", "hosts"];
const SIZE = {
  vips: { width: 164, height: 50 }, routers: { width: 138, height: 50 },
  muxes: { width: 164, height: 66 }, hosts: { width: 220, height: 54 },
};
const SPACING = [1, 1, 1.5];  // relative space between columns; the most where the most edges cross

export const layout = (width, things) => (width < NARROW ? vertical(width, things) : horizontal(width, things));

function horizontal(width, things) {
  const heights = { ...Object.fromEntries(ORDER.map((what) => [what, SIZE[what].height])) };
  heights.hosts = Math.max(heights.hosts, PORT * (things.muxes.length + 1));
  const total = (what) => things[what].length * (heights[what] + GAP) - GAP;
  const height = Math.max(70, ...ORDER.map(total)) + 4;
  const left = width - 2 - ORDER.reduce((sum, what) => sum + SIZE[what].width, 0);
  const made = { down: false, height };
  let x = 1;
  ORDER.forEach((what, at) => {
    const top = (height - total(what)) / 2;
    made[what] = things[what].map((_, number) => ({
      x, y: top + number * (heights[what] + GAP), width: SIZE[what].width, height: heights[what] }));
    x += SIZE[what].width + (left * (SPACING[at] ?? 0)) / SPACING.reduce((sum, one) => sum + one);
  });
  return made;
}

function vertical(width, things) {
  const made = { down: true }, columns = 3, gap = 8, between = 62, wrapped = 34;
  let y = 2;
  for (const what of ORDER) {
    const count = things[what].length, many = Math.min(count || 1, columns), { height } = SIZE[what];
    const own = Math.min(SIZE[what].width, (width - 2 - gap * (many - 1)) / many);
    made[what] = things[what].map((_, at) => {
      const row = Math.floor(at / columns), inRow = Math.min(columns, count - row * columns);
      const start = (width - inRow * own - (inRow - 1) * gap) / 2;
      return { x: start + (at % columns) * (own + gap), y: y + row * (height + wrapped), width: own, height };
    });
    y += Math.max(1, Math.ceil(count / columns)) * (height + wrapped) - wrapped + between;
  }
  return Object.assign(made, { height: y - between + 2 });
}

export const after = (place, down) => (down
  ? { x: place.x + place.width / 2, y: place.y + place.height } : { x: place.x + place.width, y: place.y + place.height / 2 });

// The end point of incoming edge `at` of `many`: each has its own, so that their figures do not overlap.
export const before = (place, down, at, many) => (down
  ? { x: place.x + (place.width * (at + 0.5)) / many, y: place.y }
  : { x: place.x, y: place.y + place.height / 2 + (at - (many - 1) / 2) * PORT });

export function curve(from, to, down) {
  const middle = down ? (from.y + to.y) / 2 : (from.x + to.x) / 2;
  const bends = down ? `${from.x} ${middle} ${to.x} ${middle}` : `${middle} ${from.y} ${middle} ${to.y}`;
  return `M${from.x} ${from.y} C${bends} ${to.x} ${to.y}`;
}

// Show a result file as tables: of the scoreboard, the bench, or any other shape.

const plain = (value) => {
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (typeof value === "number") return value.toLocaleString("en", { maximumSignificantDigits: 6 });
  if (value && typeof value === "object") return Object.entries(value).map(([name, one]) => `${titled(name)} ${plain(one)}`).join(", ");
  return value ?? "";
};
const titled = (name) => name.replaceAll("_", " ");
const isLines = (value) => Array.isArray(value) && value.length > 0 && value.every((one) => one && typeof one === "object");

function made(name, text, kind) {
  const element = document.createElement(name);
  if (text !== undefined) element.textContent = text;
  if (kind) element.className = kind;
  return element;
}

function table(name, lines) {
  const whole = made("table"), head = whole.createTHead().insertRow(), body = whole.createTBody();
  const names = [...new Set(lines.flatMap(Object.keys))];
  const isNumber = (column) => lines.some((line) => typeof line[column] === "number");
  for (const column of names) head.append(made("th", titled(column), isNumber(column) ? "number" : ""));
  for (const line of lines) {
    const row = body.insertRow();
    for (const column of names) {
      const kinds = [isNumber(column) ? "number" : typeof line[column] === "object" || column === "why" ? "words" : ""];
      // Connections to the very server that was hit cannot survive: only the others count against lbmux.
      if (column === "broken" && line.broken > (line.own ?? 0)) kinds.push("bad");
      row.append(made("td", plain(line[column]), kinds.join(" ").trim()));
    }
  }
  const scroll = made("div", undefined, "scroll");
  scroll.dataset.of = name;
  scroll.append(whole);
  return scroll;
}

// The elements for a result: a table for each list, and a line with everything else before them.
export function tables(result) {
  const fields = Object.entries(Array.isArray(result) ? { result } : result);
  const lists = fields.filter(([, value]) => isLines(value));
  const facts = fields.filter(([name, value]) => name !== "version" && !Array.isArray(value))
    .map(([name, value]) => `${titled(name)}: ${plain(value)}`).join("; ");
  return [
    ...(facts ? [made("p", facts, "note")] : []),
    ...lists.flatMap(([name, lines]) => [...(lists.length > 1 ? [made("h3", titled(name))] : []), table(name, lines)]),
  ];
}

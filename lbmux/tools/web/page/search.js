// The search field in the header: names and addresses of services, backends, hosts and muxes.

import { ask, find, made } from "/dom.js";

const field = find("search"), list = find("found");
let asked = 0;

async function look() {
  const text = field.value.trim(), number = ++asked;
  const { found } = text ? await ask("/api/search", { text }) : { found: [] };
  if (number !== asked) return;  // the text has changed since
  list.hidden = !text;
  list.replaceChildren(...found.map(({ kind, at, where }) => {
    const line = made("li"), link = made("a", at.join("/"));
    link.href = `#/${kind}/${at.map(encodeURIComponent).join("/")}`;
    line.append(made("small", kind), link, made("small", where));
    return line;
  }));
  if (!found.length) list.append(made("li", "Nothing has this name or address."));
}

field.addEventListener("input", look);
field.addEventListener("keydown", (event) => {
  if (event.key === "Enter") list.querySelector("a")?.click();
  if (event.key === "Escape") close();
});

export function close() {
  field.value = "";
  list.hidden = true;
}

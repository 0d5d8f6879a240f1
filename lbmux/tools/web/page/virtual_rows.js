// A list of any length: only the rows in sight are elements.

import { made } from "/dom.js";

const ROW = 34, MARGIN = 4;

export class VirtualRows {
  // `columns`: [title, width of a CSS grid, function from a line to text or a node, kind]; `link`: from a line to a view.
  constructor(container, columns, link) {
    this.columns = columns;
    this.link = link;
    this.lines = [];
    this.template = columns.map(([, width]) => width).join(" ");
    const head = made("div", undefined, "head");
    head.style.gridTemplateColumns = this.template;
    head.append(...columns.map(([title, , , kind]) => made("span", title, kind)));
    this.scroller = made("div", undefined, "scroller");
    this.scroller.tabIndex = 0;
    this.space = this.scroller.appendChild(made("div", undefined, "space"));
    container.replaceChildren(head, this.scroller);
    this.scroller.addEventListener("scroll", () => this.draw());
    new ResizeObserver(() => this.draw()).observe(this.scroller);
  }

  show(lines) {
    this.lines = lines;
    this.space.style.height = `${lines.length * ROW}px`;
    this.draw();
  }

  draw() {
    const { scrollTop } = this.scroller, clientHeight = Math.min(this.scroller.clientHeight, innerHeight);
    const first = Math.max(0, Math.floor(scrollTop / ROW) - MARGIN);
    const last = Math.min(this.lines.length, Math.ceil((scrollTop + clientHeight) / ROW) + MARGIN);
    this.space.replaceChildren(...this.lines.slice(first, last).map((line, at) => this.row(line, first + at)));
  }

  row(line, at) {
    const to = this.link?.(line), row = made(to ? "a" : "div", undefined, "line");
    if (to) row.href = to;
    row.style.gridTemplateColumns = this.template;
    row.style.transform = `translateY(${at * ROW}px)`;
    for (const [, , of, kind] of this.columns) {
      const shown = of(line), cell = row.appendChild(made("span", shown instanceof Node ? undefined : shown, kind));
      if (shown instanceof Node) cell.append(shown);
      else cell.title = shown;
    }
    return row;
  }
}

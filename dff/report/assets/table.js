/* Tables that are sorted by a click on a head, and shown a page at a time. */

const ROWS = 50;

class PagedTable {
  /**
   * `columns` have {title, cell(row), value(row) to sort by, number}; `rows` are any values.
   * A column without `value` is not sorted.
   */
  constructor(caption, columns, { rows = [], pageRows = ROWS } = {}) {
    Object.assign(this, { columns, rows, pageRows, start: 0, sorted: null });
    this.body = h("tbody");
    this.heads = columns.map((column, i) => h("th", { scope: "col", class: column.number ? "number" : "" },
      column.value ? h("button", { type: "button", onclick: () => this.sort(i) }, column.title) : column.title));
    this.pager = new Pager(() => this.draw());
    this.element = h("div", { class: "stack" },
      h("div", { class: "scroll" }, h("table", {}, h("caption", { class: "out-of-sight" }, caption),
        h("thead", {}, h("tr", {}, this.heads)), this.body)), this.pager.element);
    this.fill(rows);
  }

  fill(rows) {
    this.rows = rows;
    if (this.sorted) this.order();
    this.pager.reset(rows.length, this.pageRows);
    this.draw();
  }

  sort(i) {
    const down = this.sorted && this.sorted.i === i ? !this.sorted.down : Boolean(this.columns[i].number);
    this.sorted = { i, down };
    this.heads.forEach((head, j) => (i === j
      ? head.setAttribute("aria-sort", down ? "descending" : "ascending") : head.removeAttribute("aria-sort")));
    this.order();
    this.pager.reset(this.rows.length, this.pageRows);
    this.draw();
  }

  order() {
    const { i, down } = this.sorted;
    const value = this.columns[i].value;
    const keyed = this.rows.map((row) => [value(row), row]);
    keyed.sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0) * (down ? -1 : 1));
    this.rows = keyed.map(([, row]) => row);
  }

  draw() {
    const shown = this.rows.slice(this.pager.start, this.pager.start + this.pageRows);
    this.body.replaceChildren(...shown.map((row) => h("tr", {}, this.columns.map((column) =>
      h("td", { class: column.number ? "number" : "" }, column.cell(row))))));
  }
}

/** Buttons that go a page back and forth. */
class Pager {
  constructor(changed) {
    this.changed = changed;
    this.said = h("span", { class: "soft", role: "status" });
    this.back = h("button", { type: "button", onclick: () => this.turn(-1) }, "← previous");
    this.on = h("button", { type: "button", onclick: () => this.turn(1) }, "next →");
    this.element = h("div", { class: "row controls pager" }, this.back, this.said, this.on);
    this.reset(0, 1);
  }

  reset(count, size) {
    Object.assign(this, { count, size, start: 0 });
    this.tell();
  }

  turn(by) {
    this.start = Math.max(0, Math.min(this.start + by * this.size, this.count - 1));
    this.tell();
    this.changed();
  }

  tell() {
    const last = Math.min(this.count, this.start + this.size);
    this.said.textContent = this.count
      ? `${(this.start + 1).toLocaleString("en")} to ${last.toLocaleString("en")} of ${this.count.toLocaleString("en")}` : "";
    this.back.disabled = this.start === 0;
    this.on.disabled = last >= this.count;
    this.element.hidden = this.count <= this.size;
  }
}

/** A table of texts and numbers: {title, columns, rows, text}. */
function factsCard(facts) {
  const columns = facts.columns.map((title, i) => {
    const number = facts.rows.length > 0 && facts.rows.every((row) => typeof row[i] === "number");
    const whole = facts.rows.every((row) => Number.isInteger(row[i]));
    return { title, number, value: (row) => row[i],
      cell: (row) => (number ? (whole ? row[i].toLocaleString("en") : row[i].toFixed(3))
        : named(row[i] === null ? "–" : row[i])) };
  });
  return h("section", { class: "card" }, h("h2", {}, facts.title), facts.text ? h("p", {}, facts.text) : null,
    columns.length ? new PagedTable(facts.title, columns, { rows: facts.rows }).element : null);
}

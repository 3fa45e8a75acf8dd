/* One number a concept, of either sign, as bars from a common zero, and what they come to. */

const ORDERS = {
  value: ([, a], [, b]) => b - a,
  size: ([, a], [, b]) => Math.abs(b) - Math.abs(a),
  number: ([a], [b]) => a - b,
};

/** A card for each column; `concepts` have titles and colors. */
function barCard(column, concepts) {
  const card = h("div", { class: "card stack bars" });
  const sums = column.addends.map(([, value]) => value);
  const all = [0, ...column.values, ...sums];
  const low = Math.min(...all), span = Math.max(...all) - low || 1;
  const bar = (value, kind) => h("span", {
    class: `bar ${value < 0 ? "minus" : ""} ${kind}`, "aria-hidden": "true",
    "--zero": -low / span, "--from": (Math.min(value, 0) - low) / span,
    "--length": Math.abs(value) / span });
  const plain = column.total === null && low === 0; // shares, and what only adds
  const shown = (value) => (plain ? value.toFixed(3) : signed(value));
  const line = (head, value, kind = "") => h("tr", {}, h("th", { scope: "row" }, head),
    h("td", {}, bar(value, kind)), h("td", { class: "number" }, shown(value)));
  const body = h("tbody");
  const fill = (order) => body.replaceChildren(...column.values
    .map((value, k) => [k, value]).sort(ORDERS[order])
    .map(([k, value]) => line([swatch(concepts[k].color), " ", named(concepts[k].title)], value)));
  fill("value");
  const foot = column.addends.map(([name, value]) => line(name, value, "rest"));
  if (column.total) {
    foot.push(h("tr", {}, h("th", { scope: "row", colspan: 2 }, column.total[0]),
      h("td", { class: "number" }, signed(column.total[1]))));
  }
  card.append(
    h("h3", {}, named(column.heading)),
    h("div", { class: "controls" }, choice("order", ["by value", "by size", "by number"], 0,
      (i) => fill(Object.keys(ORDERS)[i]))),
    h("table", {}, h("caption", {}, `${column.about} ${column.heading}`),
      h("colgroup", {}, h("col"), h("col"), h("col")),
      h("thead", { class: "out-of-sight" }, h("tr", {}, ["concept", "bar", "value"].map((name) =>
        h("th", { scope: "col" }, name)))),
      body, foot.length ? h("tfoot", {}, foot) : null));
  return card;
}

/* Tables whose cells are shaded by what they hold. */

/** `rows` and `columns` have {title, link, color, note}; `level` brings a value to 0..1. */
function heatTable(caption, rows, columns, values, { show, level }) {
  const head = (entry, scope) => h("th", { scope, title: entry.title },
    entry.color ? [swatch(entry.color), " "] : null,
    entry.link ? h("a", { href: entry.link }, named(entry.short || entry.title))
      : named(entry.short || entry.title),
    entry.note ? h("span", { class: "soft" }, ` ${entry.note}`) : null);
  const cell = (value, i, j) => {
    const strength = Math.min(1, Math.max(0, level(value)));
    const title = `${rows[i].title}, ${columns[j].title}: ${show(value)}`;
    return h("td", { class: `cell ${strength > 0.6 ? "strong" : ""} ${value < 0 ? "below" : ""}`, "--level": 0.9 * strength, title },
      show(value));
  };
  return h("div", { class: "scroll heat" }, h("table", {}, h("caption", {}, caption),
    h("thead", {}, h("tr", {}, h("td"), columns.map((entry) => head(entry, "col")))),
    h("tbody", {}, rows.map((entry, i) =>
      h("tr", {}, head(entry, "row"), values[i].map((value, j) => cell(value, i, j)))))));
}

const asColumn = (concept, k) =>
  ({ title: concept.title, short: String(k + 1), color: concept.color, link: `#concept-${k + 1}` });
const asRow = (concept, k) => ({ ...asColumn(concept, k), short: concept.title });

function shading(table) {
  if (table.kind === "share") return { show: (value) => percent(value), level: (value) => value };
  const most = Math.max(...table.values.flat().map(Math.abs)) || 1;
  return { show: (value) => signed(value, 1), level: (value) => Math.abs(value) / most };
}

function classesPage() {
  const sections = data.classes.map((table) => h("section", { class: "card" },
    h("h2", {}, table.title),
    heatTable(`${table.about}; most images first.`,
      table.names.map((title, i) => ({ title, short: title.split(",")[0],
        note: plural(table.images[i], "image") })),
      data.concepts.map(asColumn), table.values, shading(table)),
    table.left_out ? h("p", { class: "soft" }, `${table.left_out} more are in the run's tables.`) : null));
  return sections.length ? sections
    : [h("p", { class: "note" }, "The model has no classes, and the images have no labels.")];
}

const MOST_TOGETHER = 60;

function togetherPage() {
  const shown = data.concepts.slice(0, MOST_TOGETHER).map((_, k) => k);
  const values = shown.map((i) => shown.map((j) => (i === j ? null : data.lift[i][j])));
  const left = data.concepts.length - shown.length;
  return [h("section", { class: "card" }, h("h2", {}, "Which concepts come together"),
    h("p", {}, "1 is as often as by chance, 2 is twice as often, below 1 they avoid each other."),
    heatTable("How much more often than by chance two concepts are in one image.",
      shown.map((k) => asRow(data.concepts[k], k)), shown.map((k) => asColumn(data.concepts[k], k)),
      values, { show: (value) => (value === null ? "" : value.toFixed(2)),
        level: (value) => (value === null ? 0 : (value - 0.5) / 2) }),
    left > 0 ? h("p", { class: "soft" },
      `${left} more concepts are in cooccurrence.parquet; each concept's page names its companions.`) : null)];
}

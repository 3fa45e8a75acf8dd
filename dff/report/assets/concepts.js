/* The concepts of a run: all at a glance, and a page for each. */

const given = data.concepts.map((concept) => concept.name);
const UNNAMED = /^Concept \d+( \+ Concept \d+)*$/;
const TILES = 60;

function conceptTile(concept, k) {
  return h("a", { class: "tile", href: `#concept-${k + 1}` },
    h("div", { class: "crops small" }, concept.crops.slice(0, 4).map((source) =>
      h("img", { src: source, alt: "" }))),
    h("b", {}, swatch(concept.color), " ", named(concept.title)),
    h("span", { class: "soft" }, `in ${percent(concept.prevalence)} of images`),
    concept.classes === null ? null : h("span", {}, named(said(concept))));
}

const said = (concept) => (concept.classes.length ? concept.classes.map(first).join(", ") : "no class");
const first = (name) => name.split(",")[0];

function conceptsPage() {
  const tiles = h("div", { class: "tiles wide" });
  const pager = new Pager(() => fill());
  const fill = () => tiles.replaceChildren(...data.concepts.slice(pager.start, pager.start + TILES)
    .map((concept, i) => conceptTile(concept, pager.start + i)));
  pager.reset(data.concepts.length, TILES);
  fill();
  return [h("section", {}, h("h2", {}, plural(data.concepts.length, "concept")), tiles, pager.element),
    namesCard()];
}

function conceptPage(k) {
  const concept = data.concepts[k];
  const input = h("input", { type: "text", "aria-label": "name", value: concept.name, maxlength: 100, dir: "auto",
    oninput: () => rename(k, input.value) });
  const step = (to, text) => (data.concepts[to]
    ? h("a", { href: `#concept-${to + 1}` }, text) : h("span", { class: "soft" }, text));
  return [
    h("section", {},
      h("div", { class: "row between" },
        h("h2", {}, swatch(concept.color), " ", titleOf(k)),
        h("div", { class: "row controls" }, step(k - 1, "← previous"), step(k + 1, "next →"),
          h("a", { href: `#images?concept=${k + 1}` }, "its images"))),
      h("div", { class: "two" },
        h("div", { class: "card stack" }, h("h3", {}, "Where it is strongest"),
          concept.crops.length ? h("div", { class: "crops" }, concept.crops.map((source, i) =>
            h("img", { src: source, alt: `${concept.title}, crop ${i + 1}` })))
            : h("p", { class: "soft" }, "No image that shows it could be read.")),
        h("div", { class: "stack" },
          h("div", { class: "card stack controls" }, h("label", { class: "field" }, "name", input)),
          h("div", { class: "card stack" }, facts(concept)),
          concept.place ? h("figure", { class: "card" }, h("h3", {}, "Where it sits, on average"),
            h("img", { class: "crop", src: concept.place, alt: "map of its mean presence" })) : ""))),
    nearCard(concept),
  ];
}

function facts(concept) {
  const rows = [["share of activations", percent(concept.share, 1)],
    ["in images", `${concept.images.toLocaleString("en")} (${percent(concept.prevalence)})`],
    concept.classes === null ? null : ["speaks for", said(concept)]].filter(Boolean);
  return h("dl", { class: "facts" }, rows.map(([name, value]) => [h("dt", {}, name), h("dd", {}, named(value))]).flat());
}

function nearCard(concept) {
  if (!concept.near.length) return "";
  const table = new PagedTable("Concepts that come with it", [
    { title: "concept", cell: ([k]) => h("a", { href: `#concept-${k + 1}` }, swatch(data.concepts[k].color), " ",
      named(data.concepts[k].title)), value: ([k]) => k },
    { title: "images with both", number: true, cell: ([, images]) => images.toLocaleString("en"), value: (row) => row[1] },
    { title: "against chance", number: true, cell: (row) => `× ${row[2].toFixed(2)}`, value: (row) => row[2] },
  ], { rows: concept.near });
  return h("section", { class: "card" }, h("h2", {}, "Its companions"), table.element);
}

const heads = [];
function titleOf(k) {
  heads[k] = h("bdi", { dir: "auto" }, data.concepts[k].title);
  return heads[k];
}

function rename(k, text) {
  const name = text.trim().replace(/\s+/g, " ");
  const concept = data.concepts[k];
  concept.name = name || given[k];
  concept.title = UNNAMED.test(concept.name) ? concept.name : `${k + 1} ${concept.name}`;
  if (heads[k]) heads[k].textContent = concept.title;
}

/** The names that were given here, as a file and as commands. */
function namesCard() {
  const changed = data.concepts.map((concept, k) => [k, concept.name]).filter(([k, name]) => name !== given[k]);
  const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
  const commands = changed.map(([k, name]) => `dff name ${quoted(data.folder)} ${k + 1} ${quoted(name)}`);
  const save = () => {
    const names = Object.fromEntries(data.concepts.map((concept, k) => [k + 1, concept.name]));
    const address = URL.createObjectURL(new Blob([JSON.stringify(names, null, 2)], { type: "application/json" }));
    h("a", { href: address, download: "names.json" }).click();
    setTimeout(() => URL.revokeObjectURL(address), 1000);
  };
  return h("section", { class: "card controls" }, h("h2", {}, "Names"),
    h("p", {}, changed.length ? "The names that you gave live in this page alone, until it is closed. These commands put them into the run:"
      : "Name a concept on its page; the names can be taken from here into the run."),
    changed.length ? h("textarea", { readonly: true, "aria-label": "commands", class: "names" }, commands.join("\n")) : null,
    h("div", {}, h("button", { type: "button", onclick: save }, "export names as JSON")));
}

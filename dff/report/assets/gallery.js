/* The images of a run: filters, a grid of pictures, a table of all, and a page for each image. */

const table = data.images;
const count = table.ids.length;
const k = data.concepts.length;
const strength = bytes(table.strength);
const probability = bytes(table.probability);
const placeOf = new Map(table.ids.map((id, i) => [id, i]));
const CARDS = 48;
const RIGHT = ["wrong", "right"];
const blank = { text: "", predicted: "", label: "", right: "", concept: "", strength: 0, score: 0, order: "number" };
const filters = { ...blank };
let asTable = Object.keys(data.thumbnails).length === 0;

/** The places of all images that pass, in order. */
function passing() {
  const text = filters.text.toLocaleLowerCase();
  const concept = Number(filters.concept) - 1;
  const least = filters.concept ? Math.max(1, filters.strength * 255) : 0;
  const found = [];
  for (let i = 0; i < count; i++) {
    if (filters.predicted !== "" && table.predicted[i] !== Number(filters.predicted)) continue;
    if (filters.label !== "" && table.label[i] !== Number(filters.label)) continue;
    if (filters.right !== "" && table.right[i] !== Number(filters.right)) continue;
    if (filters.concept && strength[i * k + concept] < least) continue;
    if (probability[i] < filters.score * 255) continue;
    if (text && !searched(i).includes(text)) continue;
    found.push(i);
  }
  if (filters.order === "score") found.sort((a, b) => probability[b] - probability[a]);
  if (filters.order === "concept" && filters.concept) {
    found.sort((a, b) => strength[b * k + concept] - strength[a * k + concept]);
  }
  return found;
}

const lower = [];
function searched(i) {
  lower[i] = lower[i] || [table.paths[i], labelOf(i), predictedOf(i)].join("\n").toLocaleLowerCase();
  return lower[i];
}
const labelOf = (i) => table.labels[table.label[i]] || "";
const predictedOf = (i) => table.classes[table.predicted[i]] || "";
const rightOf = (i) => (table.right[i] < 0 ? "" : RIGHT[table.right[i]]);
const fileOf = (path) => path.split(/[\\/]/).pop() || path;

function strongest(i, most = 3) {
  return data.concepts.map((_, j) => [j, strength[i * k + j]]).filter(([, value]) => value)
    .sort((a, b) => b[1] - a[1]).slice(0, most);
}

/** A choice of one of many, the first being any. */
function selection(title, name, any, options, changed) {
  const select = h("select", { "aria-label": title, onchange: () => { filters[name] = select.value; changed(); } },
    h("option", { value: "" }, any), options.map(([value, text]) =>
      h("option", { value, selected: String(value) === filters[name] }, text)));
  return h("label", { class: "field" }, title, select);
}

function filterCard(changed) {
  const search = h("input", { type: "search", "aria-label": "text", value: filters.text, placeholder: "a file or class",
    oninput: () => { filters.text = search.value; changed(); } });
  const set = (name) => (value) => { filters[name] = value; changed(); };
  const listed = (names) => names.map((name, i) => [i, name]);
  return h("form", { class: "card controls row filters", onsubmit: (event) => event.preventDefault() },
    h("label", { class: "field" }, "text", search),
    table.classes.length ? selection("predicted", "predicted", "any class", listed(table.classes), changed) : null,
    table.labels.length ? selection("label", "label", "any label", listed(table.labels), changed) : null,
    table.right.some((value) => value >= 0)
      ? selection("right or wrong", "right", "either", [[1, "right"], [0, "wrong"]], changed) : null,
    selection("concept", "concept", "any concept", data.concepts.map((c, i) => [i + 1, c.title]), changed),
    slider("presence from", { value: filters.strength, changed: set("strength") }),
    slider("score from", { value: filters.score, changed: set("score") }),
    h("label", { class: "field" }, "order", orderChoice(changed)),
    h("button", { type: "button", onclick: () => { Object.assign(filters, blank); refresh(); } }, "clear filters"));
}

function orderChoice(changed) {
  const select = h("select", { "aria-label": "order", onchange: () => { filters.order = select.value; changed(); } },
    [["number", "as in the run"], ["score", "by score"], ["concept", "by the concept's presence"]].map(([value, text]) =>
      h("option", { value, selected: value === filters.order }, text)));
  return select;
}

let refresh = () => {};
function imagesPage(query) {
  if (query.has("concept")) Object.assign(filters, blank, { concept: query.get("concept"), order: "concept" });
  const result = h("div", { class: "stack" });
  const said = h("p", { role: "status" });
  const update = () => result.replaceChildren(...results(said));
  refresh = () => page.replaceChildren(...frame(imagesPage(new URLSearchParams())));
  update();
  return [h("section", {}, h("h2", {}, "Images"), filterCard(update),
    h("div", { class: "row between" }, said,
      choice("view", ["pictures", "table"], asTable ? 1 : 0, (i) => { asTable = i === 1; update(); })), result)];
}

function results(said) {
  const found = passing();
  const pictured = found.filter((i) => data.thumbnails[table.ids[i]]);
  said.textContent = `${plural(found.length, "image")} of ${count.toLocaleString("en")}` +
    (asTable || pictured.length === found.length ? "" : `; ${pictured.length} have a picture here, the table lists all`);
  if (!found.length) {
    return [h("div", { class: "card empty" }, h("p", {}, "No image passes these filters."),
      h("button", { type: "button", onclick: () => { Object.assign(filters, blank); refresh(); } }, "show all images"))];
  }
  return asTable ? [imageTable(found)] : grid(pictured);
}

function grid(pictured) {
  const tiles = h("div", { class: "tiles" });
  const fill = () => tiles.replaceChildren(...pictured.slice(pager.start, pager.start + CARDS).map(imageTile));
  const pager = new Pager(fill);
  pager.reset(pictured.length, CARDS);
  fill();
  return [tiles, pager.element];
}

function imageTile(i) {
  const right = rightOf(i);
  return h("a", { class: "tile", href: `#image-${table.ids[i]}` },
    h("img", { src: data.thumbnails[table.ids[i]].picture, alt: "" }),
    h("b", {}, named(predictedOf(i) ? first(predictedOf(i)) : fileOf(table.paths[i]))),
    h("span", { class: "soft" }, predictedOf(i) ? percent(probability[i] / 255) : "",
      right ? [" · ", h("span", { class: right }, right === "right" ? right : ["label: ", named(labelOf(i))])] : null),
    h("span", { "aria-label": "strongest concepts" }, strongest(i).map(([j]) => [swatch(data.concepts[j].color), ` ${j + 1} `]).flat()));
}

function imageTable(found) {
  const columns = [
    { title: "image", value: (i) => table.paths[i], cell: (i) => h("a", { href: `#image-${table.ids[i]}` }, named(table.paths[i])) },
    table.classes.length ? { title: "predicted", value: predictedOf, cell: (i) => named(predictedOf(i)) } : null,
    table.classes.length ? { title: "score", number: true, value: (i) => probability[i], cell: (i) => percent(probability[i] / 255) } : null,
    table.labels.length ? { title: "label", value: labelOf, cell: (i) => named(labelOf(i)) } : null,
    table.labels.length ? { title: "right", value: rightOf, cell: (i) => h("span", { class: rightOf(i) }, rightOf(i)) } : null,
    filters.concept ? { title: "presence", number: true, value: (i) => strength[i * k + Number(filters.concept) - 1],
      cell: (i) => percent(strength[i * k + Number(filters.concept) - 1] / 255) } : null,
    { title: "strongest concepts", cell: (i) => strongest(i).map(([j, value]) => h("a", { href: `#concept-${j + 1}` },
      swatch(data.concepts[j].color), ` ${j + 1} `, h("span", { class: "soft" }, `${percent(value / 255)}  `))) },
  ].filter(Boolean);
  return h("div", { class: "card" }, new PagedTable("Images", columns, { rows: found }).element);
}

async function imagePage(id) {
  const i = placeOf.get(id);
  if (i === undefined) return [h("p", { class: "note" }, `Image ${id} is not in this page's table.`)];
  const rows = [["file", table.paths[i]], ["predicted", predictedOf(i) && `${predictedOf(i)} (${percent(probability[i] / 255)})`],
    ["label", labelOf(i)], ["right or wrong", rightOf(i)]].filter(([, value]) => value);
  const thumbnail = data.thumbnails[id];
  const parts = [h("section", {},
    h("div", { class: "row between" }, h("h2", {}, named(fileOf(table.paths[i]))), h("a", { href: "#images", class: "controls" }, "← all images")),
    h("dl", { class: "facts card" }, rows.map(([name, value]) => [h("dt", {}, name), h("dd", {}, named(value))]).flat()))];
  if (thumbnail) parts.push(h("section", {}, await imageViewer(i, thumbnail)));
  else parts.push(h("p", { class: "note" }, "There is no picture of this image in the page; its concepts, by presence:"), presenceCard(i));
  return parts;
}

function presenceCard(i) {
  return h("div", { class: "card" }, new PagedTable("Presence at the peak", [
    { title: "concept", cell: ([j]) => h("a", { href: `#concept-${j + 1}` }, swatch(data.concepts[j].color), " ", named(data.concepts[j].title)), value: ([j]) => j },
    { title: "presence", number: true, cell: ([, value]) => percent(value / 255), value: ([, value]) => value },
  ], { rows: strongest(i, k) }).element);
}

async function imageViewer(i, thumbnail) {
  const [width, height] = thumbnail.size;
  const cells = bytes(thumbnail.maps);
  const area = data.grid.rows * data.grid.cols;
  const maps = thumbnail.concepts.map((_, j) => upsampled(cells.subarray(j * area, (j + 1) * area), data.grid, width, height));
  const viewer = new Viewer(thumbnail.concepts.map((j) => data.concepts[j]), null);
  viewer.numbers = thumbnail.concepts.map((j) => j + 1);
  viewer.show({ name: fileOf(table.paths[i]), width, height, image: await picture(thumbnail.picture),
    maps: { smooth: maps }, labels: [], cams: [], shares: thumbnail.concepts.map((j) => strength[i * k + j] / 255),
    note: "Beside a concept stands its presence at the peak." });
  return viewer.element;
}

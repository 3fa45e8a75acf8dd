/* The page of photos. */

const viewer = new Viewer(data.concepts, bytes(data.heat));
const answers = h("div");
const predictions = h("p");

async function loaded(photo) {
  if (!photo.ready) {
    const all = (sources) => Promise.all(sources.map(grey));
    photo.ready = {
      ...photo,
      image: await picture(photo.image),
      maps: { sharp: await all(photo.sharp), smooth: await all(photo.smooth) },
      cams: await Promise.all(photo.cams.map(async ([name, source]) => [name, await grey(source)])),
      labels: data.unscored ? [] : photo.labels,
      note: data.unscored ? "A share is of the photo's activations." : null,
    };
  }
  return photo.ready;
}

async function show(index) {
  const photo = data.photos[index];
  viewer.show(await loaded(photo));
  predictions.replaceChildren(...(photo.predictions.length
    ? ["The model says: ", ...photo.predictions.map(([name, value], i) =>
      [i ? ", " : "", named(name), ` ${value.toFixed(2)}`]).flat()] : []));
  answers.replaceChildren(
    ...(photo.bars.length ? [h("section", { "aria-label": "what each concept says" },
      h("h2", {}, "What each concept says"),
      h("div", { class: "columns" }, photo.bars.map((column) => barCard(column, data.concepts))))] : []),
    ...(photo.tables.length || photo.figures.length ? [h("section", {}, h("h2", {}, "How far to trust it"),
      h("div", { class: "columns" }, photo.tables.map(plainTable), photo.figures.map(drawn)))] : []));
  strip.querySelectorAll("button").forEach((button, i) =>
    button.setAttribute("aria-pressed", String(i === index)));
  document.body.dataset.ready = String(index);
}

const strip = h("div", { class: "strip controls", role: "group", "aria-label": "photos" },
  data.photos.map((photo, i) => h("button", { type: "button", onclick: () => show(i) },
    h("img", { src: photo.image, alt: "" }), named(photo.name))));
strip.hidden = data.photos.length < 2;

page.replaceChildren(
  h("header", {}, h("h1", {}, named(data.title)), predictions,
    data.about.map((line) => h("p", { class: "soft" }, named(line)))),
  ...[data.unscored, data.left_out].filter(Boolean).map((text) => h("p", { class: "note" }, text)),
  strip, viewer.element, answers,
  data.figures.length ? h("section", {}, h("h2", {}, "How many concepts"),
    data.figures.map(drawn)) : "");
show(0);

/* A photo with its concepts: hover, isolate, mix, threshold, sharp or smooth, Grad-CAM, swipe. */

const LEAST_SIDE = 900;
const VIEWS = ["side by side", "concepts", "Grad-CAM", "swipe"];

class Viewer {
  /**
   * `concepts` have title and color; `heat` is the table of Grad-CAM's colours.
   * `show(photo)` takes {name, width, height, image, maps: {kind: [grey]}, shares, labels, cams}.
   */
  constructor(concepts, heat) {
    this.concepts = concepts;
    this.heat = heat;
    this.state = { only: null, mix: 0.5, threshold: 0, kind: 0, view: 0, cam: 0, swipe: 0.5 };
    this.element = h("div", { class: "stack" });
  }

  show(photo) {
    this.photo = photo;
    this.kinds = Object.keys(photo.maps);
    this.state.kind = Math.min(this.state.kind, this.kinds.length - 1);
    this.state.cam = Math.min(this.state.cam, Math.max(0, photo.cams.length - 1));
    if (!photo.cams.length) this.state.view = 1;
    else if (!this.touched) this.state.view = 0;
    const scale = Math.ceil(LEAST_SIDE / Math.max(photo.width, photo.height)); // small ones, too, are drawn fine
    const size = { width: scale * photo.width, height: scale * photo.height };
    this.canvas = h("canvas", { ...size, tabindex: 0, role: "img",
      "aria-label": `${photo.name} under its concepts; arrow keys move the pointer`,
      onpointermove: (event) => this.point(...within(event)),
      onpointerleave: () => this.tell([]),
      onclick: (event) => this.isolateAt(...within(event)),
      onkeydown: (event) => this.key(event) });
    this.camCanvas = h("canvas", { ...size, role: "img", "aria-label": `Grad-CAM of ${photo.name}` });
    this.line = h("span", { class: "swipe", hidden: true });
    this.readout = h("div", { class: "readout", role: "status" });
    this.painter = new Painter(this.canvas, photo.image, [], this.concepts.map((c) => c.color));
    this.painter.marks = this.numbers;
    this.camPainter = new Painter(this.camCanvas, photo.image, [], []);
    this.place = [0.5, 0.5];
    this.build();
    this.draw();
  }

  build() {
    const { state } = this;
    this.camTitle = h("figcaption", { class: "soft" });
    this.first = h("figure", { class: "view" },
      h("div", { class: "stage" }, this.canvas, this.line),
      h("figcaption", { class: "soft" }, plural(this.concepts.length, "concept"),
        ": hover to read, click to isolate one"));
    this.second = h("figure", { class: "view" },
      h("div", { class: "stage" }, this.camCanvas), this.camTitle);
    this.swiper = h("input", { class: "swiper controls", type: "range", min: 0, max: 1, step: 0.005,
      value: state.swipe, "aria-label": "swipe between concepts and Grad-CAM",
      oninput: () => { state.swipe = Number(this.swiper.value); this.draw(); } });
    this.views = h("div", { class: "views" }, this.first, this.second);
    this.legend = h("div", { class: "legend", role: "group", "aria-label": "concepts" });
    this.buttons = this.concepts.map((concept, k) => this.entry(concept, k));
    this.legend.append(...this.buttons);
    this.all = h("button", { type: "button", class: "controls", onclick: () => this.isolate(null) },
      "show all");
    this.element.style.setProperty("--ratio", this.photo.width / this.photo.height);
    this.element.replaceChildren(this.controls(), h("div", { class: "two" },
      h("div", { class: "stack card" }, this.views, this.swiper, this.readout),
      h("div", { class: "stack card" },
        h("div", { class: "row between" }, h("h3", {}, "Concepts"), this.all), this.legend,
        h("small", {}, this.photo.note ||
          "A share is of the photo's activations; beside a class stands how sure it is."))));
    this.tell([]);
  }

  controls() {
    const { photo, state } = this;
    const set = (name) => (value) => { state[name] = value; this.draw(); };
    const cams = photo.cams.length;
    return h("div", { class: "controls row" },
      cams ? choice("view", VIEWS, state.view, (i) => { this.touched = true; set("view")(i); }) : null,
      cams > 1 ? h("label", {}, "Grad-CAM of", this.camChoice()) : null,
      this.kinds.length > 1 ? choice("edges", this.kinds, state.kind, set("kind")) : null,
      slider("concepts", { value: 1 - state.mix, changed: (value) => set("mix")(1 - value) }),
      slider("threshold", { value: state.threshold, changed: set("threshold") }));
  }

  camChoice() {
    const select = h("select", { onchange: () => { this.state.cam = Number(select.value); this.draw(); } },
      this.photo.cams.map(([name], i) => h("option", { value: i, selected: i === this.state.cam }, name)));
    return select;
  }

  entry(concept, k) {
    const labels = this.photo.labels[k];
    const share = this.photo.shares[k];
    return h("button", { type: "button", "aria-pressed": "false",
      class: labels && !labels.length ? "less" : "",
      onclick: () => this.isolate(this.state.only === k ? null : k) },
    swatch(concept.color), named(concept.title),
    h("span", { class: "soft" }, share === undefined ? "" : percent(share)),
    labels ? h("span", { class: "said" }, labels.length
      ? labels.map(([name, sure], i) => [i ? ", " : "", named(name), ` ${sure.toFixed(2)}`]).flat()
      : "no class") : null);
  }

  isolate(k) {
    this.state.only = k;
    this.draw();
  }

  isolateAt(x, y) {
    const found = this.found(x, y);
    const k = found.length ? found[0][0] : null;
    this.isolate(this.state.only === k ? null : k);
  }

  key(event) {
    const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (steps[event.key]) {
      this.place = this.place.map((value, i) =>
        Math.min(0.99, Math.max(0, value + 0.04 * steps[event.key][i])));
      this.point(...this.place);
    } else if (event.key === "Enter" || event.key === " ") this.isolateAt(...this.place);
    else if (event.key === "Escape") this.isolate(null);
    else return;
    event.preventDefault();
  }

  found(x, y) {
    return this.painter.at(x, y, Math.max(0.05, this.state.threshold));
  }

  point(x, y) {
    this.place = [x, y];
    this.tell(this.found(x, y));
  }

  /** Say which concepts are under the pointer. */
  tell(found) {
    const under = new Set(found.map(([k]) => k));
    this.buttons.forEach((button, k) => button.classList.toggle("under", under.has(k)));
    this.readout.replaceChildren(...(found.length
      ? found.slice(0, 6).map(([k, strength]) => h("span", {}, swatch(this.concepts[k].color), " ",
        named(this.concepts[k].title), ` ${percent(strength)}`))
      : [h("span", { class: "soft" }, "Presence under the pointer: none")]));
  }

  draw() {
    const { state, photo, painter } = this;
    const [name, cam] = photo.cams[state.cam] || ["", null];
    const view = photo.cams.length ? VIEWS[state.view] : "concepts";
    painter.maps = photo.maps[this.kinds[state.kind]];
    painter.peaks = null;
    painter.draw({ ...state, upTo: view === "swipe" ? state.swipe : 1, heat: cam, table: this.heat });
    this.views.classList.toggle("pair", view === "side by side");
    this.first.hidden = view === "Grad-CAM";
    this.second.hidden = view === "concepts" || view === "swipe";
    this.line.hidden = this.swiper.hidden = view !== "swipe";
    this.line.style.setProperty("--at", state.swipe);
    if (cam) this.camPainter.drawHeat(cam, this.heat, state.mix);
    this.camTitle.replaceChildren("Grad-CAM: ", named(name));
    this.buttons.forEach((button, k) => button.setAttribute("aria-pressed", String(state.only === k)));
    this.all.disabled = state.only === null;
  }
}

function within(event) {
  const box = event.target.getBoundingClientRect();
  return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
}

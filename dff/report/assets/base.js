"use strict";
/* What all pages share. Text from files only ever becomes text: no markup is made of strings. */

const data = JSON.parse(document.getElementById("data").textContent);
const page = document.getElementById("page");

/** Make an element. Names that begin with "on" are events, with "--" variables of its style. */
function h(tag, properties, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name.startsWith("--")) element.style.setProperty(name, value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

/** A name from a file: in any script and direction, apart from the text around it. */
const named = (text) => h("bdi", { dir: "auto" }, text);
const swatch = (color) =>
  h("span", { class: "swatch", "--color": color.join(" "), "aria-hidden": "true" });

const percent = (value, digits = 0) => `${(100 * value).toFixed(digits)}%`;
/** A number with its sign; what rounds to nothing has none. */
function signed(value, digits = 3) {
  const text = Math.abs(value).toFixed(digits);
  return Number(text) === 0 ? text : (value < 0 ? "−" : "+") + text;
}
const plural = (count, what) => `${count.toLocaleString("en")} ${what}${count === 1 ? "" : "s"}`;

/** Bytes of base64. */
function bytes(text) {
  const raw = atob(text);
  const result = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) result[i] = raw.charCodeAt(i);
  return result;
}

/** Load a picture that the page holds. */
function picture(source) {
  return new Promise((done, failed) => {
    const image = new Image();
    image.onload = () => done(image);
    image.onerror = () => failed(new Error("a picture of this page is damaged"));
    image.src = source;
  });
}

/** Read a grey picture as {width, height, values}. */
async function grey(source) {
  const image = await picture(source);
  const canvas = h("canvas", { width: image.width, height: image.height });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  const colors = context.getImageData(0, 0, image.width, image.height).data;
  const values = new Uint8Array(image.width * image.height);
  for (let i = 0; i < values.length; i++) values[i] = colors[4 * i];
  return { width: image.width, height: image.height, values };
}

/** Buttons of which one is pressed; `changed` gets its place. */
function choice(title, names, chosen, changed) {
  const buttons = names.map((name, i) =>
    h("button", { type: "button", "aria-pressed": String(i === chosen), onclick: () => {
      buttons.forEach((other, j) => other.setAttribute("aria-pressed", String(i === j)));
      changed(i);
    } }, name));
  return h("div", { class: "group", role: "group", "aria-label": title }, buttons);
}

/** A slider with its value beside it. */
function slider(title, { min = 0, max = 1, step = 0.01, value, show = percent, changed }) {
  const shown = h("output", { class: "soft" }, show(value));
  const input = h("input", { type: "range", min, max, step, value, "aria-label": title,
    oninput: () => { shown.textContent = show(Number(input.value)); changed(Number(input.value)); } });
  return h("label", {}, title, input, shown);
}

function drawn(figure) {
  return h("figure", { class: "figure card" }, h("h3", {}, figure.title),
    h("img", { src: figure.picture, alt: figure.title }),
    figure.text ? h("figcaption", { class: "soft" }, figure.text) : null);
}

function plainTable(table) {
  return h("div", { class: "card stack" }, h("h3", {}, table.title),
    table.text ? h("p", {}, table.text) : null,
    h("div", { class: "scroll" }, h("table", {},
      h("thead", {}, h("tr", {}, table.columns.map((name) => h("th", { scope: "col" }, name)))),
      h("tbody", {}, table.rows.map((row) =>
        h("tr", {}, row.map((cell, i) => i ? h("td", {}, named(cell))
          : h("th", { scope: "row" }, named(cell)))))))));
}

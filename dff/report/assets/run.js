/* The page of a run: a menu, and what it leads to by the part of the address after "#". */

const MENU = [["concepts", "Concepts"], ["images", "Images"], ["classes", "Classes"], ["together", "Together"],
  ["errors", "Right and wrong"], ["about", "About the run"]];

function frame(content) {
  return [h("header", {}, h("h1", {}, named(data.title)), data.about.map((line) => h("p", { class: "soft" }, named(line)))),
    menu, ...content];
}

const links = MENU.map(([name, title]) => h("a", { href: `#${name}` }, title));
const menu = h("nav", { class: "menu", "aria-label": "parts of the report" }, links);

function aboutPage() {
  const left = data.left_out.length ? h("section", { class: "card" }, h("h2", {}, "What is not in this page"),
    h("ul", {}, data.left_out.map((line) => h("li", {}, named(line))))) : null;
  return [left, ...data.settings.map(factsCard)].filter(Boolean);
}

async function content(name, number, query) {
  if (name === "concept" && data.concepts[number - 1]) return conceptPage(number - 1);
  if (name === "image") return imagePage(number);
  if (name === "images") return imagesPage(query);
  if (name === "classes") return classesPage();
  if (name === "together") return togetherPage();
  if (name === "errors") return data.errors.map(factsCard);
  if (name === "about") return aboutPage();
  return conceptsPage();
}

async function go() {
  const [, name, number, query] = /^#?([a-z]*)-?(\d*)\??(.*)$/.exec(location.hash) || [];
  const parts = await content(name, Number(number), new URLSearchParams(query));
  page.replaceChildren(...frame(parts));
  const place = { concept: "concepts", image: "images", "": "concepts" }[name] || name;
  links.forEach((link, i) => (MENU[i][0] === place ? link.setAttribute("aria-current", "page") : link.removeAttribute("aria-current")));
  if (document.body.dataset.ready) {
    window.scrollTo(0, 0);
    page.focus({ preventScroll: true });
  }
  document.body.dataset.ready = name || "concepts";
}

window.addEventListener("hashchange", go);
go();

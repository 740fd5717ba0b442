// Where one is in the report stands in its address, so that it can be shared.

const THEMES = ["auto", "light", "dark"];
const THEME_WORDS = { auto: "as the system has them", light: "light", dark: "dark" };
const SIGNS = { auto: "◐", light: "☀", dark: "☾" };

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  const button = document.getElementById("theme");
  button.textContent = SIGNS[theme];
  button.setAttribute("aria-label", `Colours: ${THEME_WORDS[theme]}`);
}

function startTheme() {
  const remember = (theme) => {
    // A browser may forbid files to keep anything.
    try {
      localStorage.setItem("vlmeval-theme", theme);
    } catch {}
  };
  let theme = "auto";
  try {
    theme = localStorage.getItem("vlmeval-theme") || theme;
  } catch {}
  setTheme(THEMES.includes(theme) ? theme : "auto");
  document.getElementById("theme").addEventListener("click", () => {
    const now = document.documentElement.dataset.theme;
    const next = THEMES[(THEMES.indexOf(now) + 1) % THEMES.length];
    setTheme(next);
    remember(next);
  });
}

// Show a part of the page; false if it has none of this name.
function showView(view, dataset) {
  const sections = [...document.querySelectorAll("[data-view]")];
  const named = sections.find((section) => section.dataset.view === view && (view !== "dataset" || section.dataset.dataset === dataset));
  const shown = named || document.getElementById("overview");
  for (const section of sections) section.hidden = section !== shown;
  for (const link of document.querySelectorAll("[data-nav]")) {
    if (link.dataset.nav === shown.dataset.view) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  return named !== undefined;
}

// Go to what stands at a place of the page, and open it.
function goTo(id) {
  const place = document.getElementById(id);
  if (!place) return;
  for (let each = place; each; each = each.parentElement) if (each.tagName === "DETAILS") each.open = true;
  const own = place.querySelector("details");
  if (own) own.open = true;
  place.focus({ preventScroll: true });
  place.scrollIntoView({ block: "start" });
}

// The next or previous card of those that are shown gets the focus.
function moveFocus(by) {
  const cards = [...document.querySelectorAll("section:not([hidden]) .sample")];
  if (!cards.length) return;
  const place = cards.indexOf(document.activeElement);
  const next = cards[place < 0 ? 0 : Math.min(Math.max(place + by, 0), cards.length - 1)];
  next.focus();
  next.scrollIntoView({ block: "nearest" });
}

function startKeys(go) {
  const keys = document.getElementById("keys");
  document.getElementById("show-keys").addEventListener("click", () => keys.showModal());
  document.getElementById("keys-close").addEventListener("click", () => keys.close());
  // An address of the page says what is shown, so the link is followed here.
  document.querySelector(".skip").addEventListener("click", (event) => {
    event.preventDefault();
    document.getElementById("main").focus();
  });
  const views = { o: "overview", f: "failures", s: "samples" };
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (document.querySelector("dialog[open]") || event.target.closest("input, select, textarea")) return;
    if (event.key === "?") keys.showModal();
    else if (event.key === "/") go("samples").then(() => document.getElementById("search").focus());
    else if (event.key in views) go(views[event.key]);
    else if (event.key === "j" || event.key === "k") moveFocus(event.key === "j" ? 1 : -1);
    else return;
    event.preventDefault();
  });
}

// Paper shows all that can be unfolded, and the gallery, whose images have to be there
// before: printing waits for none.
function startPrinting(gallery) {
  let closed = [];
  const showGallery = () => gallery.show(gallery.dataset || "");
  const idle = window.requestIdleCallback || setTimeout;
  if (document.readyState === "complete") idle(showGallery);
  else addEventListener("load", () => idle(showGallery), { once: true });
  addEventListener("beforeprint", () => {
    showGallery();
    closed = [...document.querySelectorAll("details:not([open])")];
    for (const each of closed) each.open = true;
  });
  addEventListener("afterprint", () => {
    for (const each of closed) each.open = false;
  });
}

async function start() {
  startTheme();
  let lastView = "";
  const parameters = () => new URLSearchParams(location.hash.slice(1));
  const viewOf = (given) => given.get("view") || (given.has("sample") ? "samples" : "overview");
  showView(viewOf(parameters()), parameters().get("dataset"));
  const index = await unpack(held("index"));
  const samples = new Samples(index, () => {
    history.replaceState(null, "", toHash(samples.query()));
    samples.apply();
  });
  const gallery = new Gallery(index, samples);
  const sheet = new Sheet(index, samples, (number) => {
    const given = parameters();
    if (number === null) given.delete("sample");
    else given.set("sample", samples.name(number));
    history.replaceState(null, "", toHash(given));
    if (number !== null) sheet.show(number);
  });
  const missing = (what) => {
    const shown = document.getElementById("absent-part");
    shown.hidden = !what;
    shown.textContent = what;
  };
  const follow = async () => {
    const given = parameters();
    const view = viewOf(given);
    const dataset = given.get("dataset") || "";
    const key = `${view} ${view === "dataset" ? dataset : ""}`;
    const known = showView(view, dataset);
    missing(known ? "" : `This report has no ${view === "dataset" ? `dataset ${dataset}` : `part ${view}`}.`);
    if (key !== lastView && lastView && !given.has("at")) {
      scrollTo(0, 0);
      document.getElementById("main").focus({ preventScroll: true });
    }
    const entering = key !== lastView;
    lastView = key;
    if (view === "failures") gallery.show(dataset);
    if (given.has("at")) goTo(given.get("at"));
    if (view !== "samples" && view !== "failures") return sheet.close();
    let changed = entering;
    for (const name of Object.keys(samples.filters)) {
      const value = given.get(name) || "";
      changed ||= samples.filters[name] !== value;
      samples.filters[name] = value;
    }
    if (changed) await samples.apply();
    const sample = given.get("sample");
    if (sample === null) return sheet.close();
    const number = samples.number(sample);
    if (number < 0) {
      missing(`This report has no sample ${sample}.`);
      return sheet.close();
    }
    await sheet.show(number);
  };
  addEventListener("hashchange", follow);
  startKeys(async (view) => {
    if (viewOf(parameters()) === view) return;
    history.pushState(null, "", toHash({ view }));
    await follow();
  });
  startPrinting(gallery);
  if (document.readyState === "loading" && (parameters().has("sample") || viewOf(parameters()) === "failures")) {
    await new Promise((resolve) => addEventListener("DOMContentLoaded", resolve, { once: true }));
  }
  await follow();
  document.documentElement.dataset.ready = "yes";
  // Images stand last in the file.
  if (document.readyState === "loading") addEventListener("DOMContentLoaded", () => samples.redraw(), { once: true });
}

start();

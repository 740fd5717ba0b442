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

function showView(view) {
  const sections = [...document.querySelectorAll("[data-view]")];
  const known = sections.some((section) => section.dataset.view === view) ? view : "overview";
  const shown = sections.find((section) => section.dataset.view === known);
  const changed = shown.hidden;
  for (const section of sections) section.hidden = section !== shown;
  for (const link of document.querySelectorAll("[data-nav]")) {
    if (link.dataset.nav === known) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  return changed;
}

async function start() {
  startTheme();
  let lastView = "";
  const parameters = () => new URLSearchParams(location.hash.slice(1));
  showView(parameters().get("view") || "overview");
  const index = await unpack(held("index"));
  const samples = new Samples(index, () => {
    history.replaceState(null, "", `#${new URLSearchParams(samples.query())}`);
    samples.apply();
  });
  const sheet = new Sheet(index, samples, (number) => {
    const hash = number === null ? `#${new URLSearchParams(samples.query())}` : samples.address(number);
    history.replaceState(null, "", hash);
    if (number !== null) sheet.show(number);
  });
  const follow = async () => {
    const given = parameters();
    const view = given.get("view") || "overview";
    showView(view);
    if (view !== lastView && lastView) {
      scrollTo(0, 0);
      document.getElementById("main").focus({ preventScroll: true });
    }
    const entering = view === "samples" && lastView !== "samples";
    lastView = view;
    if (view !== "samples") return sheet.close();
    let changed = entering;
    for (const name of Object.keys(samples.filters)) {
      const value = given.get(name) || "";
      changed ||= samples.filters[name] !== value;
      samples.filters[name] = value;
    }
    if (changed) await samples.apply();
    const sample = given.get("sample");
    if (sample === null) return sheet.close();
    const number = Number(sample);
    if (number in index.id) await sheet.show(number);
  };
  addEventListener("hashchange", follow);
  addEventListener("keydown", (event) => {
    const typing = event.target.closest("input, select, textarea, dialog");
    if (event.key === "/" && !typing && lastView === "samples") {
      event.preventDefault();
      document.getElementById("search").focus();
    }
  });
  if (document.readyState === "loading" && parameters().has("sample")) {
    await new Promise((resolve) => addEventListener("DOMContentLoaded", resolve, { once: true }));
  }
  await follow();
  document.documentElement.dataset.ready = "yes";
  // Images stand last in the file.
  if (document.readyState === "loading") addEventListener("DOMContentLoaded", () => samples.redraw(), { once: true });
}

start();

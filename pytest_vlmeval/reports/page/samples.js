// The grid of samples: filters, and of all cards only those in sight.

const CARD = { width: 250, height: 230 };
const OUTSIDE = 600; // Pixels above and below the window in which cards are ready.
const JUDGED = { matched: "matched without a judge", judged: "judged", judge_failed: "judge failed", judge_unclear: "judge unclear" };
const CUT_OFF = "cut_off";
// Not one cause but several: of no usable answer, and of anything that is not right.
const USELESS = ["failed", "aborted", "refused", "filtered", "empty"];
const MANY = { any: "any", useless: "no usable answer" };
const LOST = "regressed";
const FLIPS = { regressed: "right before, not now", fixed: "right now, not before" };

function hasCause(index, number, cause) {
  if (cause === LOST) return index.flip[number] === LOST;
  const own = index.cause[number] < 0 ? "" : index.causes[index.cause[number]][0];
  return cause === "any" ? own !== "" : cause === "useless" ? USELESS.includes(own) : own === cause;
}

class Samples {
  constructor(index, onChange) {
    this.index = index;
    this.onChange = onChange;
    this.filters = { dataset: "", category: "", outcome: "", cause: "", flip: "", judge: "", search: "", order: "" };
    this.found = index.id.map((_, number) => number);
    this.numbersByName = null;
    this.grid = document.getElementById("grid");
    this.cards = new Map();
    this.texts = null;
    this.columns = 1;
    this.round = 0;
    this.makeFilters();
    addEventListener("scroll", () => this.draw(), { passive: true });
    new ResizeObserver(() => this.redraw()).observe(this.grid);
  }

  makeFilters() {
    const { index } = this;
    const some = (values) => [...new Set(values)].filter(Boolean);
    this.options("dataset", "all", index.datasets.map((name) => [name, name]));
    const causes = index.causes.filter(([cause], place) => index.cause.includes(place)).map(([cause, title]) => [cause, title]);
    this.options("cause", "all", [...Object.entries(MANY), ...causes]);
    this.hideIfUseless("cause", !causes.length);
    this.options("judge", "all", some(index.judge).map((state) => [state, JUDGED[state] || words(state)]));
    this.options("flip", "all", some(index.flip).map((flip) => [flip, FLIPS[flip]]));
    this.hideIfUseless("dataset", index.datasets.length < 2);
    this.hideIfUseless("judge", !index.judge.some((state) => state && state !== "matched"));
    this.hideIfUseless("flip", !index.comparedWith);
    for (const select of document.querySelectorAll("[data-filter]")) {
      select.addEventListener("change", () => this.set({ [select.dataset.filter]: select.value }));
    }
    const search = document.getElementById("search");
    let timer = 0;
    search.addEventListener("input", () => {
      clearTimeout(timer);
      timer = setTimeout(() => this.set({ search: search.value }), 150);
    });
    const order = document.getElementById("order");
    order.addEventListener("change", () => this.set({ order: order.value }));
    document.getElementById("filters").addEventListener("submit", (event) => event.preventDefault());
  }

  options(filter, all, choices) {
    const select = document.getElementById(`filter-${filter}`);
    select.replaceChildren(make("option", { value: "" }, all));
    for (const [value, name] of choices) select.append(make("option", { value }, name));
  }

  hideIfUseless(filter, useless) {
    document.getElementById(`filter-${filter}`).parentElement.hidden = useless;
  }

  set(changes) {
    if ("dataset" in changes && changes.dataset !== this.filters.dataset) changes.category ??= "";
    Object.assign(this.filters, changes);
    this.onChange();
  }

  // Show what the filters leave.
  async apply() {
    const round = ++this.round;
    const { index, filters } = this;
    this.showCategories();
    document.getElementById("filter-dataset").value = filters.dataset;
    document.getElementById("filter-category").value = filters.category;
    document.getElementById("filter-judge").value = filters.judge;
    document.getElementById("filter-cause").value = filters.cause;
    document.getElementById("filter-flip").value = filters.flip;
    document.getElementById("order").value = filters.order;
    const search = document.getElementById("search");
    if (search.value !== filters.search) search.value = filters.search;
    const needle = filters.search.trim().toLowerCase();
    if (needle && !this.texts) {
      document.getElementById("status").textContent = "Searching …";
      this.texts = await this.loadTexts();
      if (round !== this.round) return;
    }
    const category = filters.category && index.categories.indexOf(filters.category);
    const dataset = filters.dataset && index.datasets.indexOf(filters.dataset);
    const others = this.numbers().filter(
      (n) =>
        (!filters.dataset || index.dataset[n] === dataset) &&
        (!filters.cause || hasCause(index, n, filters.cause)) &&
        (!filters.category || index.category[n] === category) &&
        (!filters.flip || index.flip[n] === filters.flip) &&
        (!filters.judge || index.judge[n] === filters.judge) &&
        (!needle || this.texts[n].includes(needle)),
    );
    this.showChips(others);
    const outcome = filters.outcome && index.outcomes.indexOf(filters.outcome);
    const chosen = (n) => (filters.outcome === CUT_OFF ? index.cutOff[n] : index.outcome[n] === outcome);
    this.found = filters.outcome ? others.filter(chosen) : others;
    if (filters.order === "slow") this.found.sort((a, b) => index.ms[b] - index.ms[a]);
    if (filters.order === "long") this.found.sort((a, b) => index.question[b].length - index.question[a].length);
    const all = counted.format(index.id.length);
    document.getElementById("status").textContent =
      this.found.length === index.id.length ? `${all} samples` : `${counted.format(this.found.length)} of ${all} samples`;
    this.redraw();
  }

  numbers() {
    return this.index.id.map((_, number) => number);
  }

  async loadTexts() {
    const { index } = this;
    const count = Math.ceil(index.id.length / index.part);
    const all = await Promise.all(Array.from({ length: count }, (_, number) => loadPart(number)));
    return all.flat().map((each, n) => {
      const prompt = (each.prompt || []).flat().filter((part) => typeof part === "string");
      const earlier = (each.earlier || []).map(([said]) => said);
      const before = each.before ? each.before.answer : "";
      const place = `${index.datasets[index.dataset[n]]}-${index.id[n]}`;
      return [place, ...prompt, ...earlier, each.answer, each.error, each.extracted, each.reference, before].join("\n").toLowerCase();
    });
  }

  showCategories() {
    const { index, filters } = this;
    const own = filters.dataset === "" ? index.category : index.category.filter((_, n) => index.datasets[index.dataset[n]] === filters.dataset);
    const names = [...new Set(own)].filter((number) => number >= 0).sort((a, b) => a - b).map((number) => index.categories[number]);
    this.options("category", "all", names.map((name) => [name, name]));
    this.hideIfUseless("category", names.length < 2);
  }

  showChips(numbers) {
    const { index, filters } = this;
    const counts = new Map();
    for (const n of numbers) counts.set(index.outcome[n], (counts.get(index.outcome[n]) || 0) + 1);
    const chips = document.getElementById("chips");
    const focused = document.activeElement?.dataset.outcome;
    const chip = (outcome, count) => {
      const button = make("button", { type: "button", className: "chip" });
      button.dataset.outcome = outcome;
      button.setAttribute("aria-pressed", String(filters.outcome === outcome));
      if (outcome) button.append(make("span", { className: `swatch ${outcome}`, "aria-hidden": "true" }));
      button.append(words(outcome) || "all", " ", make("b", {}, counted.format(count)));
      button.addEventListener("click", () => this.set({ outcome }));
      return button;
    };
    const shown = index.outcomes.map((outcome, number) => [outcome, counts.get(number) || 0]);
    shown.push([CUT_OFF, numbers.filter((n) => index.cutOff[n]).length]);
    chips.replaceChildren(
      chip("", numbers.length),
      ...shown.filter(([outcome, count]) => count || outcome === filters.outcome).map(([outcome, count]) => chip(outcome, count)),
    );
    if (focused !== undefined) chips.querySelector(`[data-outcome="${focused}"]`)?.focus();
  }

  redraw() {
    for (const card of this.cards.values()) card.remove();
    this.cards.clear();
    const width = this.grid.clientWidth;
    if (!width) return;
    this.columns = Math.max(1, Math.floor((width + 12) / CARD.width));
    if (width < 520) this.columns = 2;
    this.cardWidth = (width + 12) / this.columns;
    this.grid.style.height = `${Math.ceil(this.found.length / this.columns) * CARD.height}px`;
    this.draw();
  }

  draw() {
    if (!this.grid.clientWidth) return;
    const top = -this.grid.getBoundingClientRect().top;
    const first = Math.max(0, Math.floor((top - OUTSIDE) / CARD.height)) * this.columns;
    const last = Math.ceil((top + innerHeight + OUTSIDE) / CARD.height) * this.columns;
    const wanted = new Map();
    for (let place = first; place < Math.min(last, this.found.length); place++) wanted.set(place, this.found[place]);
    for (const [place, card] of this.cards) {
      if (!wanted.has(place) && !card.contains(document.activeElement)) {
        card.remove();
        this.cards.delete(place);
      }
    }
    // In the order of the samples, so that the tab key follows it.
    let after = null;
    for (const [place, number] of wanted) {
      let card = this.cards.get(place);
      if (!card) {
        card = this.card(place, number);
        this.cards.set(place, card);
        if (after) after.after(card);
        else this.grid.prepend(card);
      }
      after = card;
    }
  }

  card(place, number) {
    const card = make("li", {}, this.link(number, this.address(number)));
    card.setAttribute("aria-setsize", this.found.length);
    card.setAttribute("aria-posinset", place + 1);
    card.style.width = `${this.cardWidth}px`;
    card.style.height = `${CARD.height}px`;
    const row = Math.floor(place / this.columns);
    card.style.transform = `translate(${(place % this.columns) * this.cardWidth}px, ${row * CARD.height}px)`;
    return card;
  }

  // A sample as a link: its image, and what was answered.
  link(number, href) {
    const { index } = this;
    const outcome = index.outcomes[index.outcome[number]];
    const name = `${index.datasets[index.dataset[number]]}-${index.id[number]}`;
    const answer = index.answer[number] || "no answer";
    const reference = index.reference[number];
    const was = index.was[number];
    const shown = index.flip[number] || outcome;
    // What is shown of a request without an answer says why there is none.
    const label = outcome === "failed" || outcome === "aborted" ? "error" : "answer";
    const line = (label, text) => make("span", {}, make("span", { className: "label" }, label), text);
    const link = make(
      "a",
      { className: `sample ${outcome}`, href, "aria-label": `${name}, ${words(shown)}${index.cutOff[number] ? ", cut off" : ""}: ${label} ${answer}${was ? `, before ${was}` : ""}${reference ? `, reference ${reference}` : ""}` },
      this.thumb(number),
      make(
        "span",
        { className: "words" },
        make("span", { className: "head" }, make("b", {}, index.id[number]), make("span", {}, index.datasets[index.dataset[number]]), make("span", { className: `pill ${shown}` }, words(shown)), index.cutOff[number] ? make("span", { className: "pill cut_off" }, words(CUT_OFF)) : ""),
        line(`${label}  `, was ? `${answer}  (before: ${was})` : answer),
        reference ? line("reference  ", reference) : "",
      ),
    );
    link.dataset.sample = this.name(number);
    return link;
  }

  thumb(number) {
    const { index } = this;
    const address = imageAddress(index.image[number]);
    const content = address ? make("img", { src: address, alt: "", decoding: "async" }) : make("p", {}, index.question[number] || "no image here");
    return make("span", { className: "thumb" }, content);
  }

  // What names a sample in addresses, and its number; -1 for a name that is none.
  name(number) {
    return `${this.index.datasets[this.index.dataset[number]]}/${this.index.id[number]}`;
  }

  number(name) {
    this.numbersByName ??= new Map(this.index.id.map((_, number) => [this.name(number), number]));
    return this.numbersByName.get(name) ?? -1;
  }

  address(number) {
    return toHash([...this.query(), ["sample", this.name(number)]]);
  }

  query() {
    return [["view", "samples"], ...Object.entries(this.filters).filter(([, value]) => value !== "")];
  }
}

// The gallery: what is not right, by its cause, with a few samples of each.

// So many cards of each cause; a link beside the title leads to all of them.
const SHOWN = 12;
const LOST_WORDS = [LOST, "Lost", "Right in what the run is compared with, and not now."];

class Gallery {
  constructor(index, samples) {
    this.index = index;
    this.samples = samples;
    this.dataset = null;
  }

  // Show the failures of a dataset, or of all for "".
  show(dataset) {
    if (this.dataset === dataset) return;
    this.dataset = dataset;
    const { index } = this;
    const place = index.datasets.indexOf(dataset);
    const numbers = index.id.map((_, number) => number).filter((number) => place < 0 || index.dataset[number] === place);
    const found = [LOST_WORDS, ...index.causes]
      .map(([cause, title, why]) => ({ cause, title, why, numbers: numbers.filter((number) => hasCause(index, number, cause)) }))
      .filter((each) => each.numbers.length);
    document.getElementById("gallery-of").textContent = place < 0 ? "" : ` of ${dataset}`;
    document.getElementById("gallery-all").hidden = place < 0;
    document.getElementById("gallery-causes").replaceChildren(...found.map((each) => this.jump(each)));
    const none = make("p", { className: "lead" }, "Every sample has an answer, and none is wrong.");
    document.getElementById("gallery").replaceChildren(...(found.length ? found.map((each) => this.section(each)) : [none]));
  }

  jump({ cause, title, numbers }) {
    const link = make("a", { className: "chip", href: this.address("failures", { at: `cause-${cause}` }) });
    link.append(make("span", { className: `swatch ${cause}`, "aria-hidden": "true" }), `${title} `, make("b", {}, counted.format(numbers.length)));
    return make("li", {}, link);
  }

  section({ cause, title, why, numbers }) {
    const filter = cause === LOST ? { flip: LOST } : { cause };
    const heading = make("h2", { id: `cause-${cause}`, tabIndex: -1 }, `${title} `, make("span", { className: "count" }, counted.format(numbers.length)));
    const all = make("a", { className: "button", href: this.address("samples", filter) }, numbers.length === 1 ? "See it" : `See all ${counted.format(numbers.length)}`);
    all.setAttribute("aria-label", `${all.textContent}: ${title}`);
    const cards = spread(numbers, this.index.dataset).map((number) => {
      const address = this.address("failures", { ...filter, sample: this.samples.name(number) });
      return make("li", {}, this.samples.link(number, address));
    });
    return make("section", { className: "cause", "aria-labelledby": heading.id }, make("div", { className: "title-row" }, heading, all), make("p", { className: "note" }, why), make("ul", { className: "gallery" }, ...cards));
  }

  address(view, more) {
    return toHash({ view, ...(this.dataset ? { dataset: this.dataset } : {}), ...more });
  }
}

// At most `SHOWN` of these samples, taken in turn from each dataset.
function spread(numbers, datasets) {
  if (numbers.length <= SHOWN) return numbers;
  const byDataset = new Map();
  for (const number of numbers) {
    if (!byDataset.has(datasets[number])) byDataset.set(datasets[number], []);
    byDataset.get(datasets[number]).push(number);
  }
  const found = [];
  for (let turn = 0; found.length < SHOWN; turn++) {
    for (const own of byDataset.values()) if (turn < own.length) found.push(own[turn]);
  }
  return found.slice(0, SHOWN).sort((a, b) => a - b);
}

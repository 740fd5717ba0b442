// The side sheet: one sample with everything that is known of it.

class Sheet {
  constructor(index, samples, go) {
    this.index = index;
    this.samples = samples;
    this.go = go;
    this.number = -1;
    this.dialog = document.getElementById("sheet");
    this.zoom = document.getElementById("zoom");
    const on = (id, action) => document.getElementById(id).addEventListener("click", action);
    on("previous", () => this.step(-1));
    on("next", () => this.step(1));
    on("close", () => this.dialog.close());
    this.link = document.getElementById("sheet-link");
    on("zoom-close", () => this.zoom.close());
    this.dialog.addEventListener("close", () => {
      this.go(null);
      // Where one has stepped to, not where one began.
      const name = this.samples.name(this.number);
      [...document.querySelectorAll("section:not([hidden]) .sample")].find((card) => card.dataset.sample === name)?.focus();
    });
    this.dialog.addEventListener("click", (event) => event.target === this.dialog && this.dialog.close());
    // Not the dialog: what had the focus may be gone with the sample before.
    addEventListener("keydown", (event) => this.dialog.open && this.onKey(event));
  }

  onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || this.zoom.open) return;
    const step = { ArrowLeft: -1, k: -1, ArrowRight: 1, j: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    this.step(step);
  }

  step(by) {
    const { found } = this.samples;
    const place = found.indexOf(this.number) + by;
    if (place >= 0 && place < found.length) this.go(found[place]);
  }

  close() {
    if (this.dialog.open) this.dialog.close();
  }

  async show(number) {
    const { index } = this;
    this.number = number;
    const detail = await loadDetail(index, number);
    if (this.number !== number) return;
    const name = `${index.datasets[index.dataset[number]]}-${index.id[number]}`;
    const outcome = index.outcomes[index.outcome[number]];
    const place = this.samples.found.indexOf(number);
    document.getElementById("sheet-title").textContent = name;
    this.link.href = toHash({ sample: this.samples.name(number) });
    const pill = document.getElementById("sheet-outcome");
    pill.className = `pill ${index.flip[number] || outcome}`;
    pill.textContent = words(index.flip[number] || outcome);
    document.getElementById("sheet-place").textContent = place < 0 ? "" : `${counted.format(place + 1)} of ${counted.format(this.samples.found.length)}`;
    document.getElementById("previous").disabled = place <= 0;
    document.getElementById("next").disabled = place < 0 || place === this.samples.found.length - 1;
    const body = document.getElementById("sheet-body");
    body.replaceChildren(...this.content(number, detail, name));
    body.scrollTop = 0;
    if (!this.dialog.open) this.dialog.showModal();
    if (!this.dialog.contains(document.activeElement) || document.activeElement.disabled) body.focus({ preventScroll: true });
  }

  content(number, detail, name) {
    const { index } = this;
    const outcome = index.outcomes[index.outcome[number]];
    const found = this.dialogue(detail, name);
    found.push(make("h3", {}, detail.where ? `Answer to ${detail.where}` : "Answer"), this.answers(detail, outcome));
    const read = [];
    if (detail.extracted) read.push(fact("read out of the answer", detail.extracted));
    if (detail.unread) read.push(fact("read out of the answer", "no option"));
    if (detail.lost) read.push(fact("no answer can be right", detail.lost));
    if (detail.value != null && detail.value !== 0 && detail.value !== 1) read.push(fact("value", String(detail.value)));
    if (detail.corrected) read.push(fact("by corrected scoring", { 0: "wrong", 1: "right" }[detail.corrected] || detail.corrected));
    if (detail.repeats) read.push(fact("right", `${detail.repeats.filter((value) => value >= 0.5).length} of ${detail.repeats.length} times; the answer shown is the first`));
    if (index.cutOff[number]) read.push(fact("cut off", "at the token limit; what there is of its text is scored"));
    const category = index.categories[index.category[number]];
    if (index.cause[number] >= 0) read.push(fact("cause", index.causes[index.cause[number]][1]));
    if (category) read.push(fact("category", category));
    if (detail.group) read.push(fact("judged together with", detail.group));
    if (index.judge[number]) read.push(fact("judge", JUDGED[index.judge[number]] || words(index.judge[number])));
    if (detail.ms) read.push(fact("latency", `${counted.format(detail.ms)} ms`));
    if (detail.retries) read.push(fact("sent again", `${detail.retries} times`));
    if (detail.promptTokens || detail.completionTokens) read.push(fact("tokens", `${counted.format(detail.promptTokens)} in, ${counted.format(detail.completionTokens)} out`));
    if (read.length) found.push(make("h3", {}, "Details"), make("dl", { className: "facts" }, ...read));
    if (detail.reason) found.push(folded("Notes of the scoring", detail.reason));
    for (const each of detail.judged || []) found.push(transcript(each));
    return found;
  }

  // The prompt; of several turns each with the reply to it, but for the last one's.
  dialogue(detail, name) {
    const prompt = detail.prompt || [];
    const count = prompt.flat().filter((part) => part.kind === "image").length;
    const images = { count, shown: 0, name };
    if (prompt.length < 2) return [make("h3", {}, "Prompt"), ...this.turn(prompt.flat(), images)];
    const earlier = detail.earlier || [];
    return prompt.flatMap((turn, number) => {
      const shown = [make("h3", {}, `Turn ${number + 1} of ${prompt.length}`), ...this.turn(turn, images)];
      if (number < earlier.length) shown.push(make("div", { className: "answers" }, box(this.index.model, "", ...reply(...earlier[number]))));
      return shown;
    });
  }

  answers(detail, outcome) {
    const boxes = [];
    if (detail.reference != null) boxes.push(box("Reference", "", text(detail.reference)));
    const own = reply(detail.answer || detail.error || "No answer yet", detail.reasoning);
    if (detail.answer && detail.error) own.push(text(detail.error));
    boxes.push(box(this.index.model, outcome, ...own));
    if (detail.before) {
      const { before } = detail;
      const said = before.answer || (before.extracted ? `read as: ${before.extracted}` : "Its answer is not known here: a baseline has verdicts alone, and this store has no run with them.");
      boxes.push(box(`${this.index.comparedWith}: ${words(before.outcome)}`, before.outcome, text(said)));
    }
    return make("div", { className: "answers" }, ...boxes);
  }

  turn(parts, images) {
    if (!parts.length) return [absent("The prepared dataset is no longer on the machine that wrote this report, so the prompt cannot be shown.")];
    const found = [];
    let strip = null;
    for (const part of parts) {
      if (typeof part === "string") {
        found.push(text(part));
        strip = null;
      } else if (part.kind === "video") {
        found.push(absent("A video file, which is not part of this report."));
      } else {
        images.shown += 1;
        const shown = this.image(part.image, `Image ${images.shown} of ${images.count} of ${images.name}`);
        if (images.count < 4) found.push(shown);
        else if (strip) strip.append(shown);
        else found.push((strip = make("div", { className: "strip", tabIndex: 0, role: "group", "aria-label": "Images" }, shown)));
      }
    }
    return found;
  }

  image(number, alt) {
    const address = imageAddress(number);
    if (!address) return absent("This image had no room in the report, or cannot be read.");
    const button = make("button", { type: "button", className: "image", "aria-label": `${alt}: enlarge` }, make("img", { src: address, alt }));
    button.addEventListener("click", () => {
      const image = document.getElementById("zoom-image");
      image.src = address;
      image.alt = alt;
      this.zoom.showModal();
    });
    return button;
  }
}

const text = (content) => make("p", { className: "text" }, content);
const absent = (content) => make("p", { className: "absent" }, content);
const fact = (name, value) => make("div", {}, make("dt", {}, name), make("dd", {}, value));
const box = (title, css, ...content) => make("div", { className: `box ${css}` }, make("h3", {}, title), ...content);
const reply = (said, reasoning) => (reasoning ? [folded("Reasoning", reasoning), text(said)] : [text(said)]);
const folded = (title, content) => make("details", {}, make("summary", {}, title), text(content));

function transcript(each) {
  return make(
    "details",
    {},
    make("summary", {}, `Judge ${each.judge}: ${each.text == null ? "no reply" : "asked and replied"}`),
    make("h3", {}, "It was asked"),
    text(each.prompt),
    make("h3", {}, `It replied after ${counted.format(each.ms)} ms`),
    text(each.text ?? each.error),
  );
}

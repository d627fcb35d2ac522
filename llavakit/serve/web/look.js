// What the model saw: its squares with their patches and, for a word of the answer, where it looked.

import { make } from "./dom.js";

/** The panel for the server's answer to /v1/look. */
export function panel(seen) {
  const state = { word: null, grid: true, relative: false };
  const views = seen.views.map((view) => new View(view));
  const typical = seen.views.map((_, number) => average(seen.words.map((word) => levels(word, number))));
  const says = make("p", { class: "soft small says", role: "status" });

  const draw = () => {
    const word = seen.words[state.word];
    const heats = views.map((_, number) => word && levels(word, number));
    const shown = heats.map((heat, number) => heat && (state.relative ? beyond(heat, typical[number]) : heat));
    const peak = Math.max(1e-9, ...shown.flatMap((heat) => (heat ? Array.from(heat) : [])));
    views.forEach((view, number) => view.draw(shown[number], peak, state.grid));
    const where = views.length > 1 ? "the pictures" : "the picture";
    says.textContent = word
      ? `${Math.round(word.share * 100)} % of this word's attention went to ${where}; the brighter a patch, the more it had.`
      : seen.words.length ? "Choose a word of the answer to see where the model looked." : "";
    words.forEach((button, number) => button.setAttribute("aria-pressed", number === state.word));
  };

  const choose = (number) => {
    state.word = state.word === number ? null : number;
    draw();
  };
  const move = (event, number) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const next = (number + step + words.length) % words.length;
    words[number].tabIndex = -1;
    words[next].tabIndex = 0;
    words[next].focus();
    state.word = next;
    draw();
  };
  // Offsets count code points; JavaScript's strings count UTF-16 units.
  const letters = Array.from(seen.text);
  const words = seen.words.map((word, number) => make("button", {
    type: "button", class: "word", tabindex: number ? -1 : 0,
    onclick: () => choose(number), onkeydown: (event) => move(event, number),
  }, letters.slice(word.start, word.end).join("")));

  const toggle = (name, label) => make("label", { class: "switch" },
    make("input", { type: "checkbox", checked: state[name],
      onchange: (event) => { state[name] = event.target.checked; draw(); } }), label);
  const node = make("div", { class: "look" },
    make("div", { class: "views" }, ...views.map((view) => view.node)),
    words.length ? make("p", { class: "words", role: "group", "aria-label": "Words of the answer" },
      ...words.flatMap((word) => [word, " "])) : null,
    says,
    make("div", { class: "switches" }, toggle("grid", "Patch grid"),
      words.length > 1 ? toggle("relative", "Only what this word has beyond the answer's average") : null));
  Promise.all(views.map((view) => view.ready)).then(draw);
  return node;
}

const HOT = [[255, 96, 0], [255, 214, 64]];

class View {
  constructor({ image, rows, columns }) {
    Object.assign(this, { rows, columns });
    this.picture = new Image();
    this.ready = new Promise((resolve) => { this.picture.onload = resolve; });
    this.picture.src = image;
    this.canvas = make("canvas", { role: "img", "aria-label": "The picture as the model saw it" });
    this.caption = make("figcaption", { class: "soft small" });
    this.node = make("figure", {}, this.canvas, this.caption);
  }

  /** `heat`: a number for each patch, or nothing. */
  draw(heat, peak, grid) {
    const { picture, canvas, rows, columns } = this;
    // Whole screen pixels for every patch, so that lines are sharp and evenly spaced.
    const cell = Math.max(1, Math.round(672 / columns));
    canvas.width = cell * columns;
    canvas.height = cell * rows;
    this.caption.textContent =
      `${picture.naturalWidth} × ${picture.naturalHeight} pixels, ${columns} × ${rows} patches of ${picture.naturalWidth / columns}`;
    const pen = canvas.getContext("2d");
    pen.drawImage(picture, 0, 0, canvas.width, canvas.height);
    if (heat) {
      // What was looked at is lit, the rest lies in the dark; the tint must not hide what is there.
      heat.forEach((value, index) => {
        const share = value / peak;
        const box = [(index % columns) * cell, Math.floor(index / columns) * cell, cell, cell];
        const [r, g, b] = HOT[0].map((low, n) => Math.round(low + (HOT[1][n] - low) * share));
        for (const colour of [`rgb(12 14 20 / ${0.66 * (1 - share)})`, `rgb(${r} ${g} ${b} / ${0.5 * share ** 0.7})`]) {
          pen.fillStyle = colour;
          pen.fillRect(...box);
        }
      });
    }
    if (grid) {
      pen.lineWidth = 1;
      for (const [colour, shift] of [["rgb(0 0 0 / .45)", 0.5], ["rgb(255 255 255 / .35)", 1.5]]) {
        pen.strokeStyle = colour;
        pen.beginPath();
        for (let n = 1; n < columns; n++) { pen.moveTo(n * cell + shift, 0); pen.lineTo(n * cell + shift, canvas.height); }
        for (let n = 1; n < rows; n++) { pen.moveTo(0, n * cell + shift); pen.lineTo(canvas.width, n * cell + shift); }
        pen.stroke();
      }
    }
  }
}

/** A word's attention over a view's patches, as shares of all of it. */
function levels(word, number) {
  const bytes = word.heat.map((text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)));
  const total = bytes.reduce((sum, view) => sum + view.reduce((a, b) => a + b, 0), 0);
  return Float64Array.from(bytes[number], (value) => (total ? (value * word.share) / total : 0));
}

function average(heats) {
  if (!heats.length) return null;
  return heats[0].map((_, patch) => heats.reduce((sum, heat) => sum + heat[patch], 0) / heats.length);
}

const beyond = (heat, typical) => heat.map((value, patch) => Math.max(0, value - typical[patch]));

// Turns as elements, and turns as the server's messages.

import { icon, make } from "./dom.js";

/** The conversation as OpenAI's messages. A question that got no answer is left out, unless it is the last. */
export function wire(turns, system) {
  const kept = turns.filter((turn, n) =>
    turn.role === "user" ? n === turns.length - 1 || turns[n + 1].text.trim() : turn.text.trim());
  const messages = kept.map(({ role, text, pictures }) => ({
    role,
    content: pictures?.length
      ? [...pictures.map((url) => ({ type: "image_url", image_url: { url } })), { type: "text", text }]
      : text,
  }));
  return system.trim() ? [{ role: "system", content: system }, ...messages] : messages;
}

/** "58 tokens · first after 0.31 s · 43.2 tokens/s" */
export function figures({ tokens, first, seconds, ended }) {
  const parts = [];
  if (tokens != null) parts.push(`${tokens} ${tokens === 1 ? "token" : "tokens"}`);
  if (first != null) parts.push(`first after ${first.toFixed(2)} s`);
  if (tokens > 1 && seconds > 0) parts.push(`${((tokens - 1) / seconds).toFixed(1)} tokens/s`);
  if (ended === "length") parts.push("cut at the longest answer");
  if (ended === "stopped") parts.push("stopped");
  return parts.join(" · ");
}

function action(name, label, onclick) {
  return make("button", { type: "button", class: "action", onclick, title: label, "aria-label": label }, icon(name));
}

/** A question; `edit` is what its button does. */
export function asked(turn, edit) {
  const pictures = turn.pictures?.length
    ? make("div", { class: "shown" }, ...turn.pictures.map((url, n) =>
      make("img", { src: url, alt: `Picture ${n + 1} of this question` })))
    : null;
  return make("li", { class: "turn user" }, pictures,
    turn.text ? make("p", { class: "bubble" }, turn.text) : null,
    make("div", { class: "actions" }, action("edit", "Edit this question", edit)));
}

/** A question as a form to change it; `save(text)`, `cancel()`. */
export function editor(turn, save, cancel) {
  const area = make("textarea", { "aria-label": "Question" });
  area.value = turn.text;
  const submit = (event) => { event.preventDefault(); if (area.value.trim()) save(area.value.trim()); };
  const form = make("form", { class: "editor", onsubmit: submit }, area,
    make("div", { class: "buttons" },
      make("button", { type: "button", class: "plain", onclick: cancel }, "Cancel"),
      make("button", { type: "submit", class: "main" }, "Ask again")));
  area.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) submit(event);
    if (event.key === "Escape") { event.stopPropagation(); cancel(); }
  });
  const pictures = turn.pictures?.map((url) => make("img", { src: url, alt: "" })) ?? [];
  return make("li", { class: "turn user" }, pictures.length ? make("div", { class: "shown" }, ...pictures) : null, form);
}

/** An answer. `again` (the last only) and `see` (where there are pictures) are what its buttons do. */
export function answer(turn, { again, see }) {
  const text = make("p", { class: "text" }, turn.text || (turn.ended ? "(no answer)" : ""));
  const copy = action("copy", "Copy this answer", async () => {
    await navigator.clipboard.writeText(turn.text);
    copy.replaceChildren(icon("done"));
    setTimeout(() => copy.replaceChildren(icon("copy")), 1200);
  });
  const eye = see && make("button", { type: "button", class: "action labelled", "aria-expanded": false,
    onclick: () => see(node, eye) }, icon("eye"), "What the model saw");
  const foot = make("div", { class: "foot" },
    make("span", { class: "figures" }, figures(turn)),
    make("div", { class: "actions" }, turn.text ? copy : null,
      again ? action("again", "Answer again", again) : null, eye || null));
  const node = make("li", { class: turn.text ? "turn assistant" : "turn assistant silent" }, text, foot);
  return node;
}

/** An answer on its way: its element, and `show(text)` for what there is of it. */
export function writing() {
  const dots = make("span", { class: "dots", "aria-hidden": "true" }, make("i"), make("i"), make("i"));
  const text = make("p", { class: "text" }, dots);
  const node = make("li", { class: "turn assistant", "aria-busy": "true" }, text);
  return { node, show: (so) => { text.textContent = so; } };
}

export function failure(message, again) {
  return make("li", { class: "turn failure", role: "alert" }, make("p", {}, message),
    again ? make("button", { type: "button", class: "plain", onclick: again }, "Try again") : null);
}

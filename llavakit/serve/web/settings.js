// The dialog of settings. Every change is kept at once.

import { $, make } from "./dom.js";
import { loadSettings, saveSettings } from "./store.js";

export const settings = loadSettings();

const NUMBERS = ["temperature", "top_p", "max_tokens", "seed"];
let listener = () => {};

/** `changed(name)` is called after a setting has changed. */
export function prepare(changed) {
  listener = changed;
  const form = $("settings").querySelector("form");
  for (const [name, value] of Object.entries(settings)) {
    if (name !== "model" && form.elements[name]) form.elements[name].value = value ?? "";
  }
  show(form);
  form.addEventListener("input", ({ target }) => {
    const { name, value } = target;
    if (!name || !target.checkValidity()) return;
    settings[name] = NUMBERS.includes(name) ? (value === "" ? null : Number(value)) : value;
    saveSettings(settings);
    show(form);
    listener(name);
  });
  // A number that was left empty, or is none, goes back to what counts.
  form.addEventListener("focusout", ({ target }) => {
    if (target.name === "max_tokens" && !target.checkValidity()) target.value = settings.max_tokens;
  });
  $("settings").addEventListener("click", (event) => { if (event.target === $("settings")) $("settings").close(); });
}

export function openSettings(focus) {
  $("settings").showModal();
  if (focus) $("settings").querySelector(`[name=${focus}]`).focus();
}

/** Fills the list of models. Returns the one that is used. */
export function offer(names) {
  const list = $("settings").querySelector("[name=model]");
  list.replaceChildren(...names.map((name) => make("option", { value: name }, name)));
  if (!names.includes(settings.model)) settings.model = names[0];
  list.value = settings.model;
  return settings.model;
}

/** What of the settings goes into a request. */
export function decoding() {
  const { temperature, top_p, max_tokens, seed } = settings;
  return { temperature, top_p, max_tokens, ...(seed === null ? {} : { seed }) };
}

function show(form) {
  for (const output of form.querySelectorAll("output")) {
    output.value = Number(form.elements[output.htmlFor.value].value).toFixed(2);
  }
  const { theme } = settings;
  if (theme === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
}

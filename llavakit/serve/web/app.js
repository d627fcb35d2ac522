// The page: one conversation on view, its pictures and questions, and the way to the server and back.

import { Failed, chat, look, models } from "./api.js";
import { $, icon, make } from "./dom.js";
import { panel } from "./look.js";
import { answer, asked, editor, failure, wire, writing } from "./messages.js";
import { read } from "./pictures.js";
import { decoding, offer, openSettings, prepare, settings } from "./settings.js";
import * as store from "./store.js";

const EXAMPLES = [
  ["shapes", "What do you see?"], ["words", "What word is printed in the picture?"],
  ["count", "How many stars are there?"], ["dark", "What is in the top left corner?"],
];

let talk = blank();
let waiting = []; // data URLs of pictures for the next question
let stopping = null; // AbortController of the answer that is being written

function blank() {
  return { id: crypto.randomUUID?.() ?? String(Math.random()), title: "", changed: 0, turns: [] };
}

// ---- what is on view

function render() {
  const { turns } = talk;
  $("empty").hidden = turns.length > 0;
  const last = turns.length - 1;
  const pictured = turns.some((turn) => turn.pictures?.length);
  $("messages").replaceChildren(...turns.map((turn, n) => turn.role === "user"
    ? asked(turn, () => edit(n))
    : answer(turn, { again: n === last ? again : null, see: pictured && turn.text ? see(n) : null })));
  // A question whose answer never came: the page was closed, or the server failed.
  if (last >= 0 && turns[last].role === "user" && !stopping) {
    $("messages").append(failure(talk.failed ?? "This question has no answer yet.", respond));
  }
  document.title = talk.title ? `${talk.title} – llavakit` : "llavakit";
  $("stop").hidden = !stopping;
  $("send").hidden = Boolean(stopping);
}

async function renderHistory() {
  $("history").replaceChildren(...(await store.all()).map((one) => make("li", {},
    make("button", { type: "button", class: "open", "aria-current": one.id === talk.id,
      onclick: () => { stop(); talk = one; render(); toEnd(); renderHistory(); side(false); } }, one.title || "Pictures"),
    make("button", { type: "button", class: "action", "aria-label": `Delete “${one.title}”`, title: "Delete",
      onclick: async () => { await store.remove(one.id); if (one.id === talk.id) fresh(); renderHistory(); } }, icon("bin")))));
}

function renderWaiting() {
  $("waiting").replaceChildren(...waiting.map((url, n) => make("li", {},
    make("img", { src: url, alt: `Picture ${n + 1} of the next question` }),
    make("button", { type: "button", class: "icon drop-picture", "aria-label": `Take picture ${n + 1} away`,
      onclick: () => { waiting.splice(n, 1); renderWaiting(); $("question").focus(); } }, icon("close")))));
}

const toEnd = () => $("talk").scrollTo({ top: $("talk").scrollHeight });
const nearEnd = () => $("talk").scrollHeight - $("talk").scrollTop - $("talk").clientHeight < 80;

function side(open) {
  document.body.classList.toggle("side-open", open);
  $("shade").hidden = !open;
  $("open-side").setAttribute("aria-expanded", open);
  (open ? $("new") : $("question")).focus({ preventScroll: true });
}

function fresh() {
  stop();
  talk = blank();
  waiting = [];
  renderWaiting();
  render();
  renderHistory();
  side(false);
}

// ---- asking and answering

async function keep() {
  talk.changed = Date.now();
  talk.title ||= talk.turns[0].text.slice(0, 80);
  await store.put(talk);
  renderHistory();
}

async function ask(text) {
  if (stopping || (!text && !waiting.length)) return;
  if (talk.turns.at(-1)?.role === "user") talk.turns.pop(); // it was never answered
  talk.turns.push({ role: "user", text, pictures: waiting });
  waiting = [];
  $("question").value = "";
  grow();
  renderWaiting();
  await respond();
}

/** Has the last question answered. */
async function respond() {
  if (stopping) return;
  const mine = talk, controller = new AbortController();
  stopping = controller;
  delete mine.failed;
  render();
  const live = writing();
  $("messages").append(live.node);
  toEnd();
  $("said").textContent = "Answering …";
  await keep();
  const turn = { role: "assistant", text: "", model: settings.model };
  const began = performance.now();
  let first = null, pieces = 0;
  try {
    const messages = wire(mine.turns, settings.system);
    for await (const piece of chat(settings.key, { model: settings.model, messages, ...decoding() }, controller.signal)) {
      if (piece.text) {
        first ??= performance.now();
        pieces += 1;
        turn.text += piece.text;
        const follow = nearEnd();
        live.show(turn.text);
        if (follow && mine === talk) toEnd();
      } else {
        turn.tokens = piece.usage?.completion_tokens;
        turn.ended = piece.finish;
      }
    }
  } catch (error) {
    if (error.name === "AbortError") {
      turn.ended = "stopped";
      turn.tokens = pieces; // a piece is a token, but for characters of several
    } else {
      mine.failed = said(error);
    }
  }
  if (first !== null) {
    turn.first = (first - began) / 1000;
    turn.seconds = (performance.now() - first) / 1000;
  }
  if (!mine.failed && (turn.text || turn.ended !== "stopped")) mine.turns.push(turn);
  if (stopping === controller) stopping = null;
  if (mine.turns.length && (await store.get(mine.id))) await store.put(mine);
  if (mine !== talk) return;
  const follow = nearEnd();
  render();
  if (follow) toEnd();
  $("said").textContent = mine.failed ?? turn.text;
}

/** A failure in words; a missing key opens the settings. */
function said(error) {
  if (error.status === 401) openSettings("key");
  if (error.status === 429) return `The server is busy. Try again in ${error.retryAfter} s.`;
  return error instanceof Failed ? error.message : `The page failed: ${error.message}`;
}

function stop() {
  stopping?.abort();
  stopping = null;
}

function again() {
  talk.turns.pop();
  respond();
}

function edit(n) {
  if (stopping) return;
  const node = editor(talk.turns[n], (text) => {
    talk.turns = [...talk.turns.slice(0, n), { ...talk.turns[n], text }];
    if (n === 0) talk.title = "";
    respond();
  }, () => { render(); $("question").focus(); });
  $("messages").children[n].replaceWith(node);
  const area = node.querySelector("textarea");
  area.focus();
  area.setSelectionRange(area.value.length, area.value.length);
}

/** What the button "What the model saw" of turn `n` does: opens its panel, or closes it. */
function see(n) {
  return async (node, button) => {
    const open = node.querySelector(".look");
    button.setAttribute("aria-expanded", !open);
    if (open) return open.remove();
    const place = make("p", { class: "look soft small" }, "Looking …");
    node.append(place);
    try {
      const turns = talk.turns.slice(0, n + 1);
      place.replaceWith(panel(await look(settings.key, settings.model, wire(turns, settings.system))));
      node.querySelector(".look").scrollIntoView({ block: "nearest", behavior: "smooth" });
    } catch (error) {
      place.textContent = said(error);
    }
  };
}

// ---- pictures

async function add(files) {
  for (const file of files) {
    try {
      waiting.push(await read(file));
    } catch (error) {
      $("said").textContent = error.message;
      $("hint").textContent = error.message;
      $("hint").classList.add("wrong");
    }
  }
  renderWaiting();
  $("question").focus();
}

function prepareDrop() {
  let depth = 0; // enter and leave come for every element that is passed over
  const files = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
  const hide = () => { depth = 0; $("drop").hidden = true; };
  addEventListener("dragenter", (event) => { if (files(event)) { depth += 1; $("drop").hidden = false; } });
  addEventListener("dragleave", (event) => { if (files(event) && --depth <= 0) hide(); });
  addEventListener("dragover", (event) => { if (files(event)) event.preventDefault(); });
  addEventListener("drop", (event) => {
    if (!files(event)) return;
    event.preventDefault();
    hide();
    add(event.dataTransfer.files);
  });
  addEventListener("paste", (event) => {
    const pasted = [...(event.clipboardData?.files ?? [])];
    if (!pasted.length) return;
    event.preventDefault();
    add(pasted);
  });
}

// ---- beginning

function grow() {
  const area = $("question");
  area.style.height = "auto";
  area.style.height = `${Math.min(area.scrollHeight, 200)}px`;
}

async function connect() {
  try {
    $("model").replaceChildren(offer((await models(settings.key)).map((model) => model.id)));
  } catch (error) {
    $("model").replaceChildren(make("span", { class: "wrong" }, said(error)));
  }
}

function prepareKeys() {
  $("question").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      ask(event.target.value.trim());
    } else if (event.key === "ArrowUp" && !event.target.value && talk.turns.length) {
      event.preventDefault();
      edit(talk.turns.findLastIndex((turn) => turn.role === "user"));
    }
  });
  addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || $("settings").open) return;
    if (document.body.classList.contains("side-open")) side(false);
    else stop();
  });
}

const press = (id, name, work, label) => {
  $(id).prepend(icon(name));
  if (label) $(id).append(label);
  $(id).addEventListener("click", work);
};
press("open-side", "menu", () => side(true));
press("close-side", "close", () => side(false));
press("new", "plus", fresh, "New conversation");
press("open-settings", "settings", () => openSettings());
press("close-settings", "close", () => {});
press("pick", "picture", () => $("files").click());
press("send", "send", () => {});
press("stop", "stop", stop);
$("shade").addEventListener("click", () => side(false));
$("files").addEventListener("change", ({ target }) => { add([...target.files]); target.value = ""; });
$("question").addEventListener("input", grow);
$("ask").addEventListener("submit", (event) => { event.preventDefault(); ask($("question").value.trim()); });
$("examples").append(...EXAMPLES.map(([name, text]) => make("li", {}, make("button", { type: "button",
  onclick: async () => {
    await add([await (await fetch(`/web/examples/${name}.jpg`)).blob()]);
    ask(text);
  } }, make("img", { src: `/web/examples/${name}.jpg`, alt: "" }), make("span", {}, text)))));
prepare((name) => { if (name === "key") connect(); if (name === "model") $("model").textContent = settings.model; });
prepareDrop();
prepareKeys();
render();
renderHistory();
connect();
if (matchMedia("(min-width: 800px)").matches) $("question").focus();

// One task: choose by key, store, and lose nothing that was typed.
//
// A submission has a key that stays the same while it is sent again, and names the version that
// was seen. Until it is stored, what was typed is kept in the browser.
"use strict";

const form = document.getElementById("task");
const status = form.querySelector("[data-status]");
const conflict = form.querySelector("[data-conflict]");
const isSettling = form.dataset.kind === "settle";
const api = isSettling ? `/api/review/task/${form.dataset.task}` : `/api/task/${form.dataset.task}`;
const draftName = `draft ${form.dataset.kind} ${form.dataset.task} ${document.querySelector(".name").textContent}`;
let version = Number(form.dataset.version);
let waiting = null; // the submission under way

function newKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function read() {
  const data = new FormData(form);
  const criteria = {};
  for (const [name, value] of data) {
    if (name.startsWith("criterion ")) criteria[name.slice("criterion ".length)] = value;
  }
  const choice = data.get("choice");
  return {
    choice: choice === null ? null : Number(choice),
    criteria,
    rationale: data.get("rationale") || "",
    answer: data.get("answer") || "",
  };
}

function fill(said) {
  for (const radio of form.querySelectorAll('input[type="radio"]')) {
    const wanted = radio.name === "choice"
      ? String(said.choice) : (said.criteria || {})[radio.name.slice("criterion ".length)];
    radio.checked = radio.value === wanted;
  }
  for (const name of ["rationale", "answer"]) {
    const field = form.elements[name];
    if (field) field.value = said[name] || "";
  }
  const details = form.querySelector("details");
  if (details && said.answer) details.open = true;
  showMeaning();
}

function keepDraft() {
  try { localStorage.setItem(draftName, JSON.stringify({ version, ...read() })); } catch { /* full or off */ }
}

function dropDraft() {
  try { localStorage.removeItem(draftName); } catch { /* off */ }
}

function restoreDraft() {
  try {
    const draft = JSON.parse(localStorage.getItem(draftName));
    if (draft && draft.version === version) fill(draft);
    else if (draft) dropDraft();
  } catch { /* none */ }
}

function showMeaning() {
  const chosen = form.querySelector('input[name="choice"]:checked');
  const place = form.querySelector("[data-meaning-of]");
  if (place) place.textContent = chosen ? chosen.dataset.meaning : "";
}

async function store(action) {
  if (waiting) return;
  const said = read();
  if ((action === "label" || action === "settle") && said.choice === null) {
    say(status, "Choose first which answer is better.", "bad");
    return;
  }
  if (action === "answer" && !said.answer.trim()) {
    say(status, "Write an answer first.", "bad");
    return;
  }
  keepDraft();
  waiting = { action, key: newKey(), expected: version, ...said };
  await submit();
}

async function submit() {
  for (const button of form.querySelectorAll("button")) button.disabled = true;
  say(status, "Storing…");
  conflict.hidden = true;
  let answer;
  try {
    answer = await post(api, waiting);
    if (answer.status >= 502 && answer.status <= 504) throw new Error("nobody behind the proxy");
  } catch {
    // The same key again: if the first one had arrived, it counts once.
    say(status, "No connection. What you typed is kept here and is sent again in a few seconds.", "bad");
    setTimeout(submit, 3000);
    return;
  }
  waiting = null;
  for (const button of form.querySelectorAll("button")) button.disabled = false;
  if (answer.status === 200) {
    version = answer.told.version;
    dropDraft();
    location.assign(answer.told.to);
  } else if (answer.status === 409) {
    showConflict(answer.told);
  } else if (answer.status === 401) {
    say(status, "You are logged out. Log in in another tab, then load this page again: what you typed is kept.", "bad");
  } else {
    say(status, answer.told.error || `The server answered ${answer.status}.`, "bad");
  }
}

function showConflict(told) {
  say(status, told.error, "bad");
  conflict.hidden = false;
  const stored = told.stored;
  const radio = stored.choice && form.querySelector(`input[name="choice"][value="${Number(stored.choice)}"]`);
  const meaning = radio ? radio.dataset.meaning : stored.action || "nothing of yours";
  const reason = stored.rationale ? `, because: ${stored.rationale}` : "";
  conflict.querySelector("[data-conflict-text]").textContent = `Stored is: ${meaning}${reason}. What you have typed here is still there.`;
  version = told.version;
  keepDraft();
  conflict.querySelector("[data-overwrite]").hidden = !stored.action;
}

function action() {
  return { compare: "label", write: "answer", settle: "settle" }[form.dataset.kind];
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  store(action());
});
form.addEventListener("input", () => { keepDraft(); showMeaning(); });
for (const button of form.querySelectorAll("[data-say]")) {
  button.addEventListener("click", () => store(button.dataset.say));
}
for (const button of form.querySelectorAll("[data-start]")) {
  button.addEventListener("click", () => {
    form.elements.answer.value = button.dataset.start;
    form.elements.answer.focus();
    keepDraft();
  });
}
conflict.querySelector("[data-overwrite]").addEventListener("click", () => store(action()));
const leave = conflict.querySelector("[data-next]");
if (leave) leave.addEventListener("click", () => { dropDraft(); location.assign("/"); });

function choose(place) {
  const steps = form.querySelectorAll('input[name="choice"]');
  const radio = steps[place];
  if (!radio) return;
  radio.checked = true;
  radio.focus({ preventScroll: true });
  radio.dispatchEvent(new Event("input", { bubbles: true }));
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  const typing = event.target.matches("textarea, input:not([type=radio]), select");
  if (typing) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  const count = form.querySelectorAll('input[name="choice"]').length;
  const letters = count === 7 ? { a: 1, t: 3, b: 5 } : { a: 0, t: 1, b: 2 };
  const key = event.key.toLowerCase();
  const pressable = event.target.matches("button, a, summary");
  if (/^[1-9]$/.test(key) && Number(key) <= count) choose(Number(key) - 1);
  else if (count && key in letters) choose(letters[key]);
  else if (key === "enter" && !pressable) store(action());
  else if ((key === "s" || key === "f") && !isSettling) store(key === "s" ? "skip" : "flag");
  else if (key === "u") { const undo = form.querySelector("[data-undo]"); if (undo) undo.click(); }
  else if (key === "r") form.elements.rationale.focus();
  else return;
  event.preventDefault();
});

// A page that the back button brings back shows an old state: what is stored has to be asked for.
window.addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });

restoreDraft();
showMeaning();

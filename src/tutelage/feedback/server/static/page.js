// Forms as JSON, the theme, and parts of a page that keep themselves up to date.
"use strict";

const csrf = document.querySelector('meta[name="csrf"]').content;

async function post(path, body) {
  const response = await fetch(path, {
    method: "POST",
    headers: { "Content-Type": "application/json", "X-CSRF-Token": csrf },
    body: JSON.stringify(body),
    credentials: "same-origin",
  });
  let told = {};
  try { told = await response.json(); } catch { /* not ours: the status says enough */ }
  return { status: response.status, told };
}

// Messages are text, never HTML.
function say(place, text, tone) {
  if (!place) return;
  place.textContent = text;
  place.classList.toggle("bad", tone === "bad");
  place.classList.toggle("good", tone === "good");
  place.hidden = !text;
}

async function fields(form) {
  const body = {};
  for (const field of form.elements) {
    if (!field.name) continue;
    if (field.type === "file") body[field.name] = field.files[0] ? await field.files[0].text() : "";
    else if (field.type === "checkbox") body[field.name] = field.checked;
    else if (field.type === "number") body[field.name] = field.valueAsNumber;
    else body[field.name] = field.value;
  }
  return body;
}

async function send(form) {
  const status = form.querySelector("[data-status]");
  const button = form.querySelector('button[type="submit"]');
  button.disabled = true;
  try {
    const { status: code, told } = await post(form.dataset.api, await fields(form));
    if (code !== 200) say(status, told.error || `The server answered ${code}.`, "bad");
    else if (told.link) say(status, told.link, "good");
    else if (told.to === location.pathname && form.dataset.nothing) say(status, form.dataset.nothing);
    else if (told.to) location.assign(told.to);
  } catch {
    say(status, "No connection to the server.", "bad");
  }
  button.disabled = false;
}

document.addEventListener("submit", (event) => {
  const form = event.target;
  if (!form.dataset.api) return;
  event.preventDefault();
  send(form);
});

document.querySelector("[data-theme-toggle]").addEventListener("click", () => {
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  root.dataset.theme = (root.dataset.theme || system) === "dark" ? "light" : "dark";
  try { localStorage.setItem("theme", root.dataset.theme); } catch { /* for this page only */ }
});

const live = document.querySelector("[data-live]");
if (live) {
  setInterval(async () => {
    if (document.hidden || live.contains(document.activeElement)) return;
    try {
      const response = await fetch(location.href, { credentials: "same-origin" });
      const fresh = new DOMParser().parseFromString(await response.text(), "text/html");
      const part = fresh.getElementById(live.id);
      if (part) live.replaceChildren(...part.childNodes);
    } catch { /* next time */ }
  }, 10000);
}

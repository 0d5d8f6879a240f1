// What an operator may change: the overrides of a backend, and with a manager the pool's configuration.

import { ask, find, made } from "/dom.js";

const override = find("override"), apply = find("apply");
let backend = null;

// The form of a backend's view; `may` says whether this page may change anything.
export function showOverride(may, service, name) {
  override.hidden = !may;
  if (backend?.service !== service || backend?.backend !== name) {
    override.reset();
    override.querySelector("output").textContent = "";
    override.querySelector(".error").hidden = true;
  }
  backend = { service, backend: name };
}

async function send(form, path, given, body) {
  const said = form.querySelector(".error");
  said.hidden = true;
  try {
    return await ask(path, given, { method: "POST", body });
  } catch (error) {
    said.textContent = error.message;
    said.hidden = false;
    return null;
  }
}

override.addEventListener("submit", async (event) => {
  event.preventDefault();
  const { weight, reason } = override.elements, action = event.submitter.value;
  const request = { ...backend, action, reason: reason.value };
  if (action === "weight" && weight.value !== "") request.weight = Number(weight.value);
  const answer = await send(override, "/api/override", undefined, JSON.stringify(request));
  override.querySelector("output").textContent = answer ? answer.said.join("; ") : "";
});

// What was dry-run may be applied; another text has to be dry-run first.
function mayApply(may) {
  apply.querySelector("[value=apply]").disabled = !may;
}

find("configuration").addEventListener("input", () => mayApply(false));
apply.addEventListener("submit", async (event) => {
  event.preventDefault();
  const isDry = event.submitter.value === "dry-run", text = find("configuration").value;
  const answer = await send(apply, "/api/apply", isDry ? { dry_run: 1 } : undefined, text);
  if (!answer) {
    find("changes").replaceChildren();
    mayApply(false);
    return;
  }
  const done = isDry ? "This would change:" : `In force as revision ${answer.revision?.number}:`;
  const lines = answer.changes.map((change) => made("li", change));
  const guards = answer.needs_force.map((guard) => made("li", `▲ ${guard}: use lbmux apply --force`, "bad"));
  find("changes").replaceChildren(made("li", answer.changes.length ? done : "Nothing changes."), ...lines, ...guards);
  mayApply(isDry && answer.changes.length > 0 && !guards.length);
});

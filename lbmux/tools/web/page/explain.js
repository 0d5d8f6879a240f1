// The form that asks a mux what it would do with a packet.

import { ask, find, made } from "/dom.js";

export function showMuxesToAsk(names) {
  const select = find("explain-mux");
  if ([...select.options].map((option) => option.value).join() === names.join()) return;
  const chosen = select.value;
  select.replaceChildren(...names.map((name) => new Option(name)));
  if (names.includes(chosen)) select.value = chosen;
}

find("question").addEventListener("submit", async (event) => {
  event.preventDefault();
  const said = find("explain-error");
  said.hidden = true;
  try {
    const answer = await ask("/api/explain", { packet: find("packet").value, mux: find("explain-mux").value });
    const steps = answer.steps.map(({ step, found }) => [step, found]);
    if (answer.hint) steps.push(["hint", answer.hint]);
    find("steps").replaceChildren(...steps.map(([step, found]) => {
      const line = made("li");
      const kind = step === "verdict" ? (answer.kind === "send" ? "good" : "bad") : undefined;
      line.append(made("b", step), made("span", found, kind));
      return line;
    }));
  } catch (error) {
    said.textContent = error.message;
    said.hidden = false;
  }
});

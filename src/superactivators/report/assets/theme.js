// Light, dark, or as the system says.

import { el } from "superactivators/dom.js";

const KEY = "superactivators-theme";
const ORDER = ["auto", "light", "dark"];

function remembered() {
  try {
    return localStorage.getItem(KEY) ?? "auto";
  } catch {
    return "auto"; // Some browsers keep no storage for pages opened as files.
  }
}

function apply(choice) {
  if (choice === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = choice;
  try {
    localStorage.setItem(KEY, choice);
  } catch {
    // The choice then lasts as long as the page.
  }
}

/** Button that goes round the three; every colour is a CSS variable, so nothing has to be redrawn. */
export function themeButton() {
  let choice = ORDER.includes(remembered()) ? remembered() : "auto";
  const button = el("button", { type: "button", class: "quiet" });
  const show = () => {
    apply(choice);
    button.textContent = `Theme: ${choice}`;
    button.setAttribute("aria-label", `Colour theme: ${choice}; change`);
  };
  button.addEventListener("click", () => {
    choice = ORDER[(ORDER.indexOf(choice) + 1) % ORDER.length];
    show();
  });
  show();
  return button;
}

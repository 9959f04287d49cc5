"use strict";
const figures = JSON.parse(document.getElementById("figures").textContent);
const options = { renderer: "svg", actions: false, ast: false };
const views = [];

async function draw(name) {
  const there = await vegaEmbed(document.getElementById(name), figures[name], options);
  // Vega shows tooltips to a pointer that moves; a finger only taps.
  there.view.addEventListener("click", (event, item) => {
    there.view.tooltip()(null, event, item, item && item.tooltip);
  });
  views.push(there.view);
}

async function all() {
  for (const name of Object.keys(figures)) await draw(name);
  document.documentElement.dataset.drawn = String(views.length);
}

function pick() {
  const form = document.getElementById("filters");
  for (const view of views) {
    const known = view.getState().signals;
    for (const [name, value] of new FormData(form))
      if (`pick_${name}` in known) view.signal(`pick_${name}`, value);
    view.run();
  }
}

const form = document.getElementById("filters");
if (form) {
  form.addEventListener("change", pick);
  form.addEventListener("reset", () => setTimeout(pick));
}
window.addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("details")) details.open = true;
  window.dispatchEvent(new Event("resize"));
});
all();

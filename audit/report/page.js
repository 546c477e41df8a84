"use strict";
// All of it is for convenience: the page says the same without. It only reads text and sets attributes and classes.
(() => {
  const all = (selector) => Array.from(document.querySelectorAll(selector));
  const byID = (id) => document.getElementById(id);
  const tools = byID("tools"), find = byID("find"), only = byID("only"), range = byID("range");
  tools.hidden = false;
  tools.addEventListener("submit", (event) => event.preventDefault());

  // Finding: rows of tables, and processes with what is above them.
  const rows = all("tbody tr"), processes = all(".proc");
  const fits = (row, words) => (!only.checked || row.classList.contains("refused")) && (words === "" || row.textContent.toLowerCase().includes(words));
  const filter = () => {
    const words = find.value.trim().toLowerCase();
    for (const row of rows) row.classList.toggle("gone", !fits(row, words));
    const kept = new Set();
    for (const process of processes) {
      const own = process.matches("details") ? process.firstElementChild : process;
      const refused = !only.checked || process.classList.contains("refused");
      if (!refused || !own.textContent.toLowerCase().includes(words)) continue;
      for (let p = process; p && p.classList.contains("proc"); p = p.parentElement) kept.add(p);
    }
    for (const process of processes) process.classList.toggle("gone", !kept.has(process));
  };
  find.addEventListener("input", filter);
  only.addEventListener("change", filter);

  const folds = all("details.proc");
  for (const button of all("[data-fold]")) {
    button.addEventListener("click", () => { for (const d of folds) d.open = button.dataset.fold === "open"; });
  }

  // Zooming: all plots show the piece of time from `from`, `wide` long, of an axis that goes from 0 to 1.
  const plots = all(".zoom"), begin = Number(document.body.dataset.from), end = Number(document.body.dataset.to);
  let from = 0, wide = 1;
  const moment = (at) => new Date(begin + at * (end - begin)).toISOString().slice(0, -1).replace("T", " ");
  const show = (newFrom, newWide) => {
    wide = Math.min(1, Math.max(1e-4, newWide));
    from = Math.min(1 - wide, Math.max(0, newFrom));
    for (const plot of plots) {
      plot.setAttribute("x", (-from / wide * 100) + "%");
      plot.setAttribute("width", (100 / wide) + "%");
    }
    range.value = wide === 1 ? "" : moment(from) + " to " + moment(from + wide) + " UTC";
  };
  const moves = {
    in: () => show(from + wide / 4, wide / 2), out: () => show(from - wide / 2, wide * 2),
    left: () => show(from - wide / 3, wide), right: () => show(from + wide / 3, wide), all: () => show(0, 1),
  };
  for (const button of all("[data-zoom]")) button.addEventListener("click", moves[button.dataset.zoom]);

  // Dragging over a plot zooms to what was dragged over.
  let start = null;
  const place = (event, plot) => {
    const box = plot.getBoundingClientRect();
    return from + wide * Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
  };
  document.addEventListener("pointerdown", (event) => {
    const plot = event.target instanceof Element && event.button === 0 ? event.target.closest(".plot") : null;
    start = plot ? { plot, at: place(event, plot), x: event.clientX } : null;
  });
  let dragged = false; // so the click that a drag ends with is none
  document.addEventListener("click", (event) => { if (dragged) event.preventDefault(); }, true);
  document.addEventListener("pointerup", (event) => {
    if (!start) return;
    const { plot, at, x } = start;
    start = null;
    if (Math.abs(event.clientX - x) < 6) return;
    const to = place(event, plot);
    dragged = true;
    setTimeout(() => { dragged = false; }, 0);
    show(Math.min(at, to), Math.abs(to - at));
  });
})();

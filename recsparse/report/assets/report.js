"use strict";
const root = document.documentElement;
const text = (id) => document.getElementById(id).textContent;
const swap = JSON.parse(text("colours"));
const charts = [...document.querySelectorAll(".chart")];
const phone = window.matchMedia("(max-width: 820px)");

// Figures come in the light colours; in the dark each is exchanged for its counterpart.
function figureOf(chart) {
  let source = text(chart.dataset.figure);
  if (root.dataset.theme === "dark") {
    source = source.replace(/#[0-9a-f]{6}/g, (colour) => swap[colour] || colour);
  }
  const figure = JSON.parse(source);
  if (phone.matches) {
    figure.layout.font.size = 11;
    figure.layout.margin.l = 44;
    figure.layout.margin.r = 8;
    const rows = new Set(figure.data.flatMap((trace) => trace.y || []).filter((y) => typeof y === "string"));
    if (rows.size) {  // long names stand above their rows, not beside them
      const layout = figure.layout;
      layout.height += 14 * rows.size;
      layout.margin.l = 14;
      if (layout.bargap) layout.bargap = 0.6;
      for (const [name, axis] of Object.entries(layout)) {
        if (/^yaxis/.test(name)) axis.showticklabels = false;
      }
      const above = { xref: "x domain", x: 0, xanchor: "left", yanchor: "bottom", yshift: layout.bargap ? 8 : 5, showarrow: false };
      const font = { color: layout.yaxis.tickfont.color };
      const said = [...rows].map((row) => ({ ...above, y: row, text: row, font: { ...font } }));
      layout.annotations = [...(layout.annotations || []), ...said];
    }
    for (const note of figure.layout.annotations || []) {
      note.font.size = 10;
      if (note.showarrow) note.xanchor = "auto";  // a long name must not leave the narrow chart
    }
    const axis = figure.layout.xaxis;
    if (axis.tickvals) {  // every second label, or they overlap
      axis.tickvals = axis.tickvals.filter((_, i) => i % 2 === 0);
      axis.ticktext = axis.ticktext.filter((_, i) => i % 2 === 0);
    }
  }
  return figure;
}

function draw() {
  for (const chart of charts) {
    const figure = figureOf(chart);
    Plotly.react(chart, figure.data, figure.layout, { displayModeBar: false, responsive: true });
  }
}

function setTheme(theme) {
  root.dataset.theme = theme;
  draw();
}

if (phone.matches) for (const extra of document.querySelectorAll("details")) extra.open = false;

const prefersDark = window.matchMedia("(prefers-color-scheme: dark)");
setTheme(prefersDark.matches ? "dark" : "light");
prefersDark.addEventListener("change", (event) => setTheme(event.matches ? "dark" : "light"));
phone.addEventListener("change", draw);
document.querySelector(".toggle").addEventListener("click", () => {
  setTheme(root.dataset.theme === "dark" ? "light" : "dark");
});

// Paper is white, and its width is not the window's.
let before = null;
window.addEventListener("beforeprint", () => {
  before = root.dataset.theme;
  setTheme("light");
  for (const chart of charts) Plotly.relayout(chart, { width: Math.min(chart.clientWidth, 660), autosize: false });
});
window.addEventListener("afterprint", () => setTheme(before || "light"));

function sortBy(header) {
  const table = header.closest("table");
  const column = [...header.parentNode.children].indexOf(header);
  const direction = header.getAttribute("aria-sort") === "ascending" ? -1 : 1;
  const body = table.tBodies[0];
  const value = (row) => row.cells[column].dataset.sort;
  const rows = [...body.rows].sort((a, b) => {
    const x = value(a), y = value(b);
    if (x === "" || y === "") return (x === "") - (y === "");  // what was not measured goes last
    const gap = Number(x) - Number(y);
    return direction * (Number.isNaN(gap) ? x.localeCompare(y) : gap);
  });
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", direction === 1 ? "ascending" : "descending");
  body.append(...rows);
}
for (const button of document.querySelectorAll("thead button")) {
  button.addEventListener("click", () => sortBy(button.closest("th")));
}

for (const button of document.querySelectorAll(".filter button")) {
  button.addEventListener("click", () => {
    for (const other of button.parentNode.children) other.setAttribute("aria-pressed", String(other === button));
    document.body.dataset.show = button.dataset.choose;
  });
}

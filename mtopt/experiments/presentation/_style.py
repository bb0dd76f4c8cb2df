"""How the page looks and what its script does; it is whole without the script, and nothing comes from elsewhere."""

STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; max-width: 72rem; margin: 2rem auto;
       padding: 0 1rem; }
h1 { font-size: 1.7rem; margin-bottom: .2rem } h2 { margin-top: 2.5rem; border-bottom: 1px solid #ddd }
p, ul, figcaption { max-width: 46rem; overflow-wrap: anywhere }
.verdict { font-size: 1.25rem; line-height: 1.4; font-weight: 600 }
.table { overflow-x: auto; margin: 1rem 0 }
table { border-collapse: collapse; font-size: .9rem }
th, td { padding: .3rem .6rem; text-align: right; border-bottom: 1px solid #e5e5e5; white-space: nowrap }
th:first-child, td:first-child { text-align: left } thead th { border-bottom: 2px solid #999; vertical-align: bottom }
th.config, td.config { text-align: left } td.config { white-space: normal; min-width: 15rem; overflow-wrap: anywhere }
thead th { white-space: normal }
th button { all: unset; cursor: pointer } th button:hover, th button:focus-visible { text-decoration: underline }
th[aria-sort=ascending] button::after { content: " ▴" } th[aria-sort=descending] button::after { content: " ▾" }
figure { margin: 1.5rem 0 } figure svg { max-width: 100%; height: auto } figcaption { color: #555; font-size: .9rem }
.panels { display: flex; flex-wrap: wrap; gap: .5rem 1.5rem; align-items: flex-start } .panels > * { max-width: 100% }
.panels > figure { margin: .5rem 0; flex: 0 1 auto } .panels > figure figcaption { max-width: 26rem }
.note { color: #555; font-size: .9rem }
.warn { background: #fff4e0; padding: .6rem 1rem; border-left: 4px solid #e69f00 }
code { font-size: .88em; background: #f5f5f5; padding: 0 .2em }
@media (max-width: 40rem) {
  .cards thead { display: none }
  .cards, .cards tbody, .cards tr, .cards td { display: block }
  .cards tr { border-bottom: 2px solid #ccc; padding: .4rem 0 }
  .cards td { display: flex; justify-content: space-between; gap: 1rem; border: 0; padding: .1rem 0; text-align: right;
              white-space: normal; min-width: 0 }
  .cards td::before { content: attr(data-label); color: #555; text-align: left; white-space: nowrap }
  .cards td:first-child { font-weight: 600 } .cards td:first-child::before { content: none }
  .cards td:empty { display: none }
}
"""

# Numbers go before what has none ("failed"), the largest first; names by the alphabet.
SORTING = """
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0], heads = [...table.tHead.rows[0].cells];
  const text = (row, column) => row.cells[column].textContent.trim();
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const rows = [...body.rows];
      const numeric = column > 0 && rows.some((row) => !Number.isNaN(parseFloat(text(row, column))));
      const turned = { ascending: "descending", descending: "ascending" }[head.getAttribute("aria-sort")];
      const order = turned ?? (numeric ? "descending" : "ascending");
      const sign = order === "ascending" ? 1 : -1;
      heads.forEach((each) => each.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", order);
      const compared = (a, b) => {
        if (!numeric) return sign * text(a, column).localeCompare(text(b, column));
        const [x, y] = [a, b].map((row) => parseFloat(text(row, column)));
        if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y);
        return sign * (x - y);
      };
      body.append(...rows.sort(compared));
    });
  });
}
"""

// Sorts and filters the table of the catalogue. Without it the table is just a table.
"use strict";
{
  const form = document.getElementById("catalogue-filter");
  const table = document.getElementById("checkpoints");
  const body = table.tBodies[0];
  const count = document.getElementById("catalogue-count");

  const shows = (row, wanted) =>
    row.cells[0].textContent.toLowerCase().includes(wanted.text.trim().toLowerCase()) &&
    ["series", "kind", "thinking", "licence"].every(
      (fact) => !wanted[fact] || row.dataset[fact] === wanted[fact],
    ) &&
    (!wanted.reads || row.dataset.reads.split(" ").includes(wanted.reads));

  const filter = () => {
    const wanted = Object.fromEntries(new FormData(form));
    let shown = 0;
    for (const row of body.rows) {
      row.hidden = !shows(row, wanted);
      shown += !row.hidden;
    }
    count.textContent = `${shown} of ${body.rows.length} checkpoints`;
  };

  const known = (row, at) => row.cells[at].textContent !== "unknown";

  const key = (cell) =>
    "sort" in cell.dataset ? Number(cell.dataset.sort) : cell.textContent;

  const compare = (a, b) =>
    typeof a === "number" ? a - b : a.localeCompare(b, "en", { numeric: true });

  // What is not known stands last, in both directions.
  const sort = (head) => {
    const at = head.cellIndex;
    const up = head.ariaSort !== "ascending";
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    head.ariaSort = up ? "ascending" : "descending";
    const rows = [...body.rows].filter((row) => known(row, at));
    const rest = [...body.rows].filter((row) => !known(row, at));
    rows.sort((a, b) => compare(key(a.cells[at]), key(b.cells[at])));
    body.append(...(up ? rows : rows.reverse()), ...rest);
  };

  form.addEventListener("input", filter);
  form.addEventListener("reset", () => setTimeout(filter)); // after the fields are empty
  form.addEventListener("submit", (event) => event.preventDefault());
  for (const head of table.tHead.rows[0].cells)
    head.firstElementChild.addEventListener("click", () => sort(head));
  filter(); // a browser that goes back keeps what was typed
}

// Sorting, searching and printing of the table of stacks.
(() => {
  "use strict";
  const PRINTED = 20;
  const table = document.querySelector("table.stacks");
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];

  function value(row, column) {
    return Number(row.cells[column].dataset.v);
  }

  heads.forEach((head, column) => {
    const button = head.querySelector("button");
    if (!button) return;
    button.addEventListener("click", () => {
      const rising = head.getAttribute("aria-sort") === "descending";
      for (const each of heads) each.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", rising ? "ascending" : "descending");
      const rows = [...body.rows].sort((one, other) => value(other, column) - value(one, column));
      body.append(...(rising ? rows.reverse() : rows));
    });
  });
  heads[0].setAttribute("aria-sort", "descending");

  document.querySelector("input.flame-search").addEventListener("input", (event) => {
    let found;
    try {
      found = new RegExp(event.target.value, "i");
    } catch {
      found = { test: (text) => text.toLowerCase().includes(event.target.value.toLowerCase()) };
    }
    for (const row of body.rows) row.hidden = !found.test(row.cells[heads.length - 1].textContent);
  });

  window.addEventListener("beforeprint", () => {
    [...body.rows].slice(0, PRINTED).forEach((row) => {
      row.querySelector("details").open = true;
    });
  });
})();

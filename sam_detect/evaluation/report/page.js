"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];

  // Tables: by the column whose heading is pressed, numbers by value; what has none comes last.
  const value = (row, column) => {
    const text = row.cells[column].textContent.trim();
    const number = parseFloat(text.replaceAll(",", ""));
    return /^[-+.\d]/.test(text) && !Number.isNaN(number) ? number : text === "–" ? null : text;
  };
  const compare = (a, b) =>
    typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
  for (const button of all("table.sortable th button")) {
    button.addEventListener("click", () => {
      const heading = button.parentElement;
      const body = heading.closest("table").tBodies[0];
      const column = heading.cellIndex;
      const before = heading.getAttribute("aria-sort");
      const numbers = heading.classList.contains("n");
      const rising = before ? before === "descending" : !numbers;
      for (const other of heading.parentElement.cells) other.removeAttribute("aria-sort");
      heading.setAttribute("aria-sort", rising ? "ascending" : "descending");
      const rows = [...body.rows].map((row) => ({ row, key: value(row, column) }));
      rows.sort((a, b) =>
        a.key === null || b.key === null
          ? (a.key === null) - (b.key === null)
          : (rising ? 1 : -1) * compare(a.key, b.key));
      body.append(...rows.map((each) => each.row));
    });
  }

  for (const gallery of all(".gallery")) {
    const shots = gallery.querySelector(".shots");
    const worstFirst = [...shots.children];
    for (const radio of all("input[type=radio]", gallery))
      radio.addEventListener("change", () =>
        shots.append(...(radio.value === "worst" ? worstFirst : [...worstFirst].reverse())));
    for (const box of all("input[type=checkbox]", gallery))
      box.addEventListener("change", () =>
        shots.classList.toggle(`without-${box.dataset.kind}`, !box.checked));
  }

  const dialog = document.getElementById("zoom");
  const enlarge = (figure) => {
    const drawn = figure.querySelector("svg");
    if (!drawn) return;
    const box = dialog.querySelector("div");
    box.className = figure.parentElement.className.replace(/\bsmall-shots\b/, "");
    const copy = figure.cloneNode(true);
    copy.querySelector("figcaption").remove();
    copy.classList.remove("fine");
    // the copy refers to the outlines of the original
    for (const each of all("[id]", copy)) each.removeAttribute("id");
    box.replaceChildren(copy);
    const shape = drawn.viewBox.baseVal;
    copy.style.setProperty("--ratio", shape.width / shape.height);
    dialog.querySelector("p").textContent = figure.querySelector("figcaption .name").textContent +
      " – " + figure.querySelector("figcaption .facts").textContent.trim();
    dialog.showModal();
  };
  for (const figure of all("figure.shot")) {
    figure.querySelector(".enlarge")?.addEventListener("click", () => enlarge(figure));
    figure.querySelector("svg")?.addEventListener("click", () => enlarge(figure));
  }
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());

  // A link to a folded variant unfolds it; a printed page has everything.
  const unfold = () => {
    const target = location.hash && document.getElementById(location.hash.slice(1));
    if (target && target.tagName === "DETAILS") target.open = true;
  };
  addEventListener("hashchange", unfold);
  for (const link of all('a[href^="#"]')) link.addEventListener("click", () => setTimeout(unfold));
  unfold();
  addEventListener("beforeprint", () => all("details").forEach((each) => (each.open = true)));
})();

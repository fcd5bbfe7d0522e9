"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];

  const said = document.createElement("p");
  said.className = "heard";
  said.setAttribute("role", "status");
  document.body.append(said);

  // A cell's own number where it has one, else its text; what is not there goes last.
  const value = (row, index) => {
    const cell = row.cells[index];
    if (!cell) return "";
    if (cell.dataset.value === undefined) return cell.textContent.trim();
    return cell.dataset.value === "" ? NaN : Number(cell.dataset.value);
  };

  const compare = (one, other) => {
    if (typeof one === "number" && typeof other === "number") {
      return Number.isNaN(one) ? (Number.isNaN(other) ? 0 : 1) : Number.isNaN(other) ? -1 : one - other;
    }
    return String(one).localeCompare(String(other), "en", { numeric: true });
  };

  const sort = (table, head, order) => {
    const body = table.tBodies[0];
    const index = [...head.parentNode.cells].indexOf(head);
    const rows = [...body.rows];
    rows.sort((a, b) => {
      if (order === "none") return a.place - b.place;
      const [one, other] = [value(a, index), value(b, index)];
      const missing = Number.isNaN(one) || Number.isNaN(other);
      return compare(one, other) * (order === "descending" && !missing ? -1 : 1) || a.place - b.place;
    });
    body.append(...rows);
  };

  for (const table of all("table.sorts")) {
    if (table.tBodies[0].rows.length < 2) continue;
    [...table.tBodies[0].rows].forEach((row, place) => { row.place = place; });
    const heads = all("thead th", table).filter((head) => head.textContent.trim());
    for (const head of heads) {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      head.setAttribute("aria-sort", "none");
      button.addEventListener("click", () => {
        const numbers = head.classList.contains("n");
        const orders = numbers ? ["descending", "ascending", "none"] : ["ascending", "descending", "none"];
        const order = orders[(orders.indexOf(head.getAttribute("aria-sort")) + 1) % 3];
        for (const other of heads) other.setAttribute("aria-sort", other === head ? order : "none");
        sort(table, head, order);
        said.textContent = order === "none" ? "In the first order" : `By ${button.textContent.trim()}, ${order}`;
      });
    }
  }

  const copy = async (code) => {
    try {
      await navigator.clipboard.writeText(code.textContent);
      return true;
    } catch {
      const selection = getSelection();
      selection.selectAllChildren(code);
      return document.execCommand("copy");
    }
  };

  for (const block of all("pre")) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "copy";
    button.textContent = "Copy";
    button.setAttribute("aria-label", `Copy the code: ${block.dataset.name}`);
    const holder = document.createElement("div");
    holder.className = "holder";
    block.replaceWith(holder);
    holder.append(block, button);
    button.addEventListener("click", async () => {
      const done = await copy(block.querySelector("code"));
      button.textContent = done ? "Copied" : "Press Ctrl+C";
      said.textContent = done ? "Copied" : "The code is selected: press Ctrl+C";
      setTimeout(() => { button.textContent = "Copy"; }, 2000);
    });
  }

  // Paper can't be unfolded.
  let folded = [];
  addEventListener("beforeprint", () => {
    folded = all("details:not([open])");
    for (const each of folded) each.open = true;
  });
  addEventListener("afterprint", () => {
    for (const each of folded) each.open = false;
  });
  // An address that points into something folded opens it.
  const reveal = () => {
    const target = location.hash && document.getElementById(location.hash.slice(1));
    for (let each = target; each; each = each.parentElement) if (each.tagName === "DETAILS") each.open = true;
  };
  addEventListener("hashchange", reveal);
  reveal();
})();

// Sorts tables, filters the cases, and opens the one that a link names. Without it the page is
// complete: every row, every case, and conversations that open by themselves (details).
(() => {
  "use strict";
  const page = document.querySelector(".toolcall");
  const cases = [...page.querySelectorAll(".case")];

  // texts from logs are only ever set as text
  const make = (tag, attributes = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  };

  // ---- tables: a button in each header; numbers sort by the value before their interval
  const NUMBER = /^[+-]?\d[\d,]*(\.\d+)?(e[+-]?\d+)?/i;
  const valueOf = (row, column) => row.cells[column]?.textContent.trim() ?? "";
  const isEmpty = (text) => text === "" || text === "–";
  const toNumber = (text) => Number(NUMBER.exec(text)[0].replaceAll(",", ""));

  const sortRows = (rows, column, sign) => {
    const texts = rows.map((row) => valueOf(row, column)).filter((text) => !isEmpty(text));
    const numeric = texts.every((text) => NUMBER.test(text));
    const compare = (a, b) => {
      if (isEmpty(a) || isEmpty(b)) return isEmpty(a) - isEmpty(b);
      const byText = a.localeCompare(b, undefined, { numeric: true });
      return sign * ((numeric && toNumber(a) - toNumber(b)) || byText);
    };
    return [...rows].sort((a, b) => compare(valueOf(a, column), valueOf(b, column)));
  };

  const makeSortable = (table) => {
    const [body] = table.tBodies;
    const rows = [...body.rows];
    const headers = [...table.tHead.rows[0].cells];
    if (rows.length < 2) return;
    headers.forEach((header, column) => {
      if (!header.textContent.trim()) return;
      const button = make("button", { type: "button" }, ...header.childNodes);
      header.replaceChildren(button);
      button.addEventListener("click", () => {
        const order = header.getAttribute("aria-sort");
        headers.forEach((other) => other.removeAttribute("aria-sort"));
        const next = { ascending: "descending", descending: "" }[order] ?? "ascending";
        if (next) header.setAttribute("aria-sort", next);
        const sign = next === "ascending" ? 1 : -1;
        body.replaceChildren(...(next ? sortRows(rows, column, sign) : rows));
      });
    });
  };
  page.querySelectorAll(".wide table").forEach(makeSortable);
  if (!cases.length) return;

  // ---- the filter: by tool, by kind and by any text of a case
  const toolsOf = (one) => JSON.parse(one.dataset.tools || "[]");
  const choose = (label, values) => {
    const names = [...new Set(values)].sort();
    const options = names.map((name) => make("option", { value: name }, name));
    const select = make("select", {}, make("option", { value: "" }, "all"), ...options);
    return [select, make("label", {}, `${label} `, select)];
  };
  const [tool, toolLabel] = choose("tool", cases.flatMap(toolsOf));
  const [kind, kindLabel] = choose("kind", cases.map((one) => one.dataset.kind));
  const words = make("input", { type: "search", placeholder: "text", "aria-label": "text" });
  const count = make("output", { "aria-live": "polite" });
  const keys = "Keys: / filters, j and k go to the next and the previous case, Enter opens it, Esc clears.";
  const bar = make("form", { class: "filter", role: "search" });
  bar.append(toolLabel, kindLabel, words, count, make("small", {}, keys));
  bar.addEventListener("submit", (event) => event.preventDefault());
  bar.hidden = cases.length < 2;

  // the bar sticks to the top as far as there are cases
  const last = cases.at(-1).closest("section");
  const sections = [cases[0].closest("section")];
  while (sections.at(-1) !== last) sections.push(sections.at(-1).nextElementSibling);
  const box = make("div");
  sections[0].before(box);
  box.append(bar, ...sections);

  const texts = new Map();
  const textOf = (one) => {
    if (!texts.has(one)) texts.set(one, one.textContent.toLowerCase());
    return texts.get(one);
  };
  const shown = () => cases.filter((one) => !one.hidden);
  const filter = () => {
    const wanted = words.value.trim().toLowerCase();
    for (const one of cases) {
      const fits =
        (!tool.value || toolsOf(one).includes(tool.value)) &&
        (!kind.value || one.dataset.kind === kind.value) &&
        (!wanted || textOf(one).includes(wanted));
      one.hidden = !fits;
    }
    count.textContent = `${shown().length} of ${cases.length} shown`;
  };
  const clear = () => {
    tool.value = kind.value = words.value = "";
    filter();
  };
  bar.addEventListener("input", filter);
  filter();

  // ---- one case: focus, open, link
  let current = null;
  const goTo = (one) => {
    current = one;
    one.tabIndex = -1;
    one.focus({ preventScroll: true });
    one.scrollIntoView({ block: one.offsetHeight < innerHeight ? "center" : "start" });
  };
  const step = (by) => {
    const there = shown();
    const index = there.indexOf(current);
    const next = there[index < 0 ? (by > 0 ? 0 : there.length - 1) : index + by];
    if (next) goTo(next);
  };
  const openLinked = () => {
    const one = document.getElementById(location.hash.slice(1));
    if (!cases.includes(one)) return;
    if (one.hidden) clear();
    one.querySelectorAll("details").forEach((details) => (details.open = true));
    goTo(one);
  };
  addEventListener("hashchange", openLinked);
  openLinked();
  page.addEventListener("click", (event) => {
    const link = event.target.closest("a.link");
    if (!link) return;
    navigator.clipboard?.writeText(link.href).then(
      () => {
        link.textContent = "link copied";
        setTimeout(() => (link.textContent = "link"), 2000);
      },
      () => {}, // the address bar has it
    );
  });

  // ---- keys
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Escape") {
      clear();
      document.activeElement.blur();
    }
    if (event.target.closest?.("input, select, textarea")) return;
    if (event.key === "/") {
      event.preventDefault();
      words.focus();
    }
    if (event.key === "j") step(1);
    if (event.key === "k") step(-1);
    const details = event.key === "Enter" && event.target === current && current.querySelector("details");
    if (details) details.open = !details.open;
  });
})();

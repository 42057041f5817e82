// Search and zoom for the flame graphs in a document. Sizes as flamegraph.py has them.
(() => {
  "use strict";
  const PAD = 10, LETTER = 7.25, LEAST_LETTERS = 3;

  function fitting(name, width) {
    const room = Math.floor((width - 6) / LETTER);
    if (room < LEAST_LETTERS) return "";
    let cells = 0, end = 0;
    for (const letter of name) {
      cells += letter > "\u02ff" ? 2 : 1;
      if (cells > room) return [...name].slice(0, Math.max(0, end - 1)).join("") + "…";
      end += 1;
    }
    return name;
  }

  // What is no regular expression is plain text.
  function matcher(pattern) {
    try {
      return new RegExp(pattern, "i");
    } catch {
      return new RegExp(pattern.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"), "i");
    }
  }

  function start(svg) {
    const alone = svg === document.documentElement;
    const first = (name) => svg.querySelector("." + name);
    const boxes = [...svg.querySelectorAll("g.box")].map((group) => {
      const title = group.querySelector("title").textContent;
      return {
        group, title,
        name: title.split("\n")[0],
        rect: group.querySelector("rect"),
        text: group.querySelector("text"),
        x: Number(group.dataset.x), w: Number(group.dataset.w), d: Number(group.dataset.d),
      };
    });
    const boxOf = new Map(boxes.map((box) => [box.group, box]));
    const root = boxes[0];
    if (!root) return;
    const height = Number(svg.getAttribute("height"));
    let zoomed = root, width = 0;

    function draw() {
      const scale = (width - 2 * PAD) / zoomed.w, end = zoomed.x + zoomed.w;
      for (const box of boxes) {
        const outer = box.d < zoomed.d && box.x <= zoomed.x && box.x + box.w >= end;
        const inside = box.d >= zoomed.d && box.x >= zoomed.x && box.x + box.w <= end;
        box.group.classList.toggle("hidden", !outer && !inside);
        box.group.classList.toggle("outer", outer);
        if (!outer && !inside) continue;
        const left = PAD + (outer ? 0 : (box.x - zoomed.x) * scale);
        const wide = outer ? width - 2 * PAD : box.w * scale;
        box.rect.setAttribute("x", left.toFixed(2));
        box.rect.setAttribute("width", Math.max(0.1, wide - 0.5).toFixed(2));
        box.text.setAttribute("x", (left + 3).toFixed(2));
        box.text.textContent = fitting(box.name, wide);
      }
      svg.classList.toggle("zoomed", zoomed !== root);
    }

    function fit() {
      const room = alone ? window.innerWidth : svg.parentNode.clientWidth;
      const wanted = Math.max(320, Math.floor(room));
      if (wanted === width) return;
      width = wanted;
      svg.setAttribute("width", width);
      svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
      ["search", "clear", "unzoom"].forEach((name, i) => {
        first(name).setAttribute("x", width - PAD - i * 8 * LETTER);
      });
      first("matched").setAttribute("x", width - PAD);
      draw();
    }

    function zoom(box) {
      zoomed = box;
      draw();
    }

    function search(pattern) {
      const found = pattern ? matcher(pattern) : null;
      let held = 0, counted = -1;
      // a call within one that matches is in its sum already
      const inOrder = [...boxes].sort((one, other) => one.x - other.x || one.d - other.d);
      for (const box of inOrder) {
        const match = Boolean(found) && found.test(box.title.split("\n").slice(0, -1).join("\n"));
        box.group.classList.toggle("match", match);
        if (match && box.x >= counted) {
          held += box.w;
          counted = box.x + box.w;
        }
      }
      svg.classList.toggle("searched", Boolean(found));
      first("matched").textContent =
        found ? `${pattern}: ${(100 * held / root.w).toFixed(2)} %` : "";
    }

    function ask() {
      const pattern = window.prompt("Search functions, modules and files (regular expression)", "");
      if (pattern !== null) search(pattern);
    }

    svg.addEventListener("click", (event) => {
      const group = event.target.closest("g.box");
      if (group) zoom(boxOf.get(group));
    });
    svg.addEventListener("mouseover", (event) => {
      const box = boxOf.get(event.target.closest("g.box"));
      first("details").textContent = box ? box.title.replaceAll("\n", "  ") : "";
    });
    first("unzoom").addEventListener("click", () => zoom(root));
    first("search").addEventListener("click", ask);
    first("clear").addEventListener("click", () => search(""));
    const field = document.querySelector("input.flame-search");
    if (field) field.addEventListener("input", () => search(field.value));
    if (alone) {
      window.addEventListener("keydown", (event) => {
        if (event.key === "Escape") {
          search("");
          zoom(root);
        } else if (event.key === "/" || (event.key === "f" && event.ctrlKey)) {
          event.preventDefault();
          ask();
        }
      });
    }
    window.addEventListener("resize", fit);
    svg.classList.add("live");
    fit();
  }

  document.querySelectorAll("svg.flame").forEach(start);
})();

"use strict";
(async () => {
  const packed = Uint8Array.from(atob(document.getElementById("data").textContent), (c) => c.charCodeAt(0));
  const unzipped = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  const data = JSON.parse(await new Response(unzipped).text());
  const SVG = "http://www.w3.org/2000/svg";
  const ICONS = { FASTER: "◂", SLOWER: "▸", SAME: "■", UNRESOLVED: "○" };
  const DIRECTIONS = { forward: "forward", backward: "forward + backward" };
  const records = data.rows.map((row) => Object.fromEntries(row.map((v, i) => [data.columns[i], v])));
  const declared = new Map(records.map((row) => [row.anchor, row]));
  const current = new Map(declared);
  const doubts = new Map(data.doubts.map(([variant, name, outcome]) => [JSON.stringify([variant, name]), outcome]));
  const doubtOf = (variant, name) => doubts.get(JSON.stringify([variant, name])) ?? "";
  const chosen = new Map();
  // why a comparison claims nothing: the implementation, or what it is compared with, is in doubt
  const noClaim = ({ doubt, baseline_doubt }) => doubt ? lower(doubt) : baseline_doubt ? `baseline ${lower(baseline_doubt)}` : "";
  const lower = (name) => name.toLowerCase().replaceAll("_", " ");

  const ratio = (v) => v === null || v === undefined ? "" : v >= 1e4 ? v.toExponential(1) : v < 2 ? v.toFixed(3) : v < 10 ? v.toFixed(2) : v < 100 ? v.toFixed(1) : v.toFixed(0);
  const time = (ns) => { for (const [unit, size] of [["s", 1e9], ["ms", 1e6], ["µs", 1e3]]) if (ns >= size) { const v = ns / size; return `${v < 10 ? v.toFixed(2) : v < 100 ? v.toFixed(1) : v.toFixed(0)} ${unit}`; } return `${Math.round(ns)} ns`; };
  const make = (tag, attributes = {}, ...children) => {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    node.append(...children); return node;
  };
  const draw = (parent, tag, attributes, text) => {
    const node = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    if (text !== undefined) node.textContent = text;
    parent.append(node); return node;
  };

  // table: sorting by the numbers of the rows, filtering by their words
  const table = document.getElementById("all"), body = table.tBodies[0], rows = [...body.rows];
  const sortBy = (head) => {
    const key = head.dataset.k, up = head.getAttribute("aria-sort") !== "ascending", sign = up ? 1 : -1;
    table.querySelectorAll("[aria-sort]").forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const value = (row) => current.get(row.id)[key] ?? "";
    // Rows without a value stay last either way.
    body.append(...[...rows].sort((a, b) => {
      const x = value(a), y = value(b);
      if (x === "" || y === "") return (x === "") - (y === "");
      return (typeof x === "number" ? x - y : String(x).localeCompare(String(y))) * sign;
    }));
  };
  for (const head of table.tHead.rows[0].cells) {
    if (!head.dataset.k) continue;
    const button = make("button", { type: "button" }, head.textContent);
    head.replaceChildren(button);
    button.addEventListener("click", () => sortBy(head));
  }
  const filter = document.getElementById("filter"), shown = document.getElementById("shown");
  const words = new Map();
  const applyFilter = () => {
    const asked = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const row of rows) {
      if (!words.has(row)) words.set(row, row.textContent.toLowerCase());
      row.hidden = !asked.every((word) => words.get(row).includes(word));
      count += !row.hidden;
    }
    shown.textContent = `${count} of ${rows.length} rows`;
  };
  filter.addEventListener("input", applyFilter);
  for (const link of document.querySelectorAll("[data-show]"))
    link.addEventListener("click", () => { filter.value = link.dataset.show; applyFilter(); });

  // downloads: what is shown, with the baseline that is chosen
  const save = (text, type, end) => {
    const link = make("a", { href: URL.createObjectURL(new Blob([text], { type })), download: `${data.run_id}.${end}` });
    link.click(); setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  };
  // A leading sign would make a spreadsheet run the cell as a formula.
  const cell = (v) => v === null ? "" : typeof v !== "string" ? String(v) : `"${v.replace(/^[=+\-@\t\r]/, "'$&").replaceAll('"', '""')}"`;
  const table_rows = () => rows.filter((row) => !row.hidden).map((row) => current.get(row.id));
  const csv = () => [data.columns, ...table_rows().map((row) => data.columns.map((name) => row[name]))].map((row) => row.map(cell).join(",")).join("\r\n") + "\r\n";
  document.getElementById("csv").addEventListener("click", () => save(csv(), "text/csv", "csv"));
  document.getElementById("json").addEventListener("click", () => save(JSON.stringify(table_rows(), null, 1), "application/json", "json"));
  document.getElementById("tools").hidden = false;

  // the samples of a row: in time order on the left, their distribution on the right
  const series = (row) => {
    const found = data.samples[row.anchor];
    if (!found) return null;
    const W = 640, H = 190, left = 62, right = 470, top = 14, bottom = 160;
    const all = found.flatMap(([, , , , samples]) => samples);
    const low = Math.min(...all), high = Math.max(...all), span = high - low || 1;
    const y = (ns) => bottom - (ns - low) / span * (bottom - top);
    const outside = found.reduce((n, [, , a, b, samples]) => n + samples.filter((v) => v < a || v > b).length, 0);
    const svg = document.createElementNS(SVG, "svg");
    svg.setAttribute("viewBox", `0 0 ${W} ${H}`); svg.setAttribute("role", "img");
    draw(svg, "title", {}, `${all.length} samples of ${found.length} processes in time order, ${time(low)} to ${time(high)}, ${outside} outliers`);
    for (const v of [low, low + span / 2, high]) {
      draw(svg, "line", { x1: left, x2: W - 6, y1: y(v), y2: y(v), stroke: "var(--grid)" });
      draw(svg, "text", { x: left - 6, y: y(v) + 4, "text-anchor": "end", "font-size": 11, fill: "var(--quiet)" }, time(v));
    }
    let place = 0;
    const x = (i) => left + 6 + i / Math.max(1, all.length - 1 + 2 * (found.length - 1)) * (right - left - 12);
    for (const [process, median, below, above, samples] of found) {
      const from = x(place), to = x(place + samples.length - 1);
      samples.forEach((v, i) => {
        const at = { x: x(place + i), y: y(v) };
        if (v < below || v > above) draw(svg, "path", { d: `M${at.x - 3.5} ${at.y - 3.5}l7 7m0 -7l-7 7`, stroke: "var(--slower)", "stroke-width": 1.8 });
        else draw(svg, "circle", { cx: at.x, cy: at.y, r: 2.1, fill: "var(--faster)", "fill-opacity": .65 });
      });
      draw(svg, "line", { x1: from - 2, x2: to + 2, y1: y(median), y2: y(median), stroke: "currentColor", "stroke-width": 1.6 });
      draw(svg, "text", { x: (from + to) / 2, y: H - 12, "text-anchor": "middle", "font-size": 10.5, fill: "var(--quiet)" }, to - from < 58 ? process : `process ${process}`);
      place += samples.length + 2;
    }
    const sorted = [...all].sort((a, b) => a - b), start = 500, end = W - 10;
    const path = sorted.map((v, i) => `${i ? "L" : "M"}${(start + (i + 1) / sorted.length * (end - start)).toFixed(1)} ${y(v).toFixed(1)}`).join("");
    draw(svg, "path", { d: path, fill: "none", stroke: "var(--same)", "stroke-width": 1.6 });
    draw(svg, "text", { x: (start + end) / 2, y: H - 12, "text-anchor": "middle", "font-size": 10.5, fill: "var(--quiet)" }, "share of samples, 0 to 1");
    const note = make("p", { class: "quiet" }, `Dots: samples in time order. Lines: median of each process. Crosses: ${outside} outliers, kept. Right: the distribution.`);
    return make("div", { class: "series" }, svg, note);
  };
  const RULES = {
    FASTER: "Rule: the whole interval is below 1, and so is the p-value below 0.05 after adjustment over all rows.",
    SLOWER: "Rule: the whole interval is above 1, and the p-value is below 0.05 after adjustment over all rows.",
    SAME: `Rule: two one-sided tests put the ratio within ${Math.round(100 * data.margin)} % of 1.`,
    UNRESOLVED: "Rule: neither test decides; more processes narrow the interval.",
  };
  const number = (v) => v === null || v === undefined ? "none" : Number(v).toPrecision(3);
  const fill = (details) => {
    const row = current.get(details.closest("tr").id), old = details.querySelector(".more");
    if (old) old.remove();
    const more = make("div", { class: "more" });
    if (RULES[row.verdict] && row.ratio !== null) {
      const found = row.baseline === declared.get(row.anchor).baseline ? data.processes[row.anchor] : null;
      more.append(make("p", {}, noClaim(row) ? "Rule: what a law or a proof found wrong claims nothing, and nothing is claimed against it." : RULES[row.verdict]), make("p", { class: "quiet" },
        `Ratio ${number(row.ratio)}, interval ${number(row.ratio_low)} to ${number(row.ratio_high)}, p ${number(row.p_value)}, adjusted ${number(row.p_adjusted)}.` +
        (found ? ` Ratio by process: ${found.map(ratio).join(", ")}.` : "")));
    }
    const drawn = series(row);
    if (drawn) more.append(drawn);
    more.append("Time it:", make("span", { class: "line" }, make("code", { "data-copy": "the line that times this row" }, row.timing)));
    details.append(more); addCopy(details);
  };
  body.addEventListener("toggle", (event) => { if (event.target.open) fill(event.target); }, true);

  // lines to copy
  const addCopy = (place) => {
    for (const code of place.querySelectorAll(".line > code:only-child")) {
      const button = make("button", { class: "copy", type: "button", "aria-label": `Copy ${code.dataset.copy ?? "this line"}` }, "copy");
      button.addEventListener("click", async () => {
        try { await navigator.clipboard.writeText(code.textContent); }
        catch { getSelection().selectAllChildren(code); document.execCommand("copy"); }
        button.textContent = "copied"; setTimeout(() => { button.textContent = "copy"; }, 1500);
      });
      code.after(button);
    }
  };
  for (const line of document.querySelectorAll(".line")) if (!body.contains(line)) addCopy(line.parentNode);

  // another baseline: its comparisons were made beforehand, here they are shown
  const TICKS = [.01, .02, .05, .1, .2, .33, .5, .7, .8, .9, 1, 1.1, 1.25, 1.5, 2, 3, 5, 10, 20, 50, 100];
  const MARKS = { FASTER: "M5 -5L-4 0L5 5Z", SLOWER: "M-5 -5L4 0L-5 5Z", SAME: "M-4 -4H4V4H-4Z", UNRESOLVED: "M-4.5 0a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0 -9 0", "": "M-4 -4L4 4M4 -4L-4 4" };
  const forest = (lines) => {
    const directions = [...new Set(lines.map((line) => line.direction))];
    const groups = [...new Set(lines.map((line) => line.group))], W = 960, gap = 14;
    const left = 16 + Math.min(330, Math.max(...lines.flatMap((line) => [7.6 * line.group.length, 6.7 * line.name.length])));
    const width = (W - left - 10) / directions.length - gap;
    const values = lines.flatMap((line) => [line.ratio, line.low, line.high]).filter((v) => v !== null);
    const near = lines.map((line) => line.ratio).filter((v) => v !== null);
    const lo = Math.max(Math.min(...values, .9), Math.min(...near, 1) / 3) / 1.05, hi = Math.min(Math.max(...values, 1.1), Math.max(...near, 1) * 3) * 1.05;
    const x = (v) => Math.min(1, Math.max(0, Math.log(v / lo) / Math.log(hi / lo))) * width;
    const svg = document.createElementNS(SVG, "svg");
    let y = 34;
    const places = new Map();
    for (const group of groups) {
      draw(svg, "text", { x: left - 10, y: y + 4, "text-anchor": "end", "font-size": 12, "font-weight": 700, fill: "currentColor" }, group); y += 18;
      for (const name of new Set(lines.filter((line) => line.group === group).map((line) => line.name))) {
        places.set(JSON.stringify([group, name]), y);
        draw(svg, "text", { x: left - 10, y: y + 4, "text-anchor": "end", "font-size": 11.5, fill: "var(--quiet)" }, name); y += 17;
      }
      y += 6;
    }
    const H = y + 24;
    svg.setAttribute("viewBox", `0 0 ${W} ${H}`); svg.setAttribute("role", "img");
    draw(svg, "title", {}, lines.map((line) => `${line.group} ${line.name} ${DIRECTIONS[line.direction] ?? line.direction}: ${ratio(line.ratio) || "no ratio"}`).join("; "));
    directions.forEach((direction, d) => {
      const panel = draw(svg, "g", { transform: `translate(${left + d * (width + gap)} 0)` });
      draw(panel, "text", { x: 0, y: 14, "font-size": 12, "font-weight": 700, fill: "currentColor" }, DIRECTIONS[direction] ?? direction);
      draw(panel, "rect", { x: x(1 / (1 + data.margin)), y: 22, width: x(1 + data.margin) - x(1 / (1 + data.margin)), height: H - 46, fill: "var(--band)" });
      let last = -99;
      for (const tick of TICKS) if (tick >= lo && tick <= hi && (x(tick) - last > 34 || tick === 1)) {
        last = x(tick);
        draw(panel, "line", { x1: last, x2: last, y1: 22, y2: H - 24, stroke: tick === 1 ? "var(--quiet)" : "var(--grid)" });
        draw(panel, "text", { x: last, y: H - 9, "text-anchor": "middle", "font-size": 11, fill: "var(--quiet)" }, String(tick));
      }
      for (const line of lines.filter((one) => one.direction === direction)) {
        const at = places.get(JSON.stringify([line.group, line.name])), kind = line.doubt ? "" : line.verdict;
        const color = `var(--${(kind || "unresolved").toLowerCase()})`;
        if (line.ratio === null) { draw(panel, "text", { x: 4, y: at + 4, "font-size": 10.5, "font-style": "italic", fill: "var(--quiet)" }, "no ratio"); continue; }
        if (line.low !== null) draw(panel, "line", { x1: x(line.low), x2: x(line.high), y1: at, y2: at, stroke: color, "stroke-width": 2.4 });
        draw(panel, "path", { d: MARKS[kind], transform: `translate(${x(line.ratio)} ${at})`, stroke: color, "stroke-width": 1.5, fill: kind === "UNRESOLVED" || !kind ? "none" : color });
      }
    });
    return svg;
  };
  const named = (name, doubt) => doubt ? `✗ ${name} (${doubt})` : name;
  const casesOf = (variant) => [...current.values()].filter((row) => row.variant === variant && row.verdict && !row.placebo)
    .map((row) => ({ group: row.label, name: named(row.implementation, noClaim(row)), direction: row.direction, ratio: row.ratio, low: row.ratio_low, high: row.ratio_high, verdict: row.verdict, doubt: noClaim(row) }));
  const meansNow = () => {
    const lines = [];
    for (const variant of new Set(data.means.map((mean) => mean[0]))) {
      const name = chosen.get(variant);
      const own = name ? data.rivals[variant][name].means.map(([who, direction, place, a, b, c, , verdict]) => [who, direction, place, a, b, c, verdict])
        : data.means.filter((mean) => mean[0] === variant).map(([, who, direction, place, a, b, c, , verdict]) => [who, direction, place, a, b, c, verdict]);
      for (const [who, direction, place, value, low, high, verdict] of own) {
        const doubt = noClaim({ doubt: doubtOf(variant, who), baseline_doubt: doubtOf(variant, name || data.baselines[variant]) });
        lines.push({ group: [variant, place].filter(Boolean).join(" · ") + (name ? ` (against ${name})` : ""), name: named(who, doubt), direction, ratio: value, low, high, verdict, doubt });
      }
    }
    return lines;
  };
  const redraw = (place, lines, switched) => {
    const still = place.querySelector(".scroll"), old = place.querySelector(".drawn");
    if (old) old.remove();
    still.hidden = switched; place.classList.toggle("switched", switched);
    if (switched) place.append(make("div", { class: "scroll drawn", tabindex: "0", role: "group", "aria-label": "Forest plot, scrolls sideways" }, forest(lines)));
  };
  const tell = (row) => {
    const line = document.getElementById(row.anchor), cells = line.cells, details = line.querySelector("details");
    cells[7].textContent = ratio(row.ratio); cells[8].textContent = row.ratio_low === null ? "" : `[${ratio(row.ratio_low)}, ${ratio(row.ratio_high)}]`;
    const spoiled = noClaim(row);
    line.classList.toggle("base", row.is_baseline && !spoiled); line.classList.toggle("doubtful", Boolean(spoiled));
    cells[2].firstChild.textContent = row.implementation + (row.placebo ? " (placebo)" : row.is_baseline ? " (baseline)" : "");
    if (row.status === "MEASURED") details.querySelector("summary").replaceChildren(row.placebo && chosen.get(row.variant) ? "placebo of the declared baseline" : row.is_baseline ? "baseline" : spoiled ? make("span", { class: "unresolved" }, `✗ no claim: ${spoiled}`) : make("span", { class: row.verdict.toLowerCase() }, `${ICONS[row.verdict]} ${row.verdict.toLowerCase()}`));
    const said = details.querySelector("p");
    said.dataset.declared ??= said.textContent;
    said.textContent = chosen.get(row.variant) ? (row.why ? `${row.why}.` : "No comparison.") + (spoiled ? ` No claim, whatever the numbers say: ${spoiled}.` : "") : said.dataset.declared;
    words.delete(line);
    if (details.open) fill(details);
  };
  const strips = new Map([...document.querySelectorAll(".answer")].map((node) => [node.dataset.variant, [node, node.innerHTML]]));
  const choose = (variant, name) => {
    chosen.set(variant, name);
    const rival = name ? data.rivals[variant][name] : null;
    for (const row of declared.values()) {
      if (row.variant !== variant) continue;
      let now = row;
      if (rival) {
        const [a, b, c, adjusted, verdict, p, why] = rival.rows[row.anchor] ?? [null, null, null, null, "", null, ""];
        now = { ...row, baseline: name, baseline_doubt: row.implementation === name && !row.placebo ? "" : doubtOf(variant, name), is_baseline: row.implementation === name && !row.placebo, ratio: a, ratio_low: b, ratio_high: c, p_adjusted: adjusted, p_value: p, verdict, why, baseline_median_ns: null, ratio_memory: null };
        const other = [...declared.values()].find((one) => one.implementation === name && !one.placebo && ["variant", "case", "case_name", "direction", "dtype", "device", "threads", "flags"].every((key) => one[key] === row[key]));
        if (other && !now.is_baseline && !row.placebo) { now.baseline_median_ns = other.median_ns; now.ratio_memory = row.peak_bytes && other.peak_bytes ? row.peak_bytes / other.peak_bytes : null; }
      }
      current.set(row.anchor, now); tell(now);
    }
    const [strip, original] = strips.get(variant);
    strip.innerHTML = rival ? rival.strip : original; // escaped when the page was written
    strip.classList.toggle("switched", Boolean(rival));
    for (const select of document.querySelectorAll("select.baseline")) if (select.dataset.variant === variant) select.value = name;
    for (const place of document.querySelectorAll("[data-forest]")) {
      if (place.dataset.forest === variant && variant) redraw(place, casesOf(variant), Boolean(rival));
      if (place.dataset.forest === "") redraw(place, meansNow(), [...chosen.values()].some(Boolean));
    }
  };
  for (const one of document.querySelectorAll(".scripted")) one.hidden = false;
  for (const select of document.querySelectorAll("select.baseline")) {
    select.closest(".pick").hidden = false;
    select.addEventListener("change", () => choose(select.dataset.variant, select.value));
  }

  // A permalink from elsewhere may point into a closed table, or to a row that is filtered out.
  const open = () => {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!target) return;
    if (target.hidden) { filter.value = ""; applyFilter(); }
    for (let e = target; e; e = e.parentElement) if (e.tagName === "DETAILS") e.open = true;
    if (target.tagName === "TR") { target.querySelector("details").open = true; target.scrollIntoView({ block: "center" }); }
  };
  addEventListener("hashchange", open); open();
  document.documentElement.dataset.ready = "yes";
})();

"use strict";
(() => {
  const { runs } = JSON.parse(document.getElementById("data").textContent);
  const before = document.getElementById("before"), after = document.getElementById("after");
  if (before) {
    const body = document.getElementById("both").tBodies[0];
    const DIRECTIONS = { forward: "forward", backward: "forward + backward" };
    const ratio = (v) => v < 2 ? v.toFixed(3) : v < 10 ? v.toFixed(2) : v < 100 ? v.toFixed(1) : v.toFixed(0);
    const key = (mean) => JSON.stringify([mean.variant, mean.implementation, mean.direction, mean.device, mean.threads, mean.flags, mean.baseline]);
    const shown = (mean) => !mean ? "not in this run" : mean.doubt ? `✗ ${mean.doubt.toLowerCase()}` : mean.ratio === null ? "no ratio"
      : ratio(mean.ratio) + (mean.ratio_low === null ? "" : ` [${ratio(mean.ratio_low)}, ${ratio(mean.ratio_high)}]`);
    const cell = (row, text, name) => { const td = row.insertCell(); td.textContent = text; if (name) td.className = name; return td; };
    const show = () => {
      const [old, now] = [before, after].map((select) => new Map(runs[select.value].means.map((mean) => [key(mean), mean])));
      body.replaceChildren();
      for (const name of new Set([...now.keys(), ...old.keys()])) {
        const a = old.get(name), b = now.get(name), one = b ?? a, row = body.insertRow();
        cell(row, one.variant); cell(row, one.implementation); cell(row, [DIRECTIONS[one.direction] ?? one.direction, one.place].filter(Boolean).join(", "), "nw");
        cell(row, shown(a), "n"); cell(row, shown(b), "n");
        const both = a && b && a.ratio !== null && b.ratio !== null, sure = both && a.ratio_low !== null && b.ratio_low !== null;
        cell(row, both ? ratio(b.ratio / a.ratio) : "", "n");
        const faster = sure && b.ratio_high < a.ratio_low, slower = sure && b.ratio_low > a.ratio_high;
        cell(row, !both ? "" : faster ? "◂ apart, faster" : slower ? "▸ apart, slower" : sure ? "○ they touch" : "○ no interval", faster ? "faster" : slower ? "slower" : "unresolved");
      }
    };
    for (const select of [before, after]) select.addEventListener("change", show);
    document.getElementById("pick").hidden = false;
    show();
  }
  document.documentElement.dataset.ready = "yes";
})();

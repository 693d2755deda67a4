"use strict";
// Draws the charts in the reader's theme, moves the numbers with the slider, unpacks the map.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const byId = (id) => document.getElementById(id);
  const views = new Map();
  const count = new Intl.NumberFormat("en");
  const percent = (share, digits = 1) => (share === null ? "–" : `${(100 * share).toFixed(digits)} %`);

  // Roles of colours become the theme's colours, wherever they stand in a specification but in its data.
  const coloured = (value, colours) => {
    if (typeof value === "string") return colours[value] ?? value;
    if (Array.isArray(value)) return value.map((v) => coloured(v, colours));
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(
        ([k, v]) => [k, k === "data" || k === "datasets" ? v : coloured(v, colours)],
      ));
    }
    return value;
  };

  const look = (colours) => ({
    background: "transparent",
    font: "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', sans-serif",
    view: { stroke: null },
    axis: {
      labelColor: colours["@muted"], titleColor: colours["@muted"], gridColor: colours["@line"],
      domainColor: colours["@line"], tickColor: colours["@line"], titleFontWeight: 500, labelFontSize: 11,
      titleFontSize: 12, labelOverlap: true,
    },
    legend: { labelColor: colours["@ink"], titleColor: colours["@muted"], labelFontSize: 12, titleFontWeight: 500 },
    text: { color: colours["@ink"] },
  });

  const draw = async (id, spec, renderer) => {
    const colours = data.themes[theme()];
    const place = byId(`chart-${id}`);
    views.get(id)?.finalize();
    try {
      const found = await vegaEmbed(place, coloured(spec, colours), {
        actions: false, renderer, config: look(colours),
        tooltip: { theme: theme() },
        downloadFileName: id,
      });
      views.set(id, found);
      return found.view;
    } catch (problem) {
      place.textContent = "This chart could not be drawn.";
      place.classList.add("failed");
      throw problem;
    }
  };

  let printing = false;
  const theme = () => (dark.matches && !printing ? "dark" : "light");

  // ------------------------------------------------------------------------------ what if I kept less?
  const slider = byId("keep");
  const choose = () => {
    if (!slider) return;
    const { curve, sessions, interactions, items, cold, sql } = data.budgets;
    const at = Number(slider.value);
    const share = curve.interactions[at] / interactions;
    const put = (name, text) => { byId(`what-if-${name}`).textContent = text; };
    put("share", percent(share));
    put("rank", count.format(curve.rank[at]));
    put("sessions", `${count.format(curve.sessions[at])} (${percent(curve.sessions[at] / sessions)})`);
    put("interactions", `${count.format(curve.interactions[at])} (${percent(share)})`);
    put("items", `${count.format(curve.items[at])} (${percent(curve.items[at] / items)})`);
    put("cold", cold ? `${count.format(curve.cold[at])} (${percent(curve.cold[at] / cold)})` : "–");
    put("objective", percent(curve.objective[at]));
    put("sql", `${sql}${curve.rank[at]};`);
    slider.setAttribute("aria-valuetext", `${percent(share)} of the interactions`);
    views.get("coverage")?.view.signal("chosen", share).runAsync();
  };
  slider?.addEventListener("input", choose);

  // --------------------------------------------------------------------------------------- the map
  let points = null;
  const unpack = async () => {
    // The points are columns of JSON, compressed, in base 64.
    const bytes = Uint8Array.from(atob(data.map.points), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    const columns = JSON.parse(await new Response(stream).text());
    const { reasons, clusters } = data.map;
    return columns.session.map((session, i) => ({
      x: columns.x[i] / 1000, y: columns.y[i] / 1000, session, items: columns.items[i],
      difficulty: columns.difficulty[i], rank: columns.rank[i],
      reason: reasons[columns.reason[i]], cluster: clusters[columns.cluster[i]],
      kept: columns.rank[i] === null ? "pruned" : "kept",
    })).sort((a, b) => (a.rank !== null) - (b.rank !== null));  // the kept ones are drawn last, on top
  };
  const drawMap = async () => {
    if (!data.map) return;
    points ??= await unpack();
    const only = byId("map-kept").checked;
    const spec = structuredClone(data.map.spec);
    spec.data = { values: only ? points.filter((p) => p.kept === "kept") : points };
    spec.encoding.color = data.map.colourings[byId("map-colour").value];
    await draw("sessions-map", spec, "canvas");
  };
  if (data.map) {
    for (const name of Object.keys(data.map.colourings)) byId("map-colour").add(new Option(name, name));
    byId("map-colour").addEventListener("change", drawMap);
    byId("map-kept").addEventListener("change", drawMap);
  }

  // ------------------------------------------------------------------------------------- all of it
  const drawAll = async () => {
    document.documentElement.dataset.drawn = "no";
    await Promise.all(Object.entries(data.charts).map(([id, spec]) => draw(id, spec, "svg")));
    choose();
    await drawMap();
    document.documentElement.dataset.drawn = "yes";
  };
  for (const box of document.querySelectorAll(".copy")) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = "Copy";
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(box.querySelector("code").textContent);
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });
    box.append(button);
  }
  dark.addEventListener("change", drawAll);
  window.addEventListener("beforeprint", () => { if (dark.matches) { printing = true; drawAll(); } });
  window.addEventListener("afterprint", () => { if (printing) { printing = false; drawAll(); } });
  drawAll();
})();

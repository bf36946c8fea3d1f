"use strict";

// Draws the series that the page carries. Ticks are in binary units; a window without a row is a gap.
(() => {
  const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
  const COLOURS = 10;
  const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  // Round steps in the unit of the largest value: a tick says 512 MiB, not 536.9 M.
  function ticks(values, unit, zero) {
    const known = values.filter((value) => value !== null);
    let low = Math.min(...known), high = Math.max(...known);
    if (zero) [low, high] = [Math.min(low, 0), Math.max(high, 0)];
    if (low === high) [low, high] = [low - Math.abs(low) / 10 - 1, high + Math.abs(high) / 10 + 1];
    const reach = Math.max(Math.abs(low), Math.abs(high));
    const power = unit === "bytes" ? Math.min(Math.floor(Math.log(Math.max(reach, 1)) / Math.log(1024)), UNITS.length - 1) : 0;
    const scale = 1024 ** power;
    // A millionth of the largest value at least: finer steps are no help to a reader, and beyond 2^53 there are none.
    const rough = Math.max(high - low, reach / 1e6) / scale / 5;
    const magnitude = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 2.5, 5, 10].find((factor) => factor * magnitude >= rough) * magnitude;
    const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9) + (step / magnitude === 2.5 ? 1 : 0));
    const places = [];
    for (let n = Math.floor(low / scale / step); n <= Math.ceil(high / scale / step) + 1e-9; n += 1) places.push(n * step);
    return {
      tickvals: places.map((place) => place * scale),
      ticktext: places.map((place) => `${place.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits }).replace("-", "−")} ${unit === "bytes" ? UNITS[power] : "%"}`),
      range: [places[0] * scale, places.at(-1) * scale],
    };
  }

  function traces(series, chart, kind) {
    const colour = style(`--s${series.colour % COLOURS}`);
    const dotted = series.colour >= COLOURS;
    const common = {
      name: series.name.replaceAll("&", "&amp;").replaceAll("<", "&lt;"),
      x: chart.labels, y: series.values, text: series.texts, hovertemplate: "%{text}",
    };
    // A window in progress is pale as a bar; as a line it is reached by dashes and ends in a ring.
    const open = chart.labels.map((_, place) => chart.in_progress && place === chart.labels.length - 1);
    if (kind === "bar") return [{ ...common, type: "bar", textposition: "none", marker: { color: colour, opacity: open.map((is) => (is ? 0.45 : 1)), pattern: dotted ? { shape: "/", size: 4 } : {} } }];
    const line = { color: colour, width: 1.75, dash: dotted ? "dot" : "solid" };
    const lines = { ...common, type: "scatter", connectgaps: false, line };
    if (!chart.in_progress) return [{ ...lines, mode: chart.labels.length > 62 ? "lines" : "lines+markers", marker: { color: colour, size: 4 } }];
    const last = chart.labels.length - 1;
    const part = (from, to) => series.values.map((value, place) => (place >= from && place <= to ? value : null));
    return [
      { ...lines, y: part(0, last - 1), mode: last > 62 ? "lines" : "lines+markers", marker: { color: colour, size: 4 } },
      {
        ...lines, y: part(last - 1, last), mode: "lines+markers", line: { ...line, dash: "dash" }, meta: "in progress",
        hoverinfo: open.map((is) => (is ? "all" : "skip")), hovertemplate: open.map((is) => (is ? "%{text} …" : "")),
        marker: { color: colour, size: open.map((is) => (is ? 8 : 0)), symbol: "circle-open" },
      },
    ];
  }

  // The lines to the limit: shaded between the earliest and the latest, dashed where the size is expected.
  function fanTraces(fan, labels) {
    const colour = style("--s0");
    const lines = Object.fromEntries(fan.lines.map((line) => [line.key, line]));
    const common = { type: "scatter", mode: "lines", connectgaps: false };
    const trace = (key, line, fill) => lines[key] && {
      ...common, x: fan.labels, y: lines[key].values, text: lines[key].texts, name: lines[key].name, line: { color: colour, ...line }, ...fill, meta: `fan ${key}`,
      hoverinfo: fan.labels.map((_, place) => (place > 0 && place <= lines[key].reached ? "all" : "skip")),
      hovertemplate: fan.labels.map((_, place) => (place > 0 && place <= lines[key].reached ? "%{text}" : "")),
    };
    return [
      trace("latest", { width: 1, dash: "dot" }, {}),
      trace("earliest", { width: 1, dash: "dot" }, lines.latest ? { fill: "tonexty", fillcolor: `${colour}2e` } : {}),
      trace("expected", { width: 1.75, dash: "dash" }, {}),
      { ...common, x: labels, y: labels.map(() => fan.limit), name: fan.limit_name, text: labels.map(() => fan.limit_text), hovertemplate: "%{text}", line: { color: style("--bad"), width: 1 }, meta: "limit" },
    ].filter(Boolean);
  }

  function draw(chart, kind) {
    const place = document.getElementById(`plot-${chart.metric}`);
    if (!place) return;
    const zero = kind === "bar" || chart.metric !== "size";
    const drawn = chart.series.flatMap((series) => traces(series, chart, kind));
    const labels = [...new Set([...chart.labels, ...(chart.fan?.labels ?? [])])];
    const ahead = chart.fan ? fanTraces(chart.fan, labels) : [];
    const values = [...chart.series.flatMap((series) => series.values), ...(chart.fan ? [chart.fan.limit] : [])];
    // Room above the limit, so that its line is not the border.
    if (chart.fan) values.push(chart.fan.limit + (chart.fan.limit - Math.min(...values.filter((value) => value !== null))) / 25);
    if (values.every((value) => value === null)) return;
    const font = { family: getComputedStyle(document.body).fontFamily, size: 11.5, color: style("--soft") };
    const layout = {
      margin: { l: 74, r: 10, t: 8, b: 34 }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font,
      showlegend: false, hovermode: "x unified", bargap: 0.25, bargroupgap: 0.05,
      hoverlabel: { bgcolor: style("--raised"), bordercolor: style("--strong-line"), font: { ...font, color: style("--ink") } },
      xaxis: {
        type: "category", fixedrange: !document.getElementById("charts").dataset.zoom, nticks: Math.max(2, Math.floor(place.clientWidth / 100)), tickangle: 0,
        linecolor: style("--strong-line"), showgrid: false, ticks: "outside", ticklen: 4, tickcolor: style("--strong-line"),
      },
      yaxis: {
        ...ticks(values, chart.unit, zero), fixedrange: true, gridcolor: style("--line"), zeroline: zero,
        // A label that is cut on its left says another figure.
        automargin: true, zerolinecolor: style("--strong-line"), zerolinewidth: 1,
      },
    };
    layout.xaxis.categoryorder = "array";
    layout.xaxis.categoryarray = labels;
    Plotly.react(place, [...drawn, ...ahead], layout, {
      displayModeBar: false, responsive: true,
    });
    place.dataset.drawn = String(chart.series.length);
    place.dataset.traces = String(drawn.length);
  }

  function light(metric, number) {
    const place = document.getElementById(`plot-${metric}`);
    if (!place?.data) return;
    const each = Number(place.dataset.traces) / Number(place.dataset.drawn);
    Plotly.restyle(place, { opacity: place.data.map((_, index) => (number === null || Math.floor(index / each) === number ? 1 : 0.15)) });
  }

  function drawAll() {
    const charts = document.getElementById("charts");
    if (!charts || typeof Plotly === "undefined") return;
    for (const chart of JSON.parse(document.getElementById("chart-data").textContent)) draw(chart, charts.dataset.kind);
    for (const table of charts.querySelectorAll("table.series")) {
      for (const row of table.querySelectorAll("tr[data-series]")) {
        row.addEventListener("mouseenter", () => light(table.dataset.metric, Number(row.dataset.series)));
        row.addEventListener("mouseleave", () => light(table.dataset.metric, null));
      }
    }
  }

  document.addEventListener("whalefall:refreshed", drawAll);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
  drawAll();
})();

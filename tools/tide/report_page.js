// The plots of a report: what the page's data hold, drawn by Chart.js. Names are only ever shown as text.
"use strict";
(() => {
  const MIB = 1024; // the data are in KiB
  const DASHES = [[], [8, 4], [2, 3], [10, 3, 2, 3], [5, 2], [14, 5]];
  const MARKS = {
    flush: { pointStyle: "triangle", rotation: 180 }, hold: { pointStyle: "rect" }, busy: { pointStyle: "triangle" },
    trim: { pointStyle: "circle" }, pressure: { pointStyle: "star" }, asked: { pointStyle: "rectRot" },
    mark: { pointStyle: "crossRot" },
  };
  const OTHER = { pointStyle: "cross" };
  const OVERVIEW_MARKS = ["flush", "hold", "pressure", "asked", "mark"];
  const data = JSON.parse(document.getElementById("data").textContent);
  const charts = [];
  const byId = (id) => document.getElementById(id);
  const colour = (role) => getComputedStyle(document.documentElement).getPropertyValue(`--${role}`).trim();
  const runColour = (run) => colour(`run-${run.style % 6}`);
  const dash = (run) => DASHES[run.style % DASHES.length];
  const mib = (kib) => (kib / MIB).toLocaleString("en-US", { minimumFractionDigits: 1, maximumFractionDigits: 1 });
  const narrow = () => window.innerWidth < 704;

  // Position of the last moment that is not after t; a level holds until the next one.
  const before = (times, t) => {
    let low = 0, high = times.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (times[middle] <= t) low = middle; else high = middle - 1;
    }
    return low;
  };
  const points = (run, values) =>
    values.map((value, i) => ({ x: run.t[i], y: value === null ? NaN : value / MIB }));
  const lastTime = Math.max(...data.runs.map((run) => run.t[run.t.length - 1]));

  const marksOf = (run, kinds) => {
    const shown = run.marks.filter((mark) => !kinds || kinds.includes(mark.kind));
    const style = (mark) => MARKS[mark.kind] || OTHER;
    return {
      label: run.label, run, marks: shown, type: "scatter", showLine: false, order: -1,
      data: shown.map((mark) => ({ x: mark.t, y: run.rss[before(run.t, mark.t)] / MIB })),
      pointStyle: shown.map((mark) => style(mark).pointStyle), rotation: shown.map((mark) => style(mark).rotation || 0),
      pointRadius: 6, pointHoverRadius: 8, pointBorderWidth: 1.5, hitRadius: 6,
    };
  };

  const axes = (stacked) => ({
    x: {
      type: "linear", min: 0, max: lastTime || 1, title: { display: true, text: "time, seconds" },
      ticks: { maxTicksLimit: narrow() ? 5 : 11, maxRotation: 0, includeBounds: false }, grid: { display: false },
    },
    y: {
      beginAtZero: true, stacked, title: { display: true, text: "MiB" }, ticks: { maxTicksLimit: 7 },
      grid: { drawBorder: false },
    },
  });

  // The names of the lines at their right ends, kept apart, where there is room for them; a line for the moment
  // that is read.
  const ends = {
    id: "ends",
    afterDatasetsDraw(chart) {
      const { ctx, chartArea, scales } = chart;
      if (chart.moment !== undefined) {
        const x = scales.x.getPixelForValue(chart.moment);
        ctx.save();
        ctx.strokeStyle = colour("faint");
        ctx.setLineDash([3, 3]);
        ctx.beginPath();
        ctx.moveTo(x, chartArea.top);
        ctx.lineTo(x, chartArea.bottom);
        ctx.stroke();
        ctx.restore();
      }
      if (!chart.options.layout.padding.right) return;
      const labels = chart.data.datasets
        .map((set, i) => ({ set, shown: chart.isDatasetVisible(i) }))
        .filter(({ set, shown }) => shown && set.isRun && set.data.length)
        .map(({ set }) => {
          const last = set.data[set.data.length - 1];
          return { set, x: scales.x.getPixelForValue(last.x), y: scales.y.getPixelForValue(last.y) };
        })
        .sort((a, b) => a.y - b.y);
      const step = 17;
      labels.forEach((label, i) => { if (i) label.y = Math.max(label.y, labels[i - 1].y + step); });
      const over = labels.length ? labels[labels.length - 1].y - (chartArea.bottom - 4) : 0;
      if (over > 0) {
        labels[labels.length - 1].y -= over;
        for (let i = labels.length - 2; i >= 0; i--) labels[i].y = Math.min(labels[i].y, labels[i + 1].y - step);
      }
      ctx.save();
      ctx.font = `600 13px ${Chart.defaults.font.family}`;
      ctx.textBaseline = "middle";
      for (const label of labels) {
        ctx.fillStyle = label.set.borderColor;
        let text = label.set.label;
        const room = chart.width - chartArea.right - 12;
        while (text.length > 4 && ctx.measureText(text).width > room) text = text.slice(0, -2) + "…";
        ctx.fillText(text, chartArea.right + 8, label.y);
      }
      ctx.restore();
    },
  };

  const options = (stacked) => ({
    animation: false, responsive: true, maintainAspectRatio: false, parsing: false, normalized: true,
    interaction: { mode: "nearest", axis: "x", intersect: false },
    layout: { padding: { right: 0, top: 8 } },
    scales: axes(stacked),
    plugins: {
      legend: { display: false },
      tooltip: {
        callbacks: {
          title: (items) => (items.length ? `${items[0].parsed.x.toFixed(2)} s` : ""),
          label: (item) =>
            item.dataset.marks ? item.dataset.marks[item.dataIndex].text
              : `${item.dataset.label}: ${item.parsed.y.toFixed(1)} MiB`,
        },
      },
    },
  });

  const line = (run, values, label, more) => ({
    label, data: points(run, values), borderWidth: 2, pointRadius: 0, pointHitRadius: 4, stepped: "before", ...more,
  });

  // Colours change with the scheme, and on paper: each chart can be painted anew.
  const paint = (chart) => {
    for (const set of chart.data.datasets) {
      if (set.marks) {
        set.backgroundColor = colour("paper");
        set.borderColor = runColour(set.run);
      } else if (set.role) {
        set.borderColor = colour(set.role);
        set.backgroundColor = set.fill ? colour(set.role) : colour("paper");
      } else {
        set.borderColor = set.run ? runColour(set.run) : colour("ink");
        set.backgroundColor = set.borderColor;
      }
    }
    for (const scale of Object.values(chart.options.scales)) {
      scale.ticks.color = colour("faint");
      scale.title.color = colour("faint");
      scale.grid.color = colour("line");
    }
    Object.assign(chart.options.plugins.tooltip, {
      backgroundColor: colour("band"), titleColor: colour("ink"), bodyColor: colour("ink"), borderColor: colour("line"),
      borderWidth: 1,
    });
    if (chart.options.plugins.legend.display) chart.options.plugins.legend.labels.color = colour("ink");
    chart.update("none");
  };

  const draw = (id, datasets, settings) => {
    const chart = new Chart(byId(id), { type: "line", data: { datasets }, options: settings, plugins: [ends] });
    charts.push(chart);
    paint(chart);
    return chart;
  };

  const drawOverview = () => {
    const settings = options(false);
    const room = Math.min(190, 24 + 7.6 * Math.max(...data.runs.map((run) => run.label.length)));
    const pad = () => { settings.layout.padding.right = narrow() ? 0 : room; };
    pad();
    settings.onResize = (chart) => {
      chart.options.layout.padding.right = narrow() ? 0 : room;
      chart.options.scales.x.ticks.maxTicksLimit = narrow() ? 5 : 11;
    };
    const lines = data.runs.map((run) => line(run, run.rss, run.label, {
      run, isRun: true, borderDash: dash(run), borderWidth: run.style ? 2 : 3, order: run.style,
    }));
    const marks = data.runs.map((run) => marksOf(run, run.number === data.best ? OVERVIEW_MARKS : []));
    return draw("overview", [...marks, ...lines], settings);
  };

  const sampleLine = (role, dashes) => {
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    svg.setAttribute("width", "34");
    svg.setAttribute("height", "10");
    svg.setAttribute("aria-hidden", "true");
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    path.setAttribute("d", "M1 5H33");
    path.setAttribute("stroke", `var(--${role})`);
    path.setAttribute("stroke-width", "3");
    path.setAttribute("stroke-dasharray", dashes.join(" "));
    svg.append(path);
    return svg;
  };

  const makeLegend = (chart) => {
    const count = data.runs.length;
    data.runs.forEach((run, i) => {
      const button = document.createElement("button");
      button.type = "button";
      button.setAttribute("aria-pressed", "true");
      const name = document.createElement("bdi");
      name.textContent = run.label;
      button.append(sampleLine(`run-${run.style % 6}`, dash(run)), name);
      button.addEventListener("click", () => {
        const shown = button.getAttribute("aria-pressed") !== "true";
        button.setAttribute("aria-pressed", String(shown));
        chart.setDatasetVisibility(i, shown);
        chart.setDatasetVisibility(count + i, shown);
        chart.update("none");
        readMoment(chart);
      });
      byId("legend").append(button);
    });
  };

  const markSymbol = (kind) => {
    const shapes = {
      flush: "M2 3H12L7 12Z", busy: "M2 11H12L7 2Z", hold: "M3 3H11V11H3Z", asked: "M7 1L13 7L7 13L1 7Z",
      pressure: "M7 1V13M1 7H13M3 3L11 11M11 3L3 11", mark: "M2 2L12 12M12 2L2 12", trim: "M7 2A5 5 0 1 0 7.01 2Z",
    };
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    svg.setAttribute("width", "14");
    svg.setAttribute("height", "14");
    svg.setAttribute("aria-hidden", "true");
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    path.setAttribute("d", shapes[kind] || "M7 1V13M1 7H13");
    path.setAttribute("fill", "var(--paper)");
    path.setAttribute("stroke", "var(--ink)");
    path.setAttribute("stroke-width", "1.5");
    svg.append(path);
    return svg;
  };

  const explainMarks = () => {
    const best = data.runs.find((run) => run.number === data.best);
    const seen = new Set(best ? best.marks.map((mark) => mark.kind) : []);
    const kinds = Object.keys(MARKS).filter((kind) => seen.has(kind));
    const note = byId("marks-note");
    for (const kind of kinds) {
      const item = document.createElement("span");
      const where = OVERVIEW_MARKS.includes(kind) ? "" : " (below)";
      item.append(markSymbol(kind), document.createTextNode(data.words[kind] + where));
      note.append(item);
    }
    if (best) {
      const whose = document.createElement("span");
      const name = document.createElement("bdi");
      name.textContent = best.label;
      whose.append("of", name);
      note.append(whose);
    }
    note.hidden = kinds.length === 0;
  };

  // The values of one moment, by keyboard, finger or mouse, and aloud.
  const readMoment = (chart, touched) => {
    const slider = byId("moment");
    const t = (lastTime * slider.value) / slider.max;
    byId("moment-time").textContent = `${t.toFixed(2)} s`;
    slider.setAttribute("aria-valuetext", `${t.toFixed(2)} seconds`);
    const values = data.runs
      .filter((run, i) => chart.isDatasetVisible(data.runs.length + i))
      .map((run) => {
        const end = run.t[run.t.length - 1];
        const gone = t > end + 1e-9;
        return `${run.label}: ${gone ? `ended at ${end.toFixed(1)} s` : `${mib(run.rss[before(run.t, t)])} MiB`}`;
      });
    byId("moment-values").textContent = values.join("; ");
    if (touched) {
      chart.moment = t;
      chart.draw();
    }
  };

  const drawInside = (run) => {
    const tiers = ["tiny", "mid", "large"].map((tier) => [`${tier}_bytes`, `live, ${tier}`, tier]);
    const sum = (names) => run.t.map((_, i) => names.reduce((all, name) => all + (run.stats[name][i] || 0), 0));
    const gaps = (values) => values.map((value, i) => (run.stats.tiny_bytes[i] === null ? null : value));
    const area = (values, label, role) =>
      line(run, gaps(values), label, { role, fill: true, borderWidth: 0, stack: "heap" });
    const legend = { display: true, position: "bottom", labels: { boxWidth: 18, boxHeight: 8 } };
    const live = options(true);
    Object.assign(live.plugins.legend, legend);
    draw(`live-${run.number}`, [
      marksOf(run), line(run, run.rss, "resident", { role: "ink", stack: "resident" }),
      ...tiers.map(([name, label, role]) => area(run.stats[name], label, role)),
      area(sum(["tiny_pinned_bytes", "mid_pinned_bytes"]), "free, pinned", "pinned"),
      area(sum(["tiny_retained_bytes", "mid_retained_bytes", "large_retained_bytes"]), "free, kept", "kept"),
    ], hideMarksInLegend(live));
    const kept = options(false);
    Object.assign(kept.plugins.legend, legend);
    const lines = [
      ["tiny_retained_bytes", "tiny, kept", "run-0"], ["mid_retained_bytes", "mid, kept", "run-1"],
      ["large_retained_bytes", "large, kept", "run-2"], ["tiny_pinned_bytes", "tiny, pinned", "run-3"],
      ["mid_pinned_bytes", "mid, pinned", "run-5"],
    ];
    draw(`kept-${run.number}`, lines.map(([name, label, role], i) =>
      line(run, gaps(run.stats[name]), label, { role, borderDash: DASHES[i] })), kept);
  };

  const hideMarksInLegend = (settings) => {
    const filter = (item, all) => !all.datasets[item.datasetIndex].marks;
    settings.plugins.legend.labels = { ...settings.plugins.legend.labels, filter };
    return settings;
  };

  const start = () => {
    Chart.defaults.font.family = getComputedStyle(document.body).fontFamily;
    Chart.defaults.font.size = 12;
    const overview = drawOverview();
    makeLegend(overview);
    explainMarks();
    byId("reader").hidden = false;
    const shortest = Math.min(...data.runs.map((run) => run.t[run.t.length - 1]));
    byId("moment").value = Math.floor((byId("moment").max * shortest) / (lastTime || 1));
    byId("moment").addEventListener("input", () => readMoment(overview, true));
    readMoment(overview);
    for (const element of document.querySelectorAll("details[data-run]")) {
      const run = data.runs[Number(element.dataset.run)];
      const open = () => {
        if (element.open && !element.dataset.drawn) {
          element.dataset.drawn = "yes";
          drawInside(run);
        }
      };
      element.addEventListener("toggle", open);
      open();
    }
    const repaint = () => charts.forEach(paint);
    window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", repaint);
    window.matchMedia("print").addEventListener("change", repaint);
    window.addEventListener("beforeprint", () => { repaint(); charts.forEach((chart) => chart.resize()); });
    window.addEventListener("afterprint", () => { repaint(); charts.forEach((chart) => chart.resize()); });
    document.documentElement.dataset.ready = "yes";
  };
  start();
})();

// The parts of the pages that Python cannot describe as data: drawing and formats of the charts, explanations, focus,
// copying, and the choice of steps by dragging.
window.pipetrain = (() => {
  const KINDS = ["F", "I", "W", ""];
  const NAMES = ["forward", "input gradient", "weight gradient", "bubble"];
  const HEIGHT = [1, 0.76, 0.52, 1]; // of a lane: F, I and W differ in form, not only in colour
  const SATURATION = [62, 58, 52], LIGHTNESS = [74, 64, 54];
  const BUBBLE = 3;

  // A datum: [row, start, end, kind, stage, micro-batch, hue, with stage, failed, worker]. Micro-batch −1: a
  // moment of many actions. The worker's number is there if it is not that of the row.
  function bar(params, api) {
    const [row, kind, stage, microBatch] = [0, 3, 4, 5].map((i) => api.value(i));
    const from = api.coord([api.value(1), row]), to = api.coord([api.value(2), row]);
    const area = params.coordSys;
    const left = Math.max(from[0], area.x), right = Math.min(to[0], area.x + area.width);
    if (right < area.x || left > area.x + area.width || right < left) return;
    const lane = api.size([0, 1])[1] * 0.82;
    const height = lane * HEIGHT[kind], top = from[1] + lane / 2 - height;
    const width = Math.max(right - left - (kind === BUBBLE ? 0 : 0.6), 0.8);
    const shape = { x: left, y: top, width, height, r: kind === BUBBLE ? 0 : 2 };
    if (kind === BUBBLE) {
      return { type: "rect", shape, style: { fill: "var(--bubble)", stroke: "var(--bubble-line)", lineDash: [3, 3] } };
    }
    const fill = `hsl(${api.value(6)}, ${SATURATION[kind]}%, ${LIGHTNESS[kind]}%)`;
    const failed = api.value(8) === 1; // a thick frame and a cross, so that it is visible without colour
    const frame = failed ? { stroke: "var(--bad)", lineWidth: 3 } : {};
    if (failed) shape.width = Math.max(width, 4);
    const rect = { type: "rect", shape, style: { fill, ...frame }, z2: failed ? 10 : 0 };
    const thin = microBatch < 0;
    const short = thin ? "" : `${microBatch}`, long = thin ? KINDS[kind] : `${failed ? "✕ " : ""}${api.value(7) ? stage : ""}${KINDS[kind]}${microBatch}`;
    const text = width >= 6.4 * long.length + 3 ? long : width >= 6.4 * short.length + 2 ? short : "";
    if (!text || height < 9) return rect;
    const label = {
      type: "text",
      style: { text, x: left + width / 2, y: top + height / 2, align: "center", verticalAlign: "middle", lineHeight: 10 },
      silent: true,
    };
    Object.assign(label.style, { fill: "#14171c", font: `500 ${Math.min(11, height)}px Roboto, system-ui, sans-serif` });
    return { type: "group", children: [rect, label] };
  }

  function time(value, unit) {
    if (unit !== "ms") return `${+value.toFixed(2)} ${unit}`;
    return value >= 1000 ? `${(value / 1000).toFixed(3)} s` : value >= 1 ? `${value.toFixed(2)} ms` : `${(1000 * value).toFixed(0)} µs`;
  }

  function tip(unit) {
    return ({ value, seriesName }) => {
      const [row, start, end, kind, stage, microBatch, , , failed, number] = value;
      const worker = number ?? row, plain = kind === BUBBLE || microBatch < 0;
      const action = microBatch < 0 ? `one of many actions · ${NAMES[kind]}` : `${stage}${KINDS[kind]}${microBatch} · ${NAMES[kind]}`;
      const what = kind === BUBBLE ? "bubble: the worker waits" : action;
      const of = plain ? `worker ${worker}` : `worker ${worker}, stage ${stage}, micro-batch ${microBatch}`;
      const when = `${time(start, unit)} to ${time(end, unit)}`;
      return `<b>${what}${failed ? " · failed here" : ""}</b><br>${of}<br>${time(end - start, unit)}, ${when}<br><i>${seriesName}</i>`;
    };
  }

  const share = (value) => (value == null ? "" : `${(100 * value).toFixed(1)}%`);
  const percent = (value) => `${Math.round(100 * value)}%`;
  const part = ({ value, seriesName }) => (value < 0.01 ? "" : `${seriesName} ${percent(value)}`);
  // A label that is wider than its bar is not shown.
  const fit = ({ rect, labelRect }) => (labelRect.width > rect.width - 4 ? { x: -1000, y: -1000 } : {});
  // The same format as `number` of coordinator/texts.py.
  function number(value) {
    if (value == null || value === "") return "";
    const size = Math.abs(value);
    if (size >= 1e6 || (size > 0 && size < 1e-4)) {
      const [digits, exponent] = value.toExponential(3).split("e");
      return `${+digits}e${+exponent}`;
    }
    return size >= 1000 ? value.toLocaleString("en-US", { maximumFractionDigits: 0 }) : `${+value.toPrecision(4)}`;
  }
  function bytes(value) {
    for (const [unit, size] of [["GiB", 2 ** 30], ["MiB", 2 ** 20], ["KiB", 2 ** 10]]) {
      if (value >= size) return `${+(value / size).toPrecision(3)} ${unit}`;
    }
    return `${value} B`;
  }

  // Report whether the page is visible: the service sends nothing to hidden pages.
  const tell = () => window.did_handshake && emitEvent("seen", !document.hidden);
  document.addEventListener("visibilitychange", tell);
  const opened = setInterval(() => {
    if (!window.did_handshake) return;
    clearInterval(opened);
    if (document.hidden) tell();
  }, 200);

  // Explanations: one box for all elements with data-tip, shown on hover, focus and touch.
  const box = document.createElement("div");
  box.id = "explanation";
  box.setAttribute("role", "tooltip");
  let explained = null;
  function explain(element) {
    if (explained && explained !== element) explained.removeAttribute("aria-describedby");
    explained = element;
    box.classList.toggle("shown", Boolean(element));
    if (!element) return;
    if (!box.isConnected) document.body.append(box);
    box.textContent = element.dataset.tip;
    element.setAttribute("aria-describedby", box.id);
    const at = element.getBoundingClientRect(), own = box.getBoundingClientRect();
    const left = Math.max(8, Math.min(at.left, window.innerWidth - own.width - 8));
    const below = at.bottom + 6 + own.height < window.innerHeight;
    box.style.left = `${left}px`;
    box.style.top = `${below ? at.bottom + 6 : Math.max(8, at.top - own.height - 6)}px`;
  }
  const tipped = (event) => event.target.closest?.("[data-tip]") ?? null;
  document.addEventListener("mouseover", (event) => explain(tipped(event)));
  document.addEventListener("focusin", (event) => explain(tipped(event)));
  document.addEventListener("focusout", () => explain(null));
  document.addEventListener("click", (event) => explain(tipped(event)));
  document.addEventListener("scroll", () => explain(null), { capture: true, passive: true });
  // Tab reaches the first word of a group (a list, a heading row, a legend), the arrow keys reach the others.
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") explain(null);
    const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    const here = event.target.closest?.(".term");
    if (!by || !here) return;
    const words = [...here.closest(".terms").querySelectorAll(".term")].filter((e) => e.getClientRects().length);
    const next = words[(words.indexOf(here) + by + words.length) % words.length];
    event.preventDefault();
    here.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  });
  // Words of a group appear and disappear: if none that is shown can be reached with Tab, let the first one be.
  function reachable() {
    for (const group of document.querySelectorAll(".terms")) {
      const words = [...group.querySelectorAll(".term")], seen = words.filter((e) => e.getClientRects().length);
      if (seen.length && !seen.some((e) => e.tabIndex === 0)) {
        words.forEach((e) => (e.tabIndex = -1));
        seen[0].tabIndex = 0;
      }
    }
  }
  setInterval(reachable, 500);

  async function copy(button) {
    const text = button.dataset.copy;
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      // without HTTPS, and not on loopback, the browser has no clipboard API: copy a selection
      const field = document.createElement("textarea");
      field.value = text;
      document.body.append(field);
      field.select();
      document.execCommand("copy");
      field.remove();
      button.focus();
    }
    button.classList.add("done");
    setTimeout(() => button.classList.remove("done"), 1500);
  }

  // Dragging over a chart of curves chooses a range of steps: send it to the page, which sends those points.
  const brushed = new Map();
  setInterval(() => {
    for (const place of document.querySelectorAll(".curve")) {
      const chart = window.getElement?.(place.id.slice(1))?.chart;
      if (!chart || brushed.get(place.id) === chart || !chart.getOption()?.toolbox) continue;
      brushed.set(place.id, chart);
      chart.dispatchAction({ type: "takeGlobalCursor", key: "dataZoomSelect", dataZoomSelectActive: true });
      chart.on("datazoom", (event) => {
        const found = event.batch?.[0] ?? event;
        if (found.startValue == null) return;
        emitEvent("range", [found.startValue, found.endValue]);
        setTimeout(() => chart.dispatchAction({ type: "dataZoom", start: 0, end: 100 }), 0);
      });
    }
  }, 300);

  return { bar, tip, share, percent, part, fit, number, bytes, copy };
})();

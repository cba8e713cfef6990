// What a chart's options cannot say as data: how an action is drawn, and what it is called. All else is Python.
window.pipetrain = (() => {
  const KINDS = ["F", "I", "W", ""];
  const NAMES = ["forward", "input gradient", "weight gradient", "bubble"];
  const HEIGHT = [1, 0.76, 0.52, 1]; // of a lane: F, I and W differ in form, not only in colour
  const SATURATION = [62, 58, 52], LIGHTNESS = [74, 64, 54];
  const BUBBLE = 3;

  // A datum: [row, start, end, kind, stage, micro-batch, hue, with stage, failed]
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
    const failed = api.value(8) === 1; // a thick frame and a cross, so that it is no matter of colour alone
    const frame = failed ? { stroke: "var(--bad)", lineWidth: 3 } : {};
    if (failed) shape.width = Math.max(width, 4);
    const rect = { type: "rect", shape, style: { fill, ...frame }, z2: failed ? 10 : 0 };
    const short = `${microBatch}`, long = `${failed ? "✕ " : ""}${api.value(7) ? stage : ""}${KINDS[kind]}${microBatch}`;
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
      const [row, start, end, kind, stage, microBatch, , , failed] = value;
      const what = kind === BUBBLE ? "bubble: the worker waits" : `${stage}${KINDS[kind]}${microBatch} · ${NAMES[kind]}`;
      const of = kind === BUBBLE ? `worker ${row}` : `worker ${row}, stage ${stage}, micro-batch ${microBatch}`;
      const when = `${time(start, unit)} to ${time(end, unit)}`;
      return `<b>${what}${failed ? " · failed here" : ""}</b><br>${of}<br>${time(end - start, unit)}, ${when}<br><i>${seriesName}</i>`;
    };
  }

  const share = (value) => (value == null ? "" : `${(100 * value).toFixed(1)}%`);
  const percent = (value) => `${Math.round(100 * value)}%`;
  const part = ({ value, seriesName }) => (value < 0.07 ? "" : value < 0.2 ? percent(value) : `${seriesName} ${percent(value)}`);
  const number = (value) => (value == null ? "" : `${+value.toPrecision(4)}`);
  function bytes(value) {
    for (const [unit, size] of [["GiB", 2 ** 30], ["MiB", 2 ** 20], ["KiB", 2 ** 10]]) {
      if (value >= size) return `${+(value / size).toPrecision(3)} ${unit}`;
    }
    return `${value} B`;
  }

  // Pages that nobody sees are sent nothing.
  const tell = () => window.did_handshake && emitEvent("seen", !document.hidden);
  document.addEventListener("visibilitychange", tell);
  const opened = setInterval(() => {
    if (!window.did_handshake) return;
    clearInterval(opened);
    if (document.hidden) tell();
  }, 200);

  return { bar, tip, share, percent, part, number, bytes };
})();

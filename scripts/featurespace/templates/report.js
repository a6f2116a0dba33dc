// The interactive views of the report: a heat map of angles, and line charts of angles, spectra and layers.
// Everything they show is in the element #explorer-data; text reaches the page as text, never as HTML.
"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const data = JSON.parse(byId("explorer-data").textContent);
  const SVG = "http://www.w3.org/2000/svg";
  const MISSING = 65535;
  const MANY = 12; // recipes, from which on a chart has neither points nor bands, and not all are chosen at first
  const ui = {};
  for (const element of document.querySelectorAll("#explorer [id^='x-']")) ui[element.id.slice(2)] = element;

  // --- small tools ---

  function make(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.append(...children);
    return element;
  }

  function draw(parent, tag, attributes = {}, text = "") {
    const element = document.createElementNS(SVG, tag);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    if (text) element.textContent = text;
    parent.append(element);
    return element;
  }

  // Undo the packing of explorer.py: {at(...indices)} gives a number, NaN where it is missing.
  function unpack(packed) {
    if (packed.at) return packed;
    const bytes = Uint8Array.from(atob(packed.f32 ?? packed.u16), (character) => character.charCodeAt(0));
    const codes = packed.f32 === undefined ? new Uint16Array(bytes.buffer) : new Float32Array(bytes.buffer);
    const { shape, low, high, log } = packed;
    packed.at = (...indices) => {
      let place = 0;
      for (let axis = 0; axis < shape.length; axis += 1) {
        if (!(indices[axis] >= 0 && indices[axis] < shape[axis])) return NaN;
        place = place * shape[axis] + indices[axis];
      }
      const code = codes[place];
      if (packed.f32 !== undefined) return code;
      if (code === MISSING) return NaN;
      const value = low + (code * (high - low)) / (MISSING - 1);
      return log ? 10 ** value : value;
    };
    delete packed.u16;
    return packed;
  }

  function write(value, kind) {
    if (!Number.isFinite(value)) return "–";
    if (kind === "angle") return `${value.toFixed(1)}°`;
    if (kind === "correlation") return value.toFixed(2).replace("-", "−");
    const size = Math.abs(value);
    if (size === 0 || (size >= 1e-3 && size < 1e5)) {
      return String(size >= 1000 ? Math.round(value) : Number(value.toPrecision(3))).replace("-", "−");
    }
    const [mantissa, exponent] = value.toExponential(1).split("e");
    return `${mantissa.replace("-", "−")}·${powerText(Number(exponent))}`;
  }

  const powerText = (power) => `10${[...String(power)].map((sign) => (sign === "-" ? "⁻" : "⁰¹²³⁴⁵⁶⁷⁸⁹"[sign])).join("")}`;

  const epochText = (epoch) => `epoch ${Number(epoch.toPrecision(4))}`;

  // --- what is chosen ---

  const look = new Map(data.recipes.map((recipe) => [recipe.name, recipe]));
  const lookOf = (name) => look.get(name) ?? { name, colour: "#1a1a1a", dashes: "1.5 2.5" };
  const chosenRadio = (name) => document.querySelector(`input[name="x-${name}"]:checked`).value;
  const dataset = () => data.datasets[Math.max(ui.dataset.selectedIndex, 0)];
  const partOf = { matrix: "angles", curves: "angles", spectra: "spectra", layers: "layers" };
  const view = () => chosenRadio("view");
  const part = () => dataset()[partOf[view()]];
  const centring = () => Number(chosenRadio("centring"));
  const selected = new Set();
  let epochs = [0]; // where the slider of epochs may stand

  const shown = () => Object.keys(part().rows).filter((name) => name === "data" || selected.has(name));
  const epoch = () => epochs[Number(ui.epoch.value)] ?? 0;

  // The last kept step that is no later than an epoch; −1 if the first one is.
  function stepAt(row, when) {
    let step = -1;
    while (step + 1 < row.epochs.length && row.epochs[step + 1] <= when * (1 + 1e-9) + 1e-9) step += 1;
    return step;
  }

  // The mean over seeds with its extremes, or one seed: `read` takes the position of a seed.
  function overSeeds(row, read, geometric = false) {
    if (row.seeds === null || ui.seed.value !== "") {
      const position = row.seeds === null ? 0 : row.seeds.indexOf(Number(ui.seed.value));
      const value = position < 0 ? NaN : read(position);
      return { value, low: value, high: value, n: 1 };
    }
    const values = row.seeds.map((_, position) => read(position)).filter((value) => Number.isFinite(value));
    if (values.length === 0) return { value: NaN, low: NaN, high: NaN, n: 0 };
    const sum = values.reduce((total, value) => total + (geometric ? Math.log(Math.max(value, 1e-300)) : value), 0);
    const mean = sum / values.length;
    return {
      value: geometric ? Math.exp(mean) : mean,
      low: Math.min(...values),
      high: Math.max(...values),
      n: values.length,
    };
  }

  function angleAt(name, column, step, reference) {
    const row = part().rows[name];
    return overSeeds(row, (seed) => unpack(row.values[column]).at(centring(), seed, step, reference));
  }

  const kindOf = (column) => (column === "correlation" ? "correlation" : "angle");
  const wordOf = { angle_deg: "angle", null_mean_deg: "permutation null", correlation: "correlation of entries" };

  function referenceText(reference, recipe) {
    if (reference === "own") return "its own last step";
    if (reference === "data") return "the data";
    return reference === recipe ? "its other seeds' last steps" : `${reference}'s last steps`;
  }

  function rangeText(number, kind) {
    if (number.n < 2 || !Number.isFinite(number.value)) return "";
    const [low, high] = [write(number.low, kind), write(number.high, kind)];
    return low === high ? "" : `${low} to ${high} over ${number.n} seeds`;
  }

  // --- the heat map ---

  const rgb = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));

  function tint(value, kind) {
    const scale = data.scales[kind];
    const share = kind === "angle" ? value / 90 : (value + 1) / 2;
    const place = Math.min(Math.max(share, 0), 1) * (scale.length - 1);
    const below = Math.min(Math.floor(place), scale.length - 2);
    const [a, b] = [rgb(scale[below]), rgb(scale[below + 1])];
    return a.map((from, i) => Math.round(from + (place - below) * (b[i] - from)));
  }

  // Black or white, whichever stands out more by WCAG's contrast.
  function inkOn(colour) {
    const [red, green, blue] = colour.map((part) => {
      const share = part / 255;
      return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.179 ? "#000000" : "#ffffff";
  }

  let matrix = null; // what the heat map on the page was built for, and its cells

  function showMatrix() {
    const rows = shown();
    const references = part().references
      .map((name, position) => ({ name, position }))
      .filter(({ name }) => name === "own" || name === "data" || selected.has(name));
    const key = JSON.stringify([dataset().name, rows, references]);
    if (matrix?.key !== key) buildMatrix(key, rows, references);
    const column = ui.quantity.value;
    const kind = kindOf(column);
    for (const cell of matrix.cells) {
      const step = stepAt(part().rows[cell.recipe], epoch());
      cell.number = step < 0 ? { value: NaN, n: 0 } : angleAt(cell.recipe, column, step, cell.position);
      cell.step = step;
      const known = Number.isFinite(cell.number.value);
      const colour = known ? tint(cell.number.value, kind) : [255, 255, 255];
      cell.element.textContent = kind === "angle" && known ? cell.number.value.toFixed(1) : write(cell.number.value, kind);
      cell.element.style.backgroundColor = `rgb(${colour.join(",")})`;
      cell.element.style.color = inkOn(colour);
    }
    matrix.caption.textContent =
      `${wordOf[column][0].toUpperCase()}${wordOf[column].slice(1)}, ${centring() ? "centred" : "raw"}, of each recipe ` +
      `at ${epochText(epoch())} (or its last step) to the columns`;
    showBar(kind);
  }

  function buildMatrix(key, rows, references) {
    const table = make("table", { class: "matrix", role: "grid" });
    const caption = make("p", { class: "null caption", id: "x-matrix-caption" });
    table.setAttribute("aria-labelledby", caption.id);
    const head = table.createTHead().insertRow();
    head.append(make("td"));
    for (const { name } of references) {
      head.append(make("th", { scope: "col" }, { own: "own end", data: "data" }[name] ?? name));
    }
    const body = table.createTBody();
    const cells = [];
    const grid = rows.map((recipe) => {
      const line = body.insertRow();
      line.append(make("th", { scope: "row" }, recipe));
      return references.map(({ name, position }) => {
        const element = line.insertCell();
        element.setAttribute("role", "gridcell");
        element.tabIndex = -1;
        const cell = { element, recipe, reference: name, position };
        cells.push(cell);
        return cell;
      });
    });
    if (cells.length) cells[0].element.tabIndex = 0;
    matrix = { key, cells, grid, caption };
    const of = new Map(cells.map((cell) => [cell.element, cell]));
    const say = (event) => of.has(event.target) && describe(of.get(event.target));
    table.addEventListener("pointerover", say);
    table.addEventListener("focusin", say);
    table.addEventListener("keydown", (event) => {
      const row = grid.findIndex((line) => line.some((cell) => cell.element === event.target));
      if (row < 0) return;
      const column = grid[row].findIndex((cell) => cell.element === event.target);
      const to = {
        ArrowUp: [row - 1, column],
        ArrowDown: [row + 1, column],
        ArrowLeft: [row, column - 1],
        ArrowRight: [row, column + 1],
        Home: [row, 0],
        End: [row, grid[row].length - 1],
      }[event.key];
      const next = to && grid[to[0]]?.[to[1]];
      if (!to) return;
      event.preventDefault();
      if (!next) return;
      event.target.tabIndex = -1;
      next.element.tabIndex = 0;
      next.element.focus();
    });
    ui.plate.replaceChildren(caption, table, make("div", { class: "bar" }));
    if (rows.length === 0) ui.plate.replaceChildren(make("p", {}, "No recipe is selected."));
  }

  function showBar(kind) {
    const bar = ui.plate.querySelector(".bar");
    if (!bar || bar.dataset.kind === kind) return;
    bar.dataset.kind = kind;
    const scale = data.scales[kind];
    const svg = draw(bar, "svg", { viewBox: `0 0 ${scale.length} 1`, preserveAspectRatio: "none", "aria-hidden": "true" });
    scale.forEach((colour, i) => draw(svg, "rect", { x: i, y: 0, width: 1.05, height: 1, fill: colour }));
    const [low, high] = kind === "angle" ? ["0°", "90°"] : ["−1", "1"];
    bar.replaceChildren(make("span", {}, low), svg, make("span", {}, high));
  }

  function describe(cell) {
    const numbers = ["angle_deg", "null_mean_deg", "correlation"].map((column) => {
      const number = cell.step < 0 ? { value: NaN, n: 0 } : angleAt(cell.recipe, column, cell.step, cell.position);
      const range = column === "angle_deg" && rangeText(number, "angle");
      return `${wordOf[column]} ${write(number.value, kindOf(column))}${range ? ` (${range})` : ""}`;
    });
    const at = cell.step < 0 ? "before its first kept step" : `at ${epochText(part().rows[cell.recipe].epochs[cell.step])}`;
    ui.say.textContent = `${cell.recipe} ${at} to ${referenceText(cell.reference, cell.recipe)}: ${numbers.join(", ")}.`;
  }

  // --- line charts ---

  // Curves of a view: {kind, x: {label, text}, y: {label, log}, series: [{name, points: [{x, value, low, high, n}]}]}
  const charts = {
    curves() {
      const column = ui.quantity.value;
      const kind = kindOf(column);
      const series = shown().map((name) => {
        const row = part().rows[name];
        let reference = part().references.indexOf(ui.reference.value === "seeds" ? name : ui.reference.value);
        // a run of one step is its own end
        if (ui.reference.value === name || (ui.reference.value === "own" && row.epochs.length === 1)) reference = -1;
        const points = row.epochs.map((x, step) => ({ x, ...angleAt(name, column, step, reference) }));
        return { name, points };
      });
      const label = kind === "angle" ? `${wordOf[column]} (°)` : wordOf[column];
      return { kind, series, x: { label: "Epoch", text: epochText }, y: { label, log: false } };
    },
    spectra() {
      const series = [];
      for (const name of shown()) {
        const row = part().rows[name];
        const layer = name === "data" || ui.layer.value === "" ? row.feature_layer : row.layers.indexOf(ui.layer.value);
        const step = stepAt(row, epoch());
        if (layer < 0 || step < 0) continue;
        const shares = unpack(row.shares);
        const points = Array.from({ length: shares.shape[4] }, (_, k) => ({
          x: k + 1,
          ...overSeeds(row, (seed) => shares.at(centring(), seed, step, layer, k), true),
        }));
        series.push({ name, points });
      }
      const x = { label: "Component", text: (value) => `component ${value}` };
      return { kind: "share", series, x, y: { label: "share of variance", log: true } };
    },
    layers() {
      const measure = part().measures.indexOf(ui.measure.value);
      const series = [];
      for (const name of shown()) {
        const row = part().rows[name];
        const step = stepAt(row, epoch());
        if (step < 0) continue;
        const values = unpack(row.values);
        const points = row.depths.map((x, layer) => ({
          x,
          layer: row.layers[layer],
          ...overSeeds(row, (seed) => values.at(seed, step, layer, measure), ui.measure.value === "compression"),
        }));
        series.push({ name, points });
      }
      const log = ui.measure.value === "compression";
      const label = log ? "compression C" : ui.measure.value.replaceAll("_", " ");
      return { kind: "measure", series, x: { label: "Layer", text: (value) => `layer ${value}` }, y: { label, log } };
    },
  };

  function ticksOf(low, high, most) {
    const rough = (high - low) / most || 1;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((size) => size >= rough * (1 - 1e-9));
    const ticks = [];
    for (let tick = Math.ceil(low / step - 1e-9); tick * step <= high + 1e-9 * step; tick += 1) ticks.push(tick * step);
    return ticks;
  }

  // Powers of ten, six or so; over less than two decades also their double and fivefold.
  function logTicks(low, high) {
    const [first, last] = [Math.floor(Math.log10(low)), Math.ceil(Math.log10(high))];
    const every = Math.ceil((last - first) / 6);
    const powers = Array.from({ length: last - first + 1 }, (_, i) => first + i).filter((power) => power % every === 0);
    const digits = high / low < 100 ? [1, 2, 5] : [1];
    return powers.flatMap((power) => digits.map((digit) => digit * 10 ** power)).filter((tick) => tick >= low * 0.999 && tick <= high * 1.001);
  }

  function tickText(tick) {
    const power = Math.log10(tick);
    return tick < 1e-3 && Math.abs(power - Math.round(power)) < 1e-9 ? powerText(Math.round(power)) : write(tick, "measure");
  }

  // Over more than 30 epochs the axis is linear up to 1 and logarithmic beyond, as in the figures.
  const bent = (value) => (value <= 1 ? value : 1 + Math.log10(value) * 1.5);

  let chart = null; // the chart on the page, for the pointer

  function showChart() {
    const found = charts[view()]();
    const drawn = found.series.map((line) => ({
      ...line,
      points: line.points.filter((point) => Number.isFinite(point.value) && (!found.y.log || point.value > 0)),
    })).filter((line) => line.points.length);
    const places = [...new Set(drawn.flatMap((line) => line.points.map((point) => point.x)))].sort((a, b) => a - b);
    const cursor = view() === "curves" ? epoch() : placeAt(places, found.x);
    matrix = null;
    const few = drawn.length <= MANY;
    const width = Math.max(ui.plate.clientWidth - 24, 240);
    const height = width < 500 ? 272 : 336;
    const box = { left: 56, right: width - 12, top: 26, bottom: height - 40 };
    const svg = document.createElementNS(SVG, "svg");
    svg.setAttribute("class", "chart");
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.setAttribute("role", "img");
    svg.setAttribute("aria-label", `${found.y.label} against ${found.x.label.toLowerCase()}, ${drawn.length} curves; the numbers are in the tables below.`);
    chart = { svg, drawn, found, points: [] };
    if (!drawn.length) {
      ui.plate.replaceChildren(make("p", {}, "No number is known for this choice."));
      return found;
    }
    const band = (point, key) => (few && Number.isFinite(point[key]) && (!found.y.log || point[key] > 0) ? point[key] : point.value);
    let low = Infinity;
    let high = -Infinity;
    for (const line of drawn) {
      for (const point of line.points) {
        low = Math.min(low, band(point, "low"));
        high = Math.max(high, band(point, "high"));
      }
    }
    const most = places.at(-1);
    const isBent = view() === "curves" && most > 30 && places.some((x) => x > 0 && x <= 1);
    const across = isBent ? bent : (x) => x;
    const xLow = view() === "curves" ? 0 : across(places[0]);
    const xSpan = across(most) - xLow || 1;
    const atX = (x) => box.left + 8 + ((across(x) - xLow) / xSpan) * (box.right - box.left - 16);
    const isLog = found.y.log && high > 3 * low;
    if (!found.y.log) {
      if (found.kind !== "correlation") low = Math.min(low, 0);
      if (found.kind === "angle") high = [15, 30, 45, 60, 90].find((limit) => limit >= high) ?? 90;
    }
    const up = isLog ? Math.log10 : (y) => y;
    const [yLow, yHigh] = [up(low), up(high)];
    const ySpan = yHigh - yLow || 1;
    const atY = (y) => box.bottom - 6 - ((up(y) - yLow) / ySpan) * (box.bottom - box.top - 12);

    for (const tick of isLog ? logTicks(low, high) : ticksOf(low, high, 6)) {
      draw(svg, "line", { class: "grid", x1: box.left, x2: box.right, y1: atY(tick), y2: atY(tick) });
      draw(svg, "text", { class: "tick", x: box.left - 6, y: atY(tick) + 4, "text-anchor": "end" }, tickText(tick));
    }
    const whole = ticksOf(across(places[0]), across(most), width < 500 ? 5 : 9);
    const powers = [0, 1, 10, 100, 1000, 10000, 100000].filter((tick) => tick <= most);
    for (const tick of isBent ? powers : view() === "curves" ? whole : whole.filter(Number.isInteger)) {
      draw(svg, "text", { class: "tick", x: atX(tick), y: box.bottom + 16, "text-anchor": "middle" }, write(tick, "measure"));
    }
    draw(svg, "text", { x: (box.left + box.right) / 2, y: height - 6, "text-anchor": "middle" }, isBent ? "Epoch (logarithmic beyond 1)" : found.x.label);
    draw(svg, "text", { x: 4, y: 14 }, found.y.label);
    draw(svg, "line", { class: "cursor", x1: atX(cursor), x2: atX(cursor), y1: box.top, y2: box.bottom });
    for (const line of drawn) {
      const { colour, dashes } = lookOf(line.name);
      const path = (points, y) => points.map((point) => `${atX(point.x).toFixed(1)},${atY(y(point)).toFixed(1)}`);
      if (few && line.points.length > 1 && line.points.some((point) => band(point, "high") > band(point, "low"))) {
        const outline = [...path(line.points, (p) => band(p, "high")), ...path([...line.points].reverse(), (p) => band(p, "low"))];
        draw(svg, "polygon", { points: outline.join(" "), fill: colour, "fill-opacity": 0.13 });
      }
      draw(svg, "polyline", { points: path(line.points, (p) => p.value).join(" "), fill: "none", stroke: colour, "stroke-width": few ? 2 : 1.2, "stroke-dasharray": dashes });
      for (const point of line.points) {
        const at = { x: atX(point.x), y: atY(point.value) };
        if ((few && line.points.length <= 40) || line.points.length === 1) draw(svg, "circle", { cx: at.x, cy: at.y, r: 2.6, fill: colour });
        chart.points.push({ ...at, line, point });
      }
    }
    chart.dot = draw(svg, "circle", { r: 6, fill: "none", stroke: "#1a1a1a", "stroke-width": 1.5, visibility: "hidden" });
    svg.addEventListener("pointermove", showNearest);
    svg.addEventListener("pointerdown", showNearest);
    svg.addEventListener("pointerleave", () => chart.dot.setAttribute("visibility", "hidden"));
    ui.plate.replaceChildren(svg, readout(found, cursor));
    return found;
  }

  const placed = {}; // where its user put the slider, by view

  // Keep the slider of components or layers to the places there are.
  function placeAt(places, x) {
    const wanted = placed[view()] ?? part().opens_at;
    ui.place.max = Math.max(places.length - 1, 0);
    const kept = places.indexOf(wanted);
    // a layer that is not there: the deepest one above it
    ui.place.value = kept >= 0 ? kept : Math.max(places.filter((place) => place <= (wanted ?? 0)).length - 1, 0);
    const place = places[Number(ui.place.value)] ?? places[0] ?? 0;
    ui["place-out"].textContent = String(place);
    ui.place.setAttribute("aria-valuetext", x.text(place));
    ui.place.places = places;
    return place;
  }

  function showNearest(event) {
    const frame = chart.svg.getBoundingClientRect();
    const scale = chart.svg.viewBox.baseVal.width / frame.width;
    const [x, y] = [(event.clientX - frame.left) * scale, (event.clientY - frame.top) * scale];
    let best = null;
    let least = 40 ** 2;
    for (const candidate of chart.points) {
      const distance = (candidate.x - x) ** 2 + (candidate.y - y) ** 2;
      if (distance < least) [best, least] = [candidate, distance];
    }
    chart.dot.setAttribute("visibility", best ? "visible" : "hidden");
    if (!best) return;
    chart.dot.setAttribute("cx", best.x);
    chart.dot.setAttribute("cy", best.y);
    const { point, line } = best;
    const range = rangeText(point, chart.found.kind);
    const layer = point.layer ? ` (${point.layer})` : "";
    ui.say.textContent = `${line.name}, ${chart.found.x.text(point.x)}${layer}: ${chart.found.y.label} ${write(point.value, chart.found.kind)}${range ? ` (${range})` : ""}.`;
  }

  function swatch(name) {
    const { colour, dashes } = lookOf(name);
    const svg = document.createElementNS(SVG, "svg");
    for (const [key, value] of Object.entries({ class: "swatch", viewBox: "0 0 27 11", "aria-hidden": "true" })) svg.setAttribute(key, value);
    draw(svg, "line", { x1: 0, x2: 27, y1: 5.5, y2: 5.5, stroke: colour, "stroke-width": 3, "stroke-dasharray": dashes });
    return svg;
  }

  // The curve's number at the cursor: at the last step that is no later, where epochs run across.
  function valueAt(line, cursor) {
    if (view() !== "curves") return line.points.find((point) => point.x === cursor);
    return line.points.filter((point) => point.x <= cursor * (1 + 1e-9) + 1e-9).at(-1);
  }

  function readout(found, cursor) {
    const table = make("table");
    table.createCaption().textContent = `At ${found.x.text(cursor)}${view() === "curves" ? "" : `, ${epochText(epoch())}`}`;
    const head = table.createTHead().insertRow();
    const several = chart.drawn.some((line) => line.points.some((point) => point.n > 1));
    for (const text of ["Recipe", found.y.label, ...(several ? ["over seeds"] : [])]) head.append(make("th", { scope: "col" }, text));
    head.cells[0].className = "text";
    const body = table.createTBody();
    for (const line of chart.drawn) {
      const point = valueAt(line, cursor);
      const row = body.insertRow();
      row.append(make("th", { scope: "row" }, swatch(line.name), line.name));
      row.append(make("td", {}, point ? write(point.value, found.kind) : "–"));
      if (several) row.append(make("td", { class: "null" }, (point && rangeText(point, found.kind).replace(/ over .*/, "")) || "–"));
    }
    const scroll = chart.drawn.length > MANY ? { tabindex: "0", role: "region", "aria-label": "Numbers at the cursor" } : {};
    return make("div", { class: "readout", ...scroll }, table);
  }

  // --- all numbers as a table, made when it is opened ---

  function showNumbers() {
    if (!ui.table.open || ui.table.hidden) {
      ui.numbers.replaceChildren();
      return;
    }
    const { drawn, found } = chart;
    const places = [...new Set(drawn.flatMap((line) => line.points.map((point) => point.x)))].sort((a, b) => a - b);
    const table = make("table");
    table.createCaption().textContent = `${found.y.label}, by ${found.x.label.toLowerCase()}`;
    const head = table.createTHead().insertRow();
    head.append(make("th", { scope: "col", class: "text" }, "Recipe"));
    for (const place of places) head.append(make("th", { scope: "col" }, String(place)));
    const body = table.createTBody();
    for (const line of drawn) {
      const row = body.insertRow();
      row.append(make("th", { scope: "row", class: "text" }, line.name));
      const at = new Map(line.points.map((point) => [point.x, point.value]));
      for (const place of places) row.append(make("td", {}, write(at.get(place) ?? NaN, found.kind)));
    }
    ui.numbers.replaceChildren(table);
  }

  // --- controls ---

  function fill(select, options, first) {
    const before = select.value;
    const key = JSON.stringify(options);
    if (select.dataset.key === key) return;
    select.dataset.key = key;
    select.replaceChildren(...options.map(([value, text]) => make("option", { value }, text)));
    const has = (wanted) => options.some(([value]) => value === wanted);
    if (before !== "" && has(before)) select.value = before;
    else if (has(first)) select.value = first;
  }

  const unique = (items) => [...new Set(items)];

  function updateControls() {
    const rows = part().rows;
    const has = { matrix: ["quantity"], curves: ["quantity", "reference"], spectra: ["layer", "place"], layers: ["measure", "place"] }[view()];
    for (const name of ["quantity", "reference", "layer", "measure", "place"]) ui[`${name}-box`].hidden = !has.includes(name);
    ui.centring.hidden = view() === "layers";
    ui.table.hidden = view() === "matrix";
    ui["place-label"].textContent = view() === "layers" ? "Layer" : "Component";
    const seeds = unique(shown().flatMap((name) => rows[name].seeds ?? [])).sort((a, b) => a - b);
    fill(ui.seed, [["", seeds.length > 1 ? "mean over seeds" : "all"], ...seeds.map((seed) => [String(seed), String(seed)])]);
    if (part().references) {
      const named = part().references.filter((name) => name !== "own" && name !== "data");
      const fixed = [["own", "own last step"], ["data", "the data"]].filter(([name]) => part().references.includes(name));
      const seedsToo = named.some((name) => name in rows) ? [["seeds", "own recipe, other seeds"]] : [];
      fill(ui.reference, [...fixed, ...seedsToo, ...named.map((name) => [name, name])], part().opens_at);
    }
    if (view() === "spectra") {
      const layers = unique(shown().filter((name) => name !== "data").flatMap((name) => rows[name].layers));
      fill(ui.layer, [["", "feature layer of each"], ...layers.map((layer) => [layer, layer])]);
    }
    if (part().measures) fill(ui.measure, part().measures.map((name) => [name, name.replaceAll("_", " ")]));
    const before = epochs[Number(ui.epoch.value)];
    const wasLast = ui.epoch.value === ui.epoch.max;
    epochs = unique(shown().flatMap((name) => rows[name].epochs)).sort((a, b) => a - b);
    if (epochs.length === 0) epochs = [0];
    ui.epoch.max = epochs.length - 1;
    const nearest = epochs.reduce((best, value, i) => (Math.abs(value - before) < Math.abs(epochs[best] - before) ? i : best), 0);
    ui.epoch.value = wasLast ? epochs.length - 1 : nearest;
    ui["epoch-out"].textContent = String(Number(epoch().toPrecision(4)));
    ui.epoch.setAttribute("aria-valuetext", epochText(epoch()));
    ui.epoch.disabled = ui.play.disabled = epochs.length < 2;
    const here = names();
    ui.count.textContent = `${here.filter((name) => selected.has(name)).length} of ${here.length} shown`;
    const about = { matrix: "Rows: recipes at the slider's epoch. Columns: last steps, averaged over their seeds; on the diagonal those of the recipe's other seeds. ", curves: "A run is at 0° from its own last step whatever training does. " }[view()] ?? "";
    ui.note.textContent = about + (part().notes.length ? `To keep this page small: ${part().notes.join("; ")}. The tables beside it hold everything.` : "");
  }

  const names = () => Object.keys(part().rows).filter((name) => name !== "data");

  let listed = "";

  // A box a recipe of the data set; the first ones are chosen where there are many.
  function listRecipes() {
    const here = names();
    const key = JSON.stringify(here);
    if (key === listed) return;
    listed = key;
    if (!here.some((name) => selected.has(name))) here.slice(0, here.length > 2 * MANY ? MANY : here.length).forEach((name) => selected.add(name));
    ui["find-box"].hidden = here.length <= MANY;
    ui.recipes.replaceChildren(...here.map((name) => {
      const box = make("input", { type: "checkbox", value: name });
      box.checked = selected.has(name);
      return make("label", {}, box, swatch(name), name);
    }));
    find();
  }

  function find() {
    const wanted = ui["find-box"].hidden ? "" : ui.find.value.trim().toLowerCase();
    for (const label of ui.recipes.children) label.hidden = !label.textContent.toLowerCase().includes(wanted);
  }

  function select(every) {
    for (const label of ui.recipes.children) {
      if (label.hidden) continue;
      const box = label.firstElementChild;
      box.checked = every;
      selected[every ? "add" : "delete"](box.value);
    }
    update();
  }

  function offerViews() {
    const there = (name) => dataset()[partOf[name]] !== null;
    for (const radio of document.querySelectorAll('input[name="x-view"]')) {
      radio.disabled = !there(radio.value);
      radio.parentElement.hidden = radio.disabled;
    }
    if (!there(view())) document.querySelector('input[name="x-view"]:not(:disabled)').checked = true;
  }

  function update() {
    offerViews();
    listRecipes();
    updateControls();
    if (view() === "matrix") showMatrix();
    else showChart();
    if (view() !== "matrix") showNumbers();
  }

  let timer = null;

  function play() {
    if (timer !== null || Number(ui.epoch.value) >= epochs.length - 1) {
      const over = timer === null;
      clearInterval(timer);
      timer = null;
      if (over) ui.epoch.value = 0;
      if (!over) {
        setPlaying(false);
        return;
      }
    }
    setPlaying(true);
    update();
    timer = setInterval(() => {
      ui.epoch.value = Number(ui.epoch.value) + 1;
      if (Number(ui.epoch.value) >= epochs.length - 1) {
        clearInterval(timer);
        timer = null;
        setPlaying(false);
      }
      update();
    }, 350);
  }

  function setPlaying(on) {
    ui.play.setAttribute("aria-pressed", String(on));
    ui.play.textContent = on ? "Pause" : "Play";
    // while it runs, its every number read aloud would only be noise
    ui.say.setAttribute("aria-live", on ? "off" : "polite");
  }

  // A link into a part that is closed opens it.
  function openTarget() {
    const target = location.hash.length > 1 && byId(decodeURIComponent(location.hash.slice(1)));
    if (!target) return;
    for (let parent = target; parent; parent = parent.parentElement) if (parent.tagName === "DETAILS") parent.open = true;
    target.scrollIntoView();
  }

  ui["dataset-box"].hidden = data.datasets.length < 2;
  byId("x-without").hidden = true;
  byId("explorer").hidden = false;
  for (const name of ["dataset", "seed", "quantity", "reference", "layer", "measure"]) ui[name].addEventListener("change", update);
  for (const name of ["view", "centring"]) ui[name].addEventListener("change", () => { ui.say.textContent = ""; update(); });
  ui.recipes.addEventListener("change", (event) => {
    selected[event.target.checked ? "add" : "delete"](event.target.value);
    update();
  });
  ui.epoch.addEventListener("input", update);
  ui.place.addEventListener("input", () => {
    placed[view()] = ui.place.places?.[Number(ui.place.value)];
    update();
  });
  ui.find.addEventListener("input", find);
  ui.all.addEventListener("click", () => select(true));
  ui.none.addEventListener("click", () => select(false));
  ui.play.addEventListener("click", play);
  ui.table.addEventListener("toggle", showNumbers);
  let width = 0;
  new ResizeObserver(() => {
    const now = ui.plate.clientWidth;
    if (now !== width && view() !== "matrix") update();
    width = now;
  }).observe(ui.plate);
  window.addEventListener("hashchange", openTarget);
  ui.epoch.max = ui.epoch.value = 0; // the first view stands at the last step
  update();
  openTarget();
})();

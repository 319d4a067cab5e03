"use strict";
// One state (chosen object, order, filters, colour), four views of it: picture, table, map, object.
const data = JSON.parse(document.getElementById("data").textContent);
const $ = id => document.getElementById(id);
const n = data.x.length;
const columns = Object.fromEntries(data.columns.map(c => [c.key, c]));
const MOST_ROWS = 500; // a longer table makes browsers slow
const state = {chosen: null, sort: "id", up: true, visible: [...Array(n).keys()], layer: 0, colour: "activity"};
const view = {x: 0, y: 0, zoom: 1}; // top left corner in grid pixels from the top, screen pixels per grid pixel

function element(tag, text, properties) {
  const made = document.createElement(tag);
  if (text !== undefined && text !== null) made.textContent = text;
  return Object.assign(made, properties);
}
function show(column, row) {
  const value = column.values[row];
  return value === null ? "–" : column.digits === undefined ? value : value.toFixed(column.digits);
}
function fit(canvas) { // match the canvas to its size on the screen; return a context in CSS pixels
  const ratio = window.devicePixelRatio || 1, box = canvas.getBoundingClientRect();
  canvas.width = Math.round(box.width * ratio);
  canvas.height = Math.round(box.height * ratio);
  const pen = canvas.getContext("2d");
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.font = "11px system-ui, sans-serif";
  return [pen, box.width, box.height];
}
function load(source) {
  const picture = new Image();
  if (source) picture.src = source;
  return picture;
}
const layers = data.layers.map(layer => load(layer.src));
const bands = data.bands.map(band => band.src ? load(band.src) : null);

// -- colours -----------------------------------------------------------------------------------------
const STOPS = [[255, 93, 93], [255, 193, 77], [141, 245, 141], [127, 209, 255]];
function ramp(t) {
  const place = Math.min(Math.max(t, 0), 1) * (STOPS.length - 1), k = Math.min(Math.floor(place), STOPS.length - 2);
  return `rgb(${STOPS[k].map((v, c) => Math.round(v + (place - k) * (STOPS[k + 1][c] - v))).join(",")})`;
}
function colours() {
  const values = columns[state.colour].values, sorted = values.filter(v => v !== null).sort((a, b) => a - b);
  const at = q => sorted[Math.min(Math.floor(q * sorted.length), sorted.length - 1)];
  const [low, high] = state.colour === "activity" ? [0, 1] : [at(0.02) ?? 0, at(0.98) ?? 1];
  const box = $("scale");
  box.replaceChildren(String(+low.toFixed(2)), element("i"), String(+high.toFixed(2)));
  box.children[0].style.background = `linear-gradient(90deg,${[0, .33, .67, 1].map(ramp).join(",")})`;
  return values.map(v => v === null ? "#777" : ramp((v - low) / (high - low || 1)));
}
let palette = [];

// -- picture -----------------------------------------------------------------------------------------
const toScreen = row => [(data.x[row] + 0.5 - view.x) * view.zoom, (data.ny - data.y[row] - 0.5 - view.y) * view.zoom];
function home() {
  const box = $("picture").getBoundingClientRect();
  view.zoom = Math.min(box.width / data.nx, box.height / data.ny);
  view.x = (data.nx - box.width / view.zoom) / 2;
  view.y = (data.ny - box.height / view.zoom) / 2;
}
function drawPicture() {
  const [pen, width, height] = fit($("picture"));
  pen.imageSmoothingEnabled = view.zoom < 3;
  for (const layer of layers.slice(state.layer).reverse()) { // Rubin shows where Euclid has no pixels
    pen.drawImage(layer, -view.x * view.zoom, -view.y * view.zoom, data.nx * view.zoom, data.ny * view.zoom);
  }
  if ($("ellipses").checked) for (const row of state.visible) drawEllipse(pen, row, palette[row], 1.2);
  if ($("numbers").checked) for (const row of state.visible) {
    const [x, y] = toScreen(row);
    pen.fillStyle = "#fff";
    pen.fillText(columns.id.values[row], x + 5 + radius(row) * view.zoom * 0.7, y - 4);
  }
  if (state.chosen !== null) drawEllipse(pen, state.chosen, "#ffd54d", 3);
  drawScale(pen, width, height);
}
const radius = row => 1.8 * Math.hypot(data.a[row], 2.5); // as wide as the blur of space shows a point
function drawEllipse(pen, row, colour, line) {
  const [x, y] = toScreen(row), minor = 1.8 * Math.hypot(data.b[row], 2.5);
  pen.beginPath();
  pen.ellipse(x, y, radius(row) * view.zoom, minor * view.zoom, -data.angle[row] * Math.PI / 180, 0, 2 * Math.PI);
  pen.strokeStyle = colour;
  pen.lineWidth = line;
  pen.stroke();
}
function drawScale(pen, width, height) {
  const lengths = [0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600], pixels = length => length / data.pixel * view.zoom;
  const length = lengths.reduce((a, b) => Math.abs(pixels(b) - 90) < Math.abs(pixels(a) - 90) ? b : a);
  pen.strokeStyle = pen.fillStyle = "#fff";
  pen.lineWidth = 2;
  pen.beginPath();
  pen.moveTo(16, height - 16);
  pen.lineTo(16 + pixels(length), height - 16);
  for (const [k, name] of ["N", "E"].entries()) {
    const [dx, dy] = data.north[k];
    pen.moveTo(width - 50, height - 30);
    pen.lineTo(width - 50 + 24 * dx, height - 30 - 24 * dy);
    pen.fillText(name, width - 54 + 34 * dx, height - 26 - 34 * dy);
  }
  pen.stroke();
  pen.fillText(length < 60 ? `${length}″` : `${length / 60}′`, 16, height - 22);
}
function nearest(x, y, places, reach) {
  let best = null, least = reach;
  for (const row of state.visible) {
    const [px, py] = places(row), distance = Math.hypot(px - x, py - y);
    if (distance < least) [best, least] = [row, distance];
  }
  return best;
}
function pointer(canvas, places, drag) { // click to choose, hover for a hint, drag to move
  let start = null, moved = false;
  const place = event => {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  canvas.addEventListener("pointerdown", event => {
    [start, moved] = [place(event), false];
    if (drag) canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", event => {
    const [x, y] = place(event);
    if (start && drag && (moved || Math.hypot(x - start[0], y - start[1]) > 3)) {
      moved = true;
      drag(x - start[0], y - start[1]);
      start = [x, y];
    }
    const row = start ? null : nearest(x, y, places, 14), tip = $("tip");
    tip.hidden = row === null;
    if (row === null) return;
    tip.textContent = `${show(columns.id, row)}: ${columns[state.colour].label} ${show(columns[state.colour], row)}`;
    tip.style.left = `${event.clientX + 14}px`;
    tip.style.top = `${event.clientY + 10}px`;
  });
  canvas.addEventListener("pointerup", event => {
    const row = moved || !start ? null : nearest(...place(event), places, 20);
    start = null;
    if (row !== null) choose(row);
  });
  canvas.addEventListener("pointerleave", () => { $("tip").hidden = true; });
}
function zoomBy(factor, x, y) {
  const zoom = Math.min(Math.max(view.zoom * factor, 0.05), 60);
  view.x += x / view.zoom - x / zoom;
  view.y += y / view.zoom - y / zoom;
  view.zoom = zoom;
  drawPicture();
}

// -- map of embeddings -------------------------------------------------------------------------------
let mapPlaces = row => [0, 0];
function drawMap() {
  const [pen, width, height] = fit($("map"));
  if (!n) return;
  const range = axis => {
    const values = data.map.map(place => place[axis]), low = Math.min(...values), high = Math.max(...values);
    return [low, (high - low) || 1];
  };
  const [[x0, dx], [y0, dy]] = [range(0), range(1)];
  mapPlaces = row => [14 + (data.map[row][0] - x0) / dx * (width - 28), height - 14 - (data.map[row][1] - y0) / dy * (height - 28)];
  const dot = (row, colour, size) => {
    pen.beginPath();
    pen.arc(...mapPlaces(row), size, 0, 2 * Math.PI);
    pen.fillStyle = colour;
    pen.fill();
  };
  const visible = new Set(state.visible);
  for (let row = 0; row < n; row++) if (!visible.has(row)) dot(row, "#2a313b", 2);
  for (const row of state.visible) dot(row, palette[row], 3.5);
  if (state.chosen === null) return;
  pen.strokeStyle = "#ffd54d88";
  for (const other of data.neighbours[state.chosen]) {
    pen.beginPath();
    pen.moveTo(...mapPlaces(state.chosen));
    pen.lineTo(...mapPlaces(other));
    pen.stroke();
  }
  dot(state.chosen, "#ffd54d", 6);
}

// -- table -------------------------------------------------------------------------------------------
function passes(text, value) {
  const word = text.trim().toLowerCase();
  if (!word) return true;
  let match;
  if (typeof value === "string") {
    return word[0] === "!" ? !value.toLowerCase().includes(word.slice(1)) : value.toLowerCase().includes(word);
  }
  if (value === null) return false;
  if ((match = word.match(/^(<=?|>=?)\s*(-?[\d.]+)$/))) {
    const bound = +match[2];
    return {"<": value < bound, "<=": value <= bound, ">": value > bound, ">=": value >= bound}[match[1]];
  }
  if ((match = word.match(/^(-?[\d.]+?)\.\.(-?[\d.]+)$/))) return value >= +match[1] && value <= +match[2];
  return isNaN(+word) || value === +word; // half-typed filters let everything pass
}
function select() {
  const filters = [...document.querySelectorAll("thead input")].map(input => [input.dataset.key, input.value]);
  const values = columns[state.sort].values, sign = state.up ? 1 : -1;
  state.visible = [...Array(n).keys()]
    .filter(row => filters.every(([key, text]) => passes(text, columns[key].values[row])))
    .sort((a, b) => {
      if (values[a] === null || values[b] === null) return (values[a] === null) - (values[b] === null);
      return sign * (values[a] < values[b] ? -1 : values[a] > values[b] ? 1 : 0);
    });
  drawRows();
  drawPicture();
  drawMap();
}
function drawRows() {
  for (const head of document.querySelectorAll("thead tr:first-child th")) {
    head.removeAttribute("aria-sort");
    if (head.dataset.key === state.sort) head.setAttribute("aria-sort", state.up ? "ascending" : "descending");
  }
  const shown = state.visible.slice(0, MOST_ROWS), body = document.querySelector("#rows tbody");
  body.replaceChildren(...shown.map(row => {
    const line = element("tr", null, {className: row === state.chosen ? "chosen" : ""});
    line.dataset.row = row;
    line.append(...data.columns.map(c => element("td", show(c, row), {className: c.digits === undefined ? "text" : ""})));
    return line;
  }));
  $("shown").textContent = `${state.visible.length} of ${n} objects` +
    (shown.length < state.visible.length ? `, the first ${MOST_ROWS} in the table` : "");
}
function makeTable() {
  const heads = element("tr"), filters = element("tr");
  for (const c of data.columns) {
    const className = c.digits === undefined ? "text" : "";
    const head = element("th", c.label, {title: c.text, className, tabIndex: 0});
    head.dataset.key = c.key;
    const sort = () => {
      state.up = state.sort === c.key ? !state.up : true;
      state.sort = c.key;
      select();
    };
    head.addEventListener("click", sort);
    head.addEventListener("keydown", event => { if (event.key === "Enter") sort(); });
    heads.append(head);
    const input = element("input", null, {ariaLabel: `filter ${c.label}`});
    input.dataset.key = c.key;
    input.addEventListener("input", select);
    const cell = element("th", null, {className});
    cell.append(input);
    filters.append(cell);
  }
  document.querySelector("thead").append(heads, filters);
  document.querySelector("#rows tbody").addEventListener("click", event => {
    const line = event.target.closest("tr");
    if (line) choose(+line.dataset.row);
  });
}

// -- one object --------------------------------------------------------------------------------------
const HALF = 25; // grid pixels to each side of a cut-out: 2.5 arcsec
function cutOut(canvas, pictures, row, half, band) {
  const step = pictures.at(-1).naturalWidth / data.nx; // picture pixels per grid pixel
  const side = Math.max(Math.round(2 * half * step), 8);
  canvas.width = canvas.height = side;
  const pen = canvas.getContext("2d", {willReadFrequently: true});
  pen.fillStyle = "#000";
  pen.fillRect(0, 0, side, side);
  const left = Math.round((data.x[row] + 0.5 - half) * step), top = Math.round((data.ny - data.y[row] - 0.5 - half) * step);
  for (const picture of pictures) {
    const finer = picture.naturalWidth / pictures.at(-1).naturalWidth;
    pen.drawImage(picture, left * finer, top * finer, side * finer, side * finer, 0, 0, side, side);
  }
  if (!band) return;
  // The picture holds asinh levels of the noise; white is the brightest of this cut-out, 12 sigma at least.
  const pixels = pen.getImageData(0, 0, side, side), {first, low, high, knee} = data.levels;
  const level = code => low + (code - first) / (255 - first) * (high - low);
  const codes = [];
  for (let k = 0; k < pixels.data.length; k += 4) codes.push(pixels.data[k]);
  const bright = level([...codes].sort((a, b) => a - b)[Math.floor(0.99 * codes.length)]);
  const white = Math.max(Math.asinh(12 / knee), bright);
  codes.forEach((code, k) => {
    const grey = Math.round(255 * Math.min(Math.max((level(code) / white + 0.25) / 1.25, 0), 1));
    const values = code < first - 8 ? [48, 52, 60] : [grey, grey, grey];
    values.forEach((value, channel) => { pixels.data[4 * k + channel] = value; });
  });
  pen.putImageData(pixels, 0, 0);
}
function drawSed(row) {
  const [pen, width, height] = fit($("sed"));
  const points = data.bands.filter(b => b.flux[row] !== null).map(b => [b, b.flux[row], b.error[row] ?? 0]);
  pen.fillStyle = "#9aa4b1";
  if (!points.length) return pen.fillText("no flux was measured", 20, 30);
  const [left, bottom, top] = [64, 28, 16];
  let low = Math.min(0, ...points.map(([, f, e]) => f - e)), high = Math.max(...points.map(([, f, e]) => f + e), 1);
  const pad = 0.06 * (high - low);
  [low, high] = [low - pad, high + 3 * pad];  // the names of the bands stand above their points
  const across = w => left + (Math.log(w) - Math.log(330)) / (Math.log(2000) - Math.log(330)) * (width - left - 8);
  const up = f => height - bottom - (f - low) / (high - low) * (height - bottom - top);
  pen.strokeStyle = "#2a313b";
  pen.strokeRect(left, top, width - left - 8, height - bottom - top);
  const unit = 10 ** Math.floor(Math.log10((high - low) / 3)), step = [1, 2, 5, 10].map(k => k * unit).find(s => (high - low) / s < 5.5);
  pen.textAlign = "right";
  for (let f = Math.ceil(low / step) * step; f <= high; f += step) {
    pen.fillText(String(+f.toPrecision(6)), left - 5, up(f) + 4);
    pen.beginPath();
    pen.moveTo(left, up(f));
    pen.lineTo(width - 8, up(f));
    pen.stroke();
  }
  pen.textAlign = "left";
  pen.fillText("flux density (nJy) with 1σ", 4, 11);
  pen.textAlign = "center";
  for (const w of [400, 600, 1000, 1500]) pen.fillText(`${w} nm`, across(w), height - 10);
  for (const [band, flux, error] of points) {
    const x = across(band.wavelength);
    pen.strokeStyle = pen.fillStyle = band.survey === "Rubin" ? "#ffc14d" : "#7fd1ff";
    pen.lineWidth = 1.5;
    pen.beginPath();
    pen.moveTo(x, up(flux - error));
    pen.lineTo(x, up(flux + error));
    pen.stroke();
    pen.beginPath();
    band.survey === "Rubin" ? pen.arc(x, up(flux), 4, 0, 2 * Math.PI) : pen.rect(x - 4, up(flux) - 4, 8, 8);
    pen.fill();
    pen.fillText(band.name, x, Math.max(up(flux + error) - 5, top + 9));
  }
}
function drawObject() {
  const row = state.chosen, panel = $("object");
  panel.replaceChildren(element("h2", `Object ${show(columns.id, row)}`));
  const facts = element("dl");
  for (const c of data.columns.filter(c => c.key !== "id" && c.key !== "flags")) {
    facts.append(element("dt", c.label, {title: c.text}), element("dd", show(c, row)));
  }
  const flags = columns.flags.values[row].split(" ").filter(Boolean).map(name => name.replaceAll("_", " "));
  panel.append(facts, element("p", `flags: ${flags.join(", ") || "none"}`, {className: "hint"}));
  if (bands.some(Boolean)) {
    const box = element("div", null, {className: "cutouts", id: "cutouts"});
    data.bands.forEach((band, k) => {
      const figure = element("figure"), canvas = element("canvas");
      const [flux, error] = [band.flux[row], band.error[row]];
      const label = `${band.name} ${flux === null || !error ? "–" : (flux / error).toFixed(0) + "σ"}`;
      figure.append(canvas, element("figcaption", label, {title: `${band.survey} ${band.name}: flux over its error`}));
      if (bands[k]) cutOut(canvas, [bands[k]], row, HALF, band);
      box.append(figure);
    });
    panel.append(element("h3", `Cut-outs, ${2 * HALF * data.pixel}″ wide: Rubin ugrizy, Euclid VIS YJH`), box);
  }
  panel.append(element("h3", "Spectral energy distribution: ● Rubin  ■ Euclid"), element("canvas", null, {id: "sed"}));
  drawSed(row);
  panel.append(element("h3", "Neighbours on the manifold: cosine similarity of embeddings"));
  const near = element("div", null, {className: "cutouts", id: "neighbours"});
  data.neighbours[row].forEach((other, k) => {
    const figure = element("figure", null, {className: "near", tabIndex: 0}), canvas = element("canvas");
    figure.append(canvas, element("figcaption", `${show(columns.id, other)}: ${data.similarity[row][k].toFixed(2)}`));
    figure.addEventListener("click", () => choose(other));
    if (layers.length) cutOut(canvas, layers.slice(state.layer).reverse(), other, HALF, null); else canvas.remove();
    near.append(figure);
  });
  panel.append(near);
}
function choose(row) {
  state.chosen = row;
  const box = $("picture").getBoundingClientRect(), [x, y] = toScreen(row);
  if (x < 0 || y < 0 || x > box.width || y > box.height) { // bring it into view
    view.x += (x - box.width / 2) / view.zoom;
    view.y += (y - box.height / 2) / view.zoom;
  }
  drawObject();
  drawRows();
  document.querySelector("tr.chosen")?.scrollIntoView({block: "nearest"});
  drawPicture();
  drawMap();
}

// -- head and foot -----------------------------------------------------------------------------------
function makeSummary() {
  const {summary} = data, chip = (number, text) => {
    const item = element("li");
    item.append(element("b", number), ` ${text}`);
    return item;
  };
  $("counts").append(chip(summary.n, summary.shown < summary.n ? `objects, the ${summary.shown} most active shown` : "objects"));
  for (const [text, number] of Object.entries(summary.counts)) $("counts").append(chip(number, text));
  const offset = summary.offset;
  if (offset && offset.n_sources > 0) {
    $("offset").textContent = `Euclid minus Rubin: ${offset.euclid_minus_rubin_ra_mas.toFixed(1)} mas east, ` +
      `${offset.euclid_minus_rubin_dec_mas.toFixed(1)} mas north, ± ${offset.error_mas.toFixed(1)} (${offset.n_sources} objects)`;
  }
  const table = (heads, lines) => {
    const made = element("table"), row = (tag, cells) => {
      const line = element("tr");
      line.append(...cells.map(cell => element(tag, cell)));
      return line;
    };
    made.append(row("th", heads), ...lines.map(line => row("td", line)));
    return made;
  };
  const box = document.querySelector("#provenance div");
  box.append(table(["made with", ""], Object.entries(summary.facts)));
  if (summary.depths.length) box.append(table(["band", "5σ depth (AB)", "PSF from"], summary.depths));
  if (summary.flags.length) box.append(table(["flag", "objects", "meaning"], summary.flags));
}
function start() {
  makeSummary();
  makeTable();
  for (const c of data.columns) if (c.digits !== undefined) $("colour").append(element("option", c.label, {value: c.key, title: c.text}));
  $("colour").value = state.colour;
  data.layers.forEach((layer, k) => {
    const button = element("button", layer.name, {type: "button", ariaPressed: String(k === 0)});
    button.addEventListener("click", () => {
      state.layer = k;
      [...$("layers").children].forEach((other, j) => { other.ariaPressed = String(j === k); });
      drawPicture();
      if (state.chosen !== null) drawObject();
    });
    $("layers").append(button);
  });
  pointer($("picture"), toScreen, (dx, dy) => {
    view.x -= dx / view.zoom;
    view.y -= dy / view.zoom;
    drawPicture();
  });
  pointer($("map"), row => mapPlaces(row), null);
  $("picture").addEventListener("wheel", event => {
    event.preventDefault();
    zoomBy(Math.exp(-event.deltaY / 400), event.offsetX, event.offsetY);
  }, {passive: false});
  $("picture").addEventListener("keydown", event => {
    const box = $("picture").getBoundingClientRect(), factor = {"+": 1.3, "=": 1.3, "-": 1 / 1.3}[event.key];
    if (factor) zoomBy(factor, box.width / 2, box.height / 2);
  });
  $("ellipses").addEventListener("change", drawPicture);
  $("numbers").addEventListener("change", drawPicture);
  $("colour").addEventListener("change", () => {
    state.colour = $("colour").value;
    palette = colours();
    drawPicture();
    drawMap();
  });
  $("home").addEventListener("click", () => { home(); drawPicture(); });
  $("clear").addEventListener("click", () => {
    for (const input of document.querySelectorAll("thead input")) input.value = "";
    select();
  });
  window.addEventListener("resize", () => {
    drawPicture();
    drawMap();
    if (state.chosen !== null) drawSed(state.chosen);
  });
  palette = colours();
  home();
  select();
  if (n) choose(0);
  document.body.dataset.ready = "yes";
}
Promise.all([...layers, ...bands.filter(Boolean)].map(picture => picture.decode())).then(start);

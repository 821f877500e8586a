// Shows the values of the small figures, and lets a reader choose a layer and a step. The page is complete without it.
(function () {
  "use strict";
  const data = JSON.parse(document.getElementById("numbers").textContent);
  const byId = (id) => document.getElementById(id);
  const chosen = { layer: null, start: null, step: 0 };

  function smallFigure(figure) {
    const points = data.small[figure.dataset.figure];
    const svg = figure.querySelector("svg"), cursor = svg.querySelector(".cursor");
    const readout = figure.querySelector(".readout");
    let place = null;
    function show(next) {
      place = Math.max(0, Math.min(points.x.length - 1, next));
      cursor.setAttribute("x1", points.x[place]);
      cursor.setAttribute("x2", points.x[place]);
      cursor.setAttribute("visibility", "visible");
      readout.textContent = points.text[place];
    }
    function nearest(event) {
      const box = svg.getBoundingClientRect();
      const x = ((event.clientX - box.left) / box.width) * svg.viewBox.baseVal.width;
      const away = points.x.map((at) => Math.abs(at - x));
      return away.indexOf(Math.min(...away));
    }
    svg.setAttribute("tabindex", "0");
    svg.addEventListener("pointermove", (event) => show(nearest(event)));
    svg.addEventListener("pointerdown", (event) => { show(nearest(event)); visit(points.keys[place]); });
    svg.addEventListener("focus", () => { if (place === null) show(0); });
    svg.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (step) { show((place === null ? 0 : place) + step); event.preventDefault(); }
      if (event.key === "Enter" && place !== null) visit(points.keys[place]);
    });
  }

  // Shows a layer in the chooser, brings the chooser into view and marks it for a moment.
  function visit(layer) {
    choose("layer", layer);
    const chooser = byId("chooser");
    if (!chooser || chooser.hidden) return;
    chooser.scrollIntoView({ block: "start" });
    chooser.classList.remove("visited");
    void chooser.offsetWidth;
    chooser.classList.add("visited");
  }

  function cell(row, text, kind) {
    row.appendChild(document.createElement(kind || "td")).textContent = text;
  }

  function fillInterventions(name) {
    const all = data.interventions, table = byId("interventions");
    byId("interventions-title").textContent = "Interventions: " + name;
    table.replaceChildren();
    const head = table.createTHead().insertRow();
    all.heads.forEach((title) => { cell(head, title, "th"); head.lastChild.scope = "col"; });
    const rows = (all.layers[chosen.layer] || []).filter(
      (row) => row[0] === null || String(row[0]) === chosen.start);
    const body = table.createTBody();
    [all.whole].concat(rows.map((row) => row[1])).forEach((cells) => {
      const line = body.insertRow();
      cells.forEach((text) => cell(line, text));
    });
    if (!rows.length) cell(body.insertRow(), "Not measured at this layer.");
  }

  function value(network, layer, row, column) {
    const all = data.similarity;
    const found = all.values[network][layer][row * all.steps.length + column];
    return found === null ? "not measured" : (found / 1000).toFixed(2);
  }

  function fillSimilarity(name) {
    const all = data.similarity, layer = all.keys.indexOf(chosen.layer), count = all.steps.length;
    byId("similarity-title").textContent = "Similarity between steps: " + name;
    document.querySelectorAll("canvas[data-network]").forEach((canvas) => {
      canvas.width = canvas.height = count;
      const picture = canvas.getContext("2d");
      for (let at = 0; layer >= 0 && at < count * count; at++) {
        const found = all.values[canvas.dataset.network][layer][at];
        const share = found === null ? 0 : (found - all.low) / Math.max(1, 1000 - all.low);
        const shade = Math.max(0, Math.min(all.palette.length - 1, Math.floor(share * all.palette.length)));
        picture.fillStyle = found === null ? "#999" : all.palette[shade];
        picture.fillRect(at % count, Math.floor(at / count), 1, 1);
      }
    });
    showStep(chosen.step, count - 1);
  }

  function showStep(row, column) {
    const all = data.similarity, layer = all.keys.indexOf(chosen.layer);
    if (layer < 0) { byId("similarity-readout").textContent = "Not measured at this layer."; return; }
    const step = (at) => "step " + all.steps[at] + " (sigma " + all.sigma[at] + ")";
    const values = Object.keys(all.names).map((network) => all.names[network] + " " + value(network, layer, row, column));
    const text = all.layers[layer] + ", " + step(row) + " against " + step(column) + ": " + values.join("; ");
    byId("similarity-readout").textContent = text.charAt(0).toUpperCase() + text.slice(1);
    document.querySelectorAll("canvas[data-network]").forEach((c) => c.setAttribute("aria-label", text));
  }

  function pointAt(canvas) {
    let column = data.similarity.steps.length - 1;
    canvas.addEventListener("pointermove", (event) => {
      const box = canvas.getBoundingClientRect(), count = data.similarity.steps.length;
      const place = (at, from, size) => Math.max(0, Math.min(count - 1, Math.floor(((at - from) / size) * count)));
      column = place(event.clientX, box.left, box.width);
      showStep(place(event.clientY, box.top, box.height), column);
    });
    canvas.addEventListener("pointerleave", () => showStep(chosen.step, data.similarity.steps.length - 1));
    canvas.addEventListener("keydown", (event) => {
      const move = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] }[event.key];
      if (!move) return;
      const inside = (at) => Math.max(0, Math.min(data.similarity.steps.length - 1, at));
      column = inside(column + move[0]);
      choose("step", inside(chosen.step + move[1]));
      showStep(chosen.step, column);
      event.preventDefault();
    });
  }

  function draw() {
    const known = data.layers.find((layer) => layer.key === chosen.layer);
    const name = known ? known.name : "layer " + chosen.layer;
    if (data.interventions) fillInterventions(name);
    if (data.similarity) fillSimilarity(name);
    document.querySelectorAll("figure[data-frames]").forEach(showFrame);
    document.querySelectorAll(".frames").forEach((group) => { group.hidden = !group.querySelector("figure:not([hidden])"); });
  }

  // Shows the frame of the chosen layer; a picture with one frame, such as the truth, stays as it is.
  function showFrame(figure) {
    const layers = data.frames[figure.dataset.frames];
    if (!layers) return;
    const at = layers.indexOf(chosen.layer), share = layers.length > 1 ? 100 * at / (layers.length - 1) : 0;
    figure.hidden = at < 0;
    figure.firstElementChild.style.backgroundPosition = share + "% 0";
    const text = figure.dataset.label.replace("L", chosen.layer.split("-").pop());
    figure.lastElementChild.textContent = text;
    figure.firstElementChild.setAttribute("aria-label", text);
  }

  function choose(what, wanted) {
    chosen[what] = what === "step" ? Number(wanted) : String(wanted);
    const select = byId("choose-" + what);
    if (select) select.value = String(wanted);
    const parts = ["layer", "start", "step"].filter((key) => chosen[key] !== null).map((key) => key + "=" + chosen[key]);
    try { history.replaceState(null, "", "#" + parts.join("&")); } catch (refused) { /* some viewers do not allow it */ }
    draw();
  }

  function options(id, pairs, what) {
    const select = byId(id);
    if (!select) return;
    pairs.forEach(([key, text]) => select.add(new Option(text, key)));
    select.addEventListener("change", () => choose(what, select.value));
  }

  function fromLink() {
    const asked = new URLSearchParams(location.hash.slice(1));
    const keys = data.layers.map((layer) => layer.key);
    if (keys.includes(asked.get("layer"))) chosen.layer = asked.get("layer");
    if (data.interventions && asked.get("start") in data.interventions.starts) chosen.start = asked.get("start");
    const step = Number(asked.get("step"));
    if (data.similarity && step >= 0 && step < data.similarity.steps.length) chosen.step = Math.floor(step);
    ["layer", "start", "step"].forEach((what) => {
      const select = byId("choose-" + what);
      if (select) select.value = String(chosen[what]);
    });
    draw();
  }

  document.querySelectorAll("figure[data-figure]").forEach(smallFigure);
  document.querySelectorAll(".with-script").forEach((hint) => { hint.hidden = false; });
  if (!data.layers.length) return;
  byId("chooser").hidden = false;
  options("choose-layer", data.layers.map((layer) => [layer.key, layer.name]), "layer");
  const measured = data.interventions ? data.interventions.layers : {};
  chosen.layer = (data.layers.find((layer) => layer.key in measured) || data.layers[0]).key;
  byId("choose-layer").value = chosen.layer;
  if (data.interventions) {
    const starts = Object.keys(data.interventions.starts);
    options("choose-start", starts.map((s) => [s, s + " (sigma " + data.interventions.starts[s] + ")"]), "start");
    chosen.start = starts.length ? starts[0] : null;
  }
  if (data.similarity) {
    const steps = data.similarity.steps;
    options("choose-step", steps.map((s, at) => [String(at), s + " (sigma " + data.similarity.sigma[at] + ")"]), "step");
    document.querySelectorAll("canvas[data-network]").forEach(pointAt);
  }
  window.addEventListener("hashchange", fromLink);
  fromLink();
})();

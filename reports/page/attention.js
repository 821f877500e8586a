// Shows where the chosen patch of the generated frame looks in earlier frames. The section is hidden without it.
(function () {
  "use strict";
  const SIGNS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", NONE = 63, SIDE = 32;
  const byId = (id) => document.getElementById("attention-" + id);
  const data = JSON.parse(byId("numbers").textContent);
  const levels = new Uint8Array(128);
  Array.from(SIGNS).forEach((sign, at) => { levels[sign.charCodeAt(0)] = at; });
  const tokens = data.rows * data.columns, height = data.rows * data.queries / tokens;
  const chosen = { clip: 0, step: 0, layer: 0, head: 0, row: Math.floor(height / 2), column: Math.floor(data.columns / 2) };
  const read = { frame: data.frames.length - 1, row: Math.floor(data.rows / 2), column: Math.floor(data.columns / 2) };
  const maps = [];

  const query = () => chosen.row * data.columns + chosen.column;
  const heads = () => chosen.head ? [chosen.head - 1] : Array.from({ length: data.heads }, (_, head) => head);
  const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

  // Attention over uniform attention; null for a key that is not in view.
  function ratio(frame, token) {
    const text = data.values[chosen.clip][chosen.step][chosen.layer];
    const found = heads().map((head) => {
      const place = ((head * data.queries + query()) * data.frames.length + frame) * tokens + token;
      return levels[text.charCodeAt(place)];
    });
    return found.includes(NONE) ? null : mean(found.map((level) => 2 ** (data.low + level * data.width)));
  }

  // The shares of the attention on the earlier frames (null: it has no keys in view) and, last, the own chunk.
  function shares() {
    const all = data.shares[chosen.clip][chosen.step][chosen.layer], count = data.frames.length + 1;
    return Array.from({ length: count }, (_, frame) => {
      const found = heads().map((head) => all[(head * data.queries + query()) * count + frame]);
      return found.includes(-1) ? null : mean(found) / 1000;
    });
  }

  const percent = (value) => (100 * value).toPrecision(value < 0.0995 ? 2 : 3).replace(/\.0+$/, "") + " %";
  const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);

  function colour(value) {
    if (value === null) return "#8a8a8a";
    const place = (Math.log2(value) / data.brightest + 1) / 2 * (data.palette.length - 1);
    return data.palette[Math.max(0, Math.min(data.palette.length - 1, Math.round(place)))];
  }

  function outline(picture, row, column) {
    picture.lineWidth = 2;
    [["#000", 1], ["#fff", 3]].forEach(([ink, inset]) => {
      picture.strokeStyle = ink;
      picture.strokeRect(column * SIDE + inset, row * SIDE + inset, SIDE - 2 * inset, SIDE - 2 * inset);
    });
  }

  function drawMap(frame) {
    const picture = maps[frame].canvas.getContext("2d");
    for (let token = 0; token < tokens; token++) {
      picture.fillStyle = colour(ratio(frame, token));
      picture.fillRect((token % data.columns) * SIDE, Math.floor(token / data.columns) * SIDE, SIDE, SIDE);
    }
    if (frame === read.frame) outline(picture, read.row, read.column);
    const part = shares()[frame];
    maps[frame].caption.textContent = "frame " + data.frames[frame] + ": " + (part === null ? "no keys" : percent(part));
  }

  function drawQuery() {
    const canvas = byId("query"), picture = canvas.getContext("2d");
    picture.clearRect(0, 0, canvas.width, canvas.height);
    picture.lineWidth = 1;
    picture.strokeStyle = "rgba(128, 128, 128, .6)";
    for (let row = 0; row < height; row++)
      for (let column = 0; column < data.columns; column++)
        picture.strokeRect(column * SIDE + .5, row * SIDE + .5, SIDE - 1, SIDE - 1);
    outline(picture, chosen.row, chosen.column);
  }

  function tell() {
    const parts = shares(), own = parts.pop(), keys = data.keys[chosen.layer];
    const earlier = parts.reduce((sum, part) => sum + part, 0), rest = 1 - own - earlier;
    const head = chosen.head ? "head " + data.head[chosen.head] : data.head[0];
    const patch = "patch in row " + chosen.row + ", column " + chosen.column;
    const text = data.layer[chosen.layer] + ", " + head + ", step " + data.step[chosen.step] + ", clip " +
      data.clip[chosen.clip] + ": the " + patch + " has " + percent(own) + " of its attention on its own " +
      (data.queries > tokens ? "frames" : "frame") + " and " +
      percent(earlier) + " on earlier frames" + (rest > 0.0095 ? ", " + percent(rest) + " on keys that no map shows" : "") + "; uniform attention has " + percent(tokens / keys) + " on each frame.";
    byId("patch").textContent = capital(text);
    byId("query").setAttribute("aria-label", patch);
    tellKey();
  }

  function tellKey() {
    const found = ratio(read.frame, read.row * data.columns + read.column);
    const place = "Frame " + data.frames[read.frame] + ", row " + read.row + ", column " + read.column + ": ";
    const least = 2 ** data.low, isLeast = found !== null && found <= least * 1.0001;
    const times = found === null ? "" : isLeast ? "at most " + least : "about " + Number(found.toPrecision(2));
    const part = found === null ? "" : (isLeast ? "at most " : "about ") + percent(found / data.keys[chosen.layer]);
    byId("key").textContent = place + (found === null ? "not in view" : part + " of the attention, " + times + " times uniform attention") + ".";
  }

  function draw() {
    drawQuery();
    maps.forEach((_, frame) => drawMap(frame));
    tell();
  }

  function showPictures() {
    const found = data.pictures[chosen.clip], isShown = byId("frames").checked && found;
    maps.forEach((map, frame) => {
      map.under.style.backgroundImage = isShown ? found.past[frame] : "none";
      map.canvas.style.opacity = isShown ? 0.8 : 1;
    });
    const under = byId("query").parentElement, count = data.queries / tokens;
    under.style.backgroundImage = found ? found.drawn.join(",") : "none";
    under.style.backgroundSize = "100% " + 100 / count + "%";
    under.style.backgroundPosition = Array.from({ length: count }, (_, at) => "0 " + (count > 1 ? 100 * at / (count - 1) : 0) + "%").join(",");
  }

  function cellAt(event, canvas, rows) {
    const box = canvas.getBoundingClientRect();
    const place = (at, from, size, count) => Math.max(0, Math.min(count - 1, Math.floor(((at - from) / size) * count)));
    return [place(event.clientY, box.top, box.height, rows), place(event.clientX, box.left, box.width, data.columns)];
  }

  function readAt(frame, row, column) {
    const before = read.frame;
    Object.assign(read, { frame, row, column });
    drawMap(before);
    drawMap(frame);
    tellKey();
  }

  const moves = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] };
  const inside = (at, count) => Math.max(0, Math.min(count - 1, at));

  function moveQuery(event) {
    const move = moves[event.key];
    if (!move) return;
    chosen.row = inside(chosen.row + move[0], height);
    chosen.column = inside(chosen.column + move[1], data.columns);
    draw();
    event.preventDefault();
  }

  // Beyond the side of a map the next frame begins.
  function moveKey(event) {
    const move = moves[event.key];
    if (!move) return;
    let frame = read.frame, column = read.column + move[1];
    if (column < 0 && frame > 0) { frame--; column = data.columns - 1; }
    if (column >= data.columns && frame < maps.length - 1) { frame++; column = 0; }
    readAt(frame, inside(read.row + move[0], data.rows), inside(column, data.columns));
    event.preventDefault();
  }

  function addMap(_, frame) {
    const figure = document.createElement("figure"), under = document.createElement("div");
    const canvas = document.createElement("canvas"), caption = document.createElement("figcaption");
    under.className = "patches";
    size(canvas, data.rows);
    under.appendChild(canvas);
    figure.append(caption, under);
    byId("maps").appendChild(figure);
    ["pointermove", "pointerdown"].forEach((kind) => canvas.addEventListener(kind, (event) => readAt(frame, ...cellAt(event, canvas, data.rows))));
    maps.push({ canvas, caption, under });
  }

  function size(canvas, rows) {
    canvas.width = data.columns * SIDE;
    canvas.height = rows * SIDE;
    canvas.style.aspectRatio = data.columns + " / " + rows;
  }

  size(byId("query"), height);
  data.frames.forEach(addMap);
  ["clip", "step", "layer", "head"].forEach((what) => {
    const select = byId(what);
    data[what].forEach((text, at) => select.add(new Option(text, String(at))));
    select.addEventListener("change", () => { chosen[what] = Number(select.value); showPictures(); draw(); });
  });
  byId("query").addEventListener("pointerdown", (event) => {
    [chosen.row, chosen.column] = cellAt(event, byId("query"), height);
    draw();
  });
  byId("query").addEventListener("keydown", moveQuery);
  byId("maps").addEventListener("keydown", moveKey);
  byId("frames").addEventListener("change", showPictures);
  byId("frames").parentElement.hidden = !data.pictures.length;
  document.getElementById("attention").hidden = false;
  showPictures();
  draw();
})();

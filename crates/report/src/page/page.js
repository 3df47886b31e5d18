"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);

  // Words of the data only ever become text, never markup.
  const make = (name, properties = {}, children = []) => {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(properties)) {
      if (key.startsWith("aria-")) element.setAttribute(key, value);
      else element[key] = value;
    }
    element.append(...children);
    return element;
  };

  const tip = document.body.appendChild(make("div", { className: "tip" }));
  const showTip = (children, x, y) => {
    tip.replaceChildren(...children);
    tip.style.display = "block";
    const { width, height } = tip.getBoundingClientRect();
    const left = x + 16 + width > innerWidth - 8 ? x - 16 - width : x + 16;
    tip.style.left = `${Math.max(8, left)}px`;
    tip.style.top = `${Math.max(8, Math.min(y - height / 2, innerHeight - height - 8))}px`;
  };
  const hideTip = () => { tip.style.display = "none"; };
  addEventListener("scroll", hideTip, { passive: true });

  const words = (value, unit) => {
    if (value === null || value === undefined) return "–";
    if (unit === "percent") return `${(value * 100).toFixed(1)} %`;
    const size = Math.abs(value);
    if (size === 0) return "0";
    if (size < 1e-3) return value.toExponential(1);
    return size >= 1000 ? Math.round(value).toLocaleString("en") : String(Number(value.toPrecision(4)));
  };
  const whole = (value) => value.toLocaleString("en");

  /* Curves: the step under the pointer, or under the arrow keys. */
  const svgName = "http://www.w3.org/2000/svg";
  const shape = (name, attributes) => {
    const element = document.createElementNS(svgName, name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    return element;
  };
  for (const plot of data.plots) {
    const svg = document.getElementById(`plot-${plot.id}`);
    const [left, top, right, bottom] = plot.box;
    const placeX = (step) => left + ((step - plot.x[0]) / (plot.x[1] - plot.x[0])) * (right - left);
    const along = (value) => (plot.log ? Math.log(value) : value);
    const placeY = (value) =>
      bottom - ((along(value) - along(plot.y[0])) / (along(plot.y[1]) - along(plot.y[0]))) * (bottom - top);
    const cursor = shape("g", { class: "cursor", style: "display:none" });
    const line = cursor.appendChild(shape("path", { class: "a" }));
    const colored = plot.series.filter((series) => series.line);
    const dots = colored.map((_, at) => cursor.appendChild(shape("circle", { class: `p c${at}`, r: 4 })));
    svg.append(cursor);
    svg.tabIndex = 0;

    const nearest = (step) => {
      let [low, high] = [0, plot.steps.length - 1];
      while (high - low > 1) {
        const middle = (low + high) >> 1;
        if (plot.steps[middle] < step) low = middle; else high = middle;
      }
      return step - plot.steps[low] < plot.steps[high] - step ? low : high;
    };
    // Where values are few, the pointer finds the nearest of them.
    const sparse = colored.length === 1 && !colored[0].low;
    const withValue = (at) => {
      for (let off = 0; sparse && off < plot.steps.length; off++) {
        if ((colored[0].line[at - off] ?? null) !== null) return at - off;
        if ((colored[0].line[at + off] ?? null) !== null) return at + off;
      }
      return at;
    };
    let now = plot.steps.length - 1;
    const show = (at, clientY) => {
      now = withValue(at);
      const x = placeX(plot.steps[now]);
      line.setAttribute("d", `M${x} ${top}V${bottom}`);
      colored.forEach((series, of) => {
        const value = series.line[now] ?? null;
        dots[of].style.display = value === null ? "none" : "";
        if (value !== null) { dots[of].setAttribute("cx", x); dots[of].setAttribute("cy", placeY(value)); }
      });
      cursor.style.display = "";
      const rows = plot.series.map((series) => {
        const level = Array.isArray(series.level) ? series.level[now] : series.level;
        let text = words(series.line ? series.line[now] : level, plot.unit);
        const [low, high] = [series.low?.[now] ?? null, series.high?.[now] ?? null];
        if (low !== null && (low !== high || words(low, plot.unit) !== text)) {
          text += low === high ? ` (${words(low, plot.unit)})` : ` (${words(low, plot.unit)} to ${words(high, plot.unit)})`;
        }
        return make("tr", {}, [make("th", { scope: "row", textContent: series.label }), make("td", { textContent: text })]);
      });
      const epoch = plot.epochs[now];
      const head = `Step ${whole(plot.steps[now])}` + (epoch === null ? "" : `, epoch ${Number(epoch.toFixed(2))}`);
      const box = svg.getBoundingClientRect();
      const clientX = box.left + (x / svg.viewBox.baseVal.width) * box.width;
      showTip([make("div", { className: "name", textContent: head }), make("table", {}, rows)],
        clientX, clientY ?? box.top + box.height / 2);
    };
    const hide = () => { cursor.style.display = "none"; hideTip(); };
    const atPointer = (event) => {
      const box = svg.getBoundingClientRect();
      const x = ((event.clientX - box.left) / box.width) * svg.viewBox.baseVal.width;
      show(nearest(plot.x[0] + ((x - left) / (right - left)) * (plot.x[1] - plot.x[0])), event.clientY);
    };
    if (plot.steps.length) {
      svg.addEventListener("pointermove", atPointer);
      svg.addEventListener("pointerdown", atPointer);
      svg.addEventListener("pointerleave", hide);
      svg.addEventListener("blur", hide);
      svg.addEventListener("keydown", (event) => {
        const stride = event.shiftKey ? 20 : 1;
        const to = { ArrowLeft: now - stride, ArrowRight: now + stride, Home: 0, End: plot.steps.length - 1 }[event.key];
        if (event.key === "Escape") hide();
        if (to === undefined) return;
        event.preventDefault();
        show(Math.max(0, Math.min(plot.steps.length - 1, to)));
      });
    }
  }

  /* Figures as files. */
  const saveAs = (blob, name) => {
    const link = make("a", { href: URL.createObjectURL(blob), download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  };
  for (const figure of document.querySelectorAll("figure[data-figure]")) {
    const svg = figure.querySelector("svg");
    const title = figure.querySelector("h3").textContent;
    const name = figure.dataset.figure;
    const standalone = () => {
      const copy = svg.cloneNode(true);
      copy.querySelector(".cursor")?.remove();
      const { width, height } = svg.viewBox.baseVal;
      copy.setAttribute("viewBox", `0 -30 ${width} ${height + 30}`);
      copy.setAttribute("width", width);
      copy.setAttribute("height", height + 30);
      for (const attribute of ["tabindex", "id"]) copy.removeAttribute(attribute);
      const heading = shape("text", { class: "t", x: 12, y: -10 });
      heading.textContent = title;
      const style = document.createElementNS(svgName, "style");
      style.textContent = data.figureStyle;
      copy.prepend(style, shape("rect", { y: -30, width, height: height + 30, fill: "#fff" }), heading);
      return { text: new XMLSerializer().serializeToString(copy), width, height: height + 30 };
    };
    const asSvg = () => saveAs(new Blob([standalone().text], { type: "image/svg+xml" }), `${name}.svg`);
    const asPng = async () => {
      const { text, width, height } = standalone();
      const image = make("img", { src: `data:image/svg+xml;charset=utf-8,${encodeURIComponent(text)}` });
      await image.decode();
      const canvas = make("canvas", { width: width * 3, height: height * 3 });
      canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
      canvas.toBlob((blob) => saveAs(blob, `${name}.png`), "image/png");
    };
    figure.querySelector(".head").append(make("span", { className: "save" }, [
      make("button", { type: "button", textContent: "SVG", title: "Save as SVG", "aria-label": `Save ${title} as SVG`, onclick: asSvg }),
      make("button", { type: "button", textContent: "PNG", title: "Save as PNG", "aria-label": `Save ${title} as PNG`, onclick: asPng }),
    ]));
  }

  /* The configuration, to the clipboard. */
  const config = document.querySelector(".config");
  if (config) {
    const button = config.insertBefore(make("button", { type: "button", textContent: "Copy" }), config.firstChild);
    button.onclick = async () => {
      const text = config.querySelector("code");
      try {
        await navigator.clipboard.writeText(text.textContent);
        button.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(text);
        button.textContent = "Selected: press Ctrl+C";
      }
      setTimeout(() => { button.textContent = "Copy"; }, 2500);
    };
  }

  // Paper shows everything that the screen folds away.
  let folded = [];
  addEventListener("beforeprint", () => {
    folded = [...document.querySelectorAll("details:not([open])")];
    for (const details of folded) details.open = true;
  });
  addEventListener("afterprint", () => { for (const details of folded) details.open = false; });

  const drawn = () => { document.documentElement.dataset.drawnMs = performance.now().toFixed(0); };
  if (!data.map) { drawn(); return; }

  /* The map of embeddings. */
  const map = data.map;
  const bytes = (text) => {
    const binary = atob(text);
    const out = new Uint8Array(binary.length);
    for (let at = 0; at < binary.length; at++) out[at] = binary.charCodeAt(at);
    return out.buffer;
  };
  const NONE = 0xffff;
  const count = map.names.length;
  const classOf = new Uint16Array(bytes(map.classOf));
  const clusterOf = new Uint16Array(bytes(map.clusterOf));
  const neighbours = new Uint32Array(bytes(map.neighbours));
  const cosines = new Int16Array(bytes(map.cosines));
  const projections = map.projections.map((projection) => ({ ...projection, places: new Uint16Array(bytes(projection.places)) }));
  const lower = map.names.map((name) => name.toLowerCase());

  const stage = document.querySelector(".canvas");
  const canvas = stage.querySelector("canvas");
  const pen = canvas.getContext("2d");
  const [note, legend, pinned, said] = ["map-note", "map-legend", "map-pinned", "map-said"].map((id) => document.getElementById(id));
  const say = (text) => { said.textContent = text; };

  const groupings = [];
  if (classOf.some((index) => index !== NONE)) {
    groupings.push({ name: "class", of: classOf, label: (index) => map.classes[index] });
  }
  if (clusterOf.some((index) => index !== NONE)) {
    groupings.push({ name: "nearest cluster", of: clusterOf, label: (index) => `cluster ${index}` });
  }
  for (const grouping of groupings) {
    grouping.counts = new Map();
    for (const index of grouping.of) grouping.counts.set(index, (grouping.counts.get(index) ?? 0) + 1);
    grouping.indices = [...grouping.counts.keys()].sort((a, b) => a - b);
    grouping.off = new Set();
  }

  let projection = projections[0];
  let grouping = groupings[0];
  let view = { zoom: 1, x: 0, y: 0 };
  let pictures = false;
  let pin = -1;
  let under = -1;
  let matches = null;
  let size = { width: 0, height: 0, dpr: 1 };
  let tiles = [];
  let withKeys = false;

  const MAX_ZOOM = 400;
  const isPlaced = (at) => projection.places[2 * at] !== NONE;
  // Both axes span one unit at most; the shorter one less.
  for (const each of projections) {
    each.extent = [0, 1].map((axis) => {
      let [low, high] = [65534, 0];
      for (let at = axis; at < each.places.length; at += 2) {
        if (each.places[at] === NONE) continue;
        low = Math.min(low, each.places[at]);
        high = Math.max(high, each.places[at]);
      }
      return Math.max(0.05, (high - low) / 65534);
    });
  }
  const scale = () =>
    Math.max(1, Math.min((size.width - 36) / projection.extent[0], (size.height - 36) / projection.extent[1])) * view.zoom;
  const onScreenX = (at) => size.width / 2 + view.x + (projection.places[2 * at] / 65534 - 0.5) * scale();
  const onScreenY = (at) => size.height / 2 + view.y - (projection.places[2 * at + 1] / 65534 - 0.5) * scale();
  const isShown = (at) => isPlaced(at) && !(grouping && grouping.off.has(grouping.of[at]));

  /* Colours and shapes: ten by four, so that no group is told by colour alone. */
  let colors = [];
  let noColor = "";
  let ink = "";
  let ground = "";
  const readColors = () => {
    const style = getComputedStyle(document.documentElement);
    colors = Array.from({ length: 10 }, (_, at) => style.getPropertyValue(`--group-${at}`).trim());
    noColor = style.getPropertyValue("--group-none").trim();
    ink = style.getPropertyValue("--ink").trim();
    ground = style.getPropertyValue("--ground").trim();
    markers.clear();
  };
  const colorOf = (index) => (index === NONE || index < 0 ? noColor : colors[index % 10]);
  const trace = (pen, index, x, y, r) => {
    const kind = index === NONE || index < 0 ? 0 : (index + Math.floor(index / 10)) % 4;
    pen.beginPath();
    if (kind === 0) pen.arc(x, y, r, 0, 7);
    else if (kind === 1) pen.rect(x - r * 0.88, y - r * 0.88, r * 1.76, r * 1.76);
    else if (kind === 2) { pen.moveTo(x, y - r * 1.25); pen.lineTo(x + r * 1.15, y + r * 0.85); pen.lineTo(x - r * 1.15, y + r * 0.85); pen.closePath(); }
    else { pen.moveTo(x, y - r * 1.3); pen.lineTo(x + r * 1.3, y); pen.lineTo(x, y + r * 1.3); pen.lineTo(x - r * 1.3, y); pen.closePath(); }
  };
  const markers = new Map();
  const marker = (index, r) => {
    const key = `${index}/${r}`;
    let image = markers.get(key);
    if (!image) {
      const side = Math.ceil((2 * r * 1.3 + 2) * size.dpr);
      image = make("canvas", { width: side, height: side });
      const pen = image.getContext("2d");
      pen.scale(size.dpr, size.dpr);
      trace(pen, index, side / size.dpr / 2, side / size.dpr / 2, r);
      pen.fillStyle = colorOf(index);
      pen.fill();
      markers.set(key, image);
    }
    return image;
  };

  /* Thumbnails: decoded when first needed. */
  const sheets = map.atlas.sheets.map(() => null);
  const sheet = (at) => {
    if (!sheets[at]) {
      const image = make("img", { src: map.atlas.sheets[at] });
      sheets[at] = { image, ready: false };
      image.decode().then(() => { sheets[at].ready = true; later(); refreshThumbnails(); }, () => {});
    }
    return sheets[at];
  };
  const drawThumbnail = (pen, at, x, y, side) => {
    const { side: from, columns, perSheet } = map.atlas;
    const source = sheet(Math.floor(at / perSheet));
    if (!source.ready) return false;
    const place = at % perSheet;
    pen.imageSmoothingEnabled = true;
    pen.imageSmoothingQuality = "high";
    // The outermost pixels are left out: decoding blends them with the next thumbnail.
    const [left, top, inner] = [(place % columns) * from + 1, Math.floor(place / columns) * from + 1, from - 2];
    pen.drawImage(source.image, left, top, inner, inner, x, y, side, side);
    return true;
  };
  let waiting = [];
  const refreshThumbnails = () => {
    const still = waiting.filter(({ element }) => element.isConnected);
    waiting = [];
    for (const { element, at } of still) paintThumbnail(element, at);
  };
  const paintThumbnail = (element, at) => {
    if (!drawThumbnail(element.getContext("2d"), at, 0, 0, element.width)) waiting.push({ element, at });
  };
  const thumbnail = (at, side) => {
    const element = make("canvas", { width: side * 2, height: side * 2 });
    element.style.width = element.style.height = `${side}px`;
    paintThumbnail(element, at);
    return element;
  };

  /* Drawing, at most once a frame. */
  let asked = false;
  const later = () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => { asked = false; draw(); });
  };
  const radius = () => {
    const base = Math.max(1.7, Math.min(5, 60 / Math.sqrt(count)));
    return Math.round(Math.min(8, base * (1 + 0.3 * Math.log2(view.zoom))) * 4) / 4;
  };
  const draw = () => {
    pen.setTransform(size.dpr, 0, 0, size.dpr, 0, 0);
    pen.clearRect(0, 0, size.width, size.height);
    tiles = [];
    if (pictures) drawPictures(); else drawDots();
    drawPin();
    if (withKeys) {
      pen.strokeStyle = ink;
      pen.lineWidth = 1;
      pen.beginPath();
      pen.moveTo(size.width / 2 - 9, size.height / 2); pen.lineTo(size.width / 2 + 9, size.height / 2);
      pen.moveTo(size.width / 2, size.height / 2 - 9); pen.lineTo(size.width / 2, size.height / 2 + 9);
      pen.stroke();
    }
  };
  const groupOf = (at) => (grouping ? grouping.of[at] : -1);
  const drawDots = () => {
    const r = radius();
    const put = (at) => {
      const [x, y] = [onScreenX(at), onScreenY(at)];
      if (x < -9 || y < -9 || x > size.width + 9 || y > size.height + 9) return;
      const image = marker(groupOf(at), r);
      const side = image.width / size.dpr;
      pen.drawImage(image, x - side / 2, y - side / 2, side, side);
    };
    pen.globalAlpha = matches ? 0.13 : count > 2000 ? 0.72 : 0.85;
    for (let at = 0; at < count; at++) if (isShown(at) && !(matches && matches.has(at))) put(at);
    pen.globalAlpha = 1;
    if (matches) for (const at of matches) if (isShown(at)) put(at);
  };
  // One picture for each square of a grid that moves with the map: the one nearest to its middle.
  const drawPictures = () => {
    const side = 40;
    const best = new Map();
    const [originX, originY] = [size.width / 2 + view.x, size.height / 2 + view.y];
    for (let at = 0; at < count; at++) {
      if (!isShown(at) || (matches && !matches.has(at))) continue;
      const [x, y] = [onScreenX(at), onScreenY(at)];
      if (x < -side || y < -side || x > size.width + side || y > size.height + side) continue;
      const [column, row] = [Math.floor((x - originX) / side), Math.floor((y - originY) / side)];
      const off = Math.hypot(x - originX - (column + 0.5) * side, y - originY - (row + 0.5) * side);
      const key = `${column}/${row}`;
      if (!(best.get(key)?.off <= off)) best.set(key, { at, off, x: originX + column * side, y: originY + row * side });
    }
    for (const tile of best.values()) {
      pen.fillStyle = colorOf(groupOf(tile.at));
      pen.fillRect(tile.x + 1, tile.y + 1, side - 2, side - 2);
      drawThumbnail(pen, tile.at, tile.x + 3, tile.y + 3, side - 6);
      tiles.push({ ...tile, side });
    }
  };
  const neighboursOf = (at) => {
    const out = [];
    for (let k = 0; k < map.perPicture; k++) {
      const to = neighbours[at * map.perPicture + k];
      if (to < count) out.push({ at: to, cosine: cosines[at * map.perPicture + k] / 10000 });
    }
    return out;
  };
  const ring = (at, r, width) => {
    pen.beginPath();
    pen.arc(onScreenX(at), onScreenY(at), r, 0, 7);
    pen.lineWidth = width + 2;
    pen.strokeStyle = ground;
    pen.stroke();
    pen.lineWidth = width;
    pen.strokeStyle = ink;
    pen.stroke();
  };
  const drawPin = () => {
    if (under >= 0 && under !== pin && isShown(under) && !pictures) ring(under, radius() + 3, 1.5);
    if (pin < 0 || !isPlaced(pin)) return;
    pen.strokeStyle = ink;
    pen.lineWidth = 1;
    for (const { at } of neighboursOf(pin)) {
      if (!isPlaced(at)) continue;
      pen.globalAlpha = 0.6;
      pen.beginPath();
      pen.moveTo(onScreenX(pin), onScreenY(pin));
      pen.lineTo(onScreenX(at), onScreenY(at));
      pen.stroke();
      pen.globalAlpha = 1;
      ring(at, radius() + 2, 1);
    }
    ring(pin, radius() + 5, 2);
  };

  const resize = () => {
    const box = stage.getBoundingClientRect();
    const dpr = Math.min(3, devicePixelRatio || 1);
    if (!box.width || !box.height) return;
    const grown = size.width ? Math.min(box.width, box.height) / Math.min(size.width, size.height) : 1;
    view.x *= grown;
    view.y *= grown;
    if (dpr !== size.dpr) markers.clear();
    size = { width: box.width, height: box.height, dpr };
    canvas.width = Math.round(box.width * dpr);
    canvas.height = Math.round(box.height * dpr);
    draw();
  };

  /* What a picture is, in words. */
  const about = (at) => {
    const lines = [];
    if (classOf[at] !== NONE) lines.push(map.classes[classOf[at]]);
    if (clusterOf[at] !== NONE) lines.push(`cluster ${clusterOf[at]}`);
    return lines.join(" · ");
  };
  const showPinned = () => {
    if (pin < 0) {
      pinned.replaceChildren(make("p", { className: "muted", textContent: "Point at a picture to see it; click it to keep it here with its nearest neighbours." }));
      return;
    }
    const found = neighboursOf(pin);
    const parts = [
      make("div", { className: "head" }, [make("strong", { textContent: "Pinned" }),
        make("button", { type: "button", textContent: "Clear", onclick: () => setPin(-1) })]),
      thumbnail(pin, 96),
      make("div", { className: "name", textContent: map.names[pin] }),
      make("div", { className: "muted", textContent: about(pin) }),
    ];
    if (found.length) {
      const items = found.map(({ at, cosine }) => {
        const same = classOf[at] !== NONE && classOf[pin] !== NONE ? (classOf[at] === classOf[pin] ? "✓ " : "✗ ") : "";
        const label = same + (classOf[at] === NONE ? map.names[at] : map.classes[classOf[at]]);
        const button = make("button", { type: "button", title: `${map.names[at]}\n${about(at)}\ncosine ${cosine.toFixed(3)}`, onclick: () => setPin(at) },
          [thumbnail(at, 52), make("span", { textContent: label }), make("span", { className: "muted", textContent: cosine.toFixed(3) })]);
        return make("li", {}, [button]);
      });
      parts.push(make("div", { className: "near" }, [make("div", { className: "muted", textContent: "Nearest, with cosine" }), make("ol", {}, items)]));
    }
    pinned.replaceChildren(...parts);
  };
  const setPin = (at) => {
    pin = at;
    showPinned();
    later();
    if (at >= 0) say(`Pinned ${map.names[at]}, ${about(at)}`);
  };

  /* Legend: switches groups on and off. */
  const showLegend = () => {
    legend.replaceChildren();
    if (!grouping) return;
    const all = (on) => { grouping.off = on ? new Set() : new Set(grouping.indices); showLegend(); later(); };
    const items = grouping.indices.map((index) => {
      const swatch = make("canvas", { width: 32, height: 32 });
      swatch.style.width = swatch.style.height = "16px";
      const pen = swatch.getContext("2d");
      trace(pen, index, 16, 16, 10);
      pen.fillStyle = colorOf(index);
      pen.fill();
      const name = index === NONE ? "none" : grouping.label(index);
      const button = make("button", { type: "button", title: name, "aria-pressed": String(!grouping.off.has(index)) },
        [swatch, make("span", { textContent: name }), make("small", { textContent: whole(grouping.counts.get(index)) })]);
      button.onclick = () => {
        const off = !grouping.off.delete(index);
        if (off) grouping.off.add(index);
        button.setAttribute("aria-pressed", String(!off));
        later();
      };
      return make("li", {}, [button]);
    });
    legend.append(
      make("div", { className: "head" }, [make("strong", { textContent: grouping.name[0].toUpperCase() + grouping.name.slice(1) }),
        make("span", { className: "save" }, [
          make("button", { type: "button", textContent: "All", onclick: () => all(true) }),
          make("button", { type: "button", textContent: "None", onclick: () => all(false) })])]),
      make("ul", {}, items));
  };

  /* Moving about. */
  const clampView = () => {
    view.zoom = Math.max(0.5, Math.min(MAX_ZOOM, view.zoom));
    const reach = scale() / 2 + Math.min(size.width, size.height) / 3;
    view.x = Math.max(-reach, Math.min(reach, view.x));
    view.y = Math.max(-reach, Math.min(reach, view.y));
    // A finger scrolls the page until the map is enlarged; then it moves the map.
    canvas.style.touchAction = view.zoom > 1.01 ? "none" : "pan-y";
  };
  const zoomAt = (factor, x, y) => {
    const before = view.zoom;
    const [dx, dy] = [x - size.width / 2 - view.x, y - size.height / 2 - view.y];
    view.zoom = Math.max(0.5, Math.min(MAX_ZOOM, view.zoom * factor));
    view.x -= dx * (view.zoom / before - 1);
    view.y -= dy * (view.zoom / before - 1);
    clampView();
    later();
  };
  const zoomMiddle = (factor) => zoomAt(factor, size.width / 2, size.height / 2);
  const reset = () => { view = { zoom: 1, x: 0, y: 0 }; clampView(); later(); };
  const pick = (x, y, reach = 14) => {
    if (pictures) {
      const tile = tiles.find((tile) => x >= tile.x && x < tile.x + tile.side && y >= tile.y && y < tile.y + tile.side);
      return tile ? tile.at : -1;
    }
    let [best, bestOff] = [-1, reach * reach];
    for (let at = 0; at < count; at++) {
      if (!isShown(at)) continue;
      const off = (onScreenX(at) - x) ** 2 + (onScreenY(at) - y) ** 2;
      if (off < bestOff) [best, bestOff] = [at, off];
    }
    return best;
  };
  const local = (event) => {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  const hover = (event) => {
    const at = pick(...local(event));
    if (at !== under) { under = at; later(); }
    if (at < 0) { hideTip(); return; }
    const lines = [make("div", { className: "name", textContent: map.names[at] }), make("small", { textContent: about(at) })];
    showTip([make("div", { className: "with" }, [thumbnail(at, 64), make("div", {}, lines)])], event.clientX, event.clientY);
  };
  const fingers = new Map();
  let moved = 0;
  canvas.addEventListener("pointerdown", (event) => {
    fingers.set(event.pointerId, local(event));
    if (fingers.size === 1) moved = 0;
    withKeys = false;
    if (event.pointerType === "mouse") canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    const before = fingers.get(event.pointerId);
    const here = local(event);
    if (!before) { hover(event); return; }
    const others = [...fingers.entries()].filter(([id]) => id !== event.pointerId);
    if (others.length) {
      const other = others[0][1];
      const spread = (point) => Math.hypot(point[0] - other[0], point[1] - other[1]);
      zoomAt(spread(here) / Math.max(1, spread(before)), (here[0] + other[0]) / 2, (here[1] + other[1]) / 2);
      moved += 10;
    } else {
      view.x += here[0] - before[0];
      view.y += here[1] - before[1];
      moved += Math.hypot(here[0] - before[0], here[1] - before[1]);
      if (moved > 4) { canvas.style.cursor = "grabbing"; hideTip(); }
      clampView();
      later();
    }
    fingers.set(event.pointerId, here);
  });
  const lift = (event) => {
    const was = fingers.delete(event.pointerId);
    canvas.style.cursor = "";
    if (!was || event.type !== "pointerup" || moved > 4 || fingers.size) return;
    const at = pick(...local(event));
    if (at >= 0) setPin(at === pin ? -1 : at);
  };
  canvas.addEventListener("pointerup", lift);
  canvas.addEventListener("pointercancel", lift);
  canvas.addEventListener("pointerleave", () => { under = -1; hideTip(); later(); });
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    const lines = event.deltaMode === 1 ? 16 : 1;
    zoomAt(Math.exp(-Math.max(-200, Math.min(200, event.deltaY * lines)) * 0.0022), ...local(event));
    hideTip();
  }, { passive: false });
  canvas.addEventListener("dblclick", (event) => zoomAt(event.shiftKey ? 0.5 : 2, ...local(event)));
  canvas.addEventListener("keydown", (event) => {
    const step = event.shiftKey ? 160 : 40;
    const moves = { ArrowLeft: [step, 0], ArrowRight: [-step, 0], ArrowUp: [0, step], ArrowDown: [0, -step] };
    if (moves[event.key]) {
      view.x += moves[event.key][0];
      view.y += moves[event.key][1];
      clampView();
    } else if (event.key === "+" || event.key === "=") zoomMiddle(1.4);
    else if (event.key === "-") zoomMiddle(1 / 1.4);
    else if (event.key === "0") reset();
    else if (event.key === "Escape") setPin(-1);
    else if (event.key === "Enter" || event.key === " ") setPin(pick(size.width / 2, size.height / 2, 200));
    else return;
    withKeys = true;
    event.preventDefault();
    later();
  });
  canvas.addEventListener("blur", () => { withKeys = false; later(); });

  /* Controls above the map. */
  const on = (id, event, handler) => document.getElementById(id)?.addEventListener(event, handler);
  const showNote = () => { note.textContent = projection.note; };
  const projectionPicker = document.getElementById("map-projection");
  projections.forEach((each, at) => projectionPicker.append(make("option", { value: at, textContent: each.name })));
  projectionPicker.parentElement.hidden = projections.length < 2;
  const groupPicker = document.getElementById("map-color");
  groupings.forEach((each, at) => groupPicker.append(make("option", { value: at, textContent: each.name })));
  groupPicker.parentElement.hidden = groupings.length < 2;
  on("map-projection", "change", (event) => { projection = projections[event.target.value]; showNote(); reset(); });
  on("map-color", "change", (event) => { grouping = groupings[event.target.value]; showLegend(); later(); });
  on("map-pictures", "change", (event) => { pictures = event.target.checked; later(); });
  on("map-in", "click", () => zoomMiddle(1.5));
  on("map-out", "click", () => zoomMiddle(1 / 1.5));
  on("map-reset", "click", reset);

  /* Search by name. */
  const search = document.getElementById("map-search");
  const found = document.getElementById("map-found");
  const show = (at) => {
    if (isPlaced(at)) {
      view.zoom = Math.max(view.zoom, 3);
      view.x = -(projection.places[2 * at] / 65534 - 0.5) * scale();
      view.y = (projection.places[2 * at + 1] / 65534 - 0.5) * scale();
      clampView();
    }
    found.hidden = true;
    setPin(at);
  };
  const look = () => {
    const text = search.value.trim().toLowerCase();
    matches = text ? new Set() : null;
    const first = [];
    for (let at = 0; text && at < count; at++) {
      if (!lower[at].includes(text)) continue;
      matches.add(at);
      if (first.length < 8) first.push(at);
    }
    if (text) say(`${whole(matches.size)} found`);
    found.hidden = !text;
    found.replaceChildren(
      make("li", { className: "muted", textContent: matches ? `${whole(matches.size)} found` : "" }),
      ...first.map((at) => make("li", {}, [make("button", { type: "button", textContent: map.names[at], onclick: () => show(at) })])));
    found.firstChild.style.padding = "4px 10px";
    later();
  };
  search.addEventListener("input", look);
  search.addEventListener("focus", () => { found.hidden = !search.value.trim(); });
  search.addEventListener("keydown", (event) => {
    if (event.key === "Escape") { search.value = ""; look(); }
    if (event.key === "Enter" && matches?.size) show([...matches][0]);
  });
  document.addEventListener("pointerdown", (event) => { if (!event.target.closest(".search")) found.hidden = true; });

  const restyle = () => { readColors(); showLegend(); draw(); };
  for (const query of ["(prefers-color-scheme: dark)", "print"]) matchMedia(query).addEventListener("change", restyle);
  new ResizeObserver(resize).observe(stage);

  readColors();
  showNote();
  showLegend();
  showPinned();
  clampView();
  resize();
  drawn();
  // The thumbnails are decoded while nobody waits for them.
  (window.requestIdleCallback ?? setTimeout)(() => sheets.forEach((_, at) => sheet(at)));
})();

"use strict";

const page = JSON.parse(document.getElementById("data").textContent);
const { report, picture } = page;
const $ = (id) => document.getElementById(id);
const count = (n) => n.toLocaleString("en-GB");
// JSON has null for what is no number, and for what is not known.
const known = (x) => x !== null && x !== undefined;
const fixed = (x, digits) => (known(x) ? x.toFixed(digits) : "\u2013");
const percent = (x, digits = 2) => `${fixed(x, digits)} %`;
const signed = (x, digits = 2) => (known(x) ? (x < 0 ? "\u2212" : "+") + Math.abs(x).toFixed(digits) : "\u2013");
const bytes = (n) => (!known(n) ? "" : n < 10_000 ? `${count(n)} B` : n < 1_000_000 ? `${(n / 1000).toFixed(1)} kB` : `${(n / 1e6).toFixed(1)} MB`);
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const series = (i) => `var(--s${i % 6})`;

/// An element with text or children; names from files are only ever text.
function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

function drawing(tag, attributes = {}, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

/// A table; columns whose heading begins with "<" hold words.
function table(headings, rows, chosen = () => false) {
  // A column that says nothing is left out, such as the bytes of layers in a packed file, which codes them together.
  const says = headings.map((_, i) => rows.some((row) => row[i] !== ""));
  const kept = (row) => row.filter((_, i) => says[i]);
  const word = kept(headings).map((h) => h.startsWith("<"));
  const cell = (tag) => (text, i) => element(tag, word[i] ? { class: "word" } : {}, text);
  const head = element("tr", {}, ...kept(headings).map((h) => h.replace(/^</, "")).map(cell("th")));
  const body = rows.map((row, i) => element("tr", chosen(i) ? { class: "chosen" } : {}, ...kept(row).map(cell("td"))));
  return element("div", { class: "scroll" }, element("table", {}, element("thead", {}, head), element("tbody", {}, ...body)));
}

// What came of it.

const isFit = (score) => "dense_r2" in score;
const before = (score) => (isFit(score) ? `R2 ${fixed(score.dense_r2, 4)}` : percent(score.dense_percent));
const after = (score) => (isFit(score) ? `R2 ${fixed(score.sparse_r2, 4)}` : percent(score.sparse_percent));
const isRegression = report.history.some((e) => known(e.validation_r2)) || (report.accuracy !== null && isFit(report.accuracy.validation));
// Of inputs without labels, an error is an answer that is not the dense network's.
const isAgreement = (scores) => scores.against === "dense-network" && !isFit(scores.validation);
const agreement = (score) => percent(100 - score.sparse_percent);
const lost = (score) => signed(score.drop, isFit(score) ? 4 : 2);

function facts() {
  const fact = (value, what, kind = "") => element("div", { class: "fact" }, element("b", { class: kind }, value), element("span", {}, what));
  const all = [];
  if (report.ratio) all.push(fact(`${report.ratio.toFixed(1)}x`, "fewer weights"));
  all.push(fact(`${count(report.nonzeros)}`, `of ${count(report.weights)} weights left`));
  const scores = report.accuracy;
  if (scores) {
    const [score, name] = scores.test ? [scores.test, "test"] : [scores.validation, "validation"];
    if (isAgreement(scores)) all.push(fact(agreement(score), `answered as by the dense network, ${name} samples`));
    else all.push(fact(`${before(score)} \u2192 ${after(score)}`, `${isFit(score) ? "fit" : "error"}, ${name} samples`));
    if (scores.promise.verdict) {
      const { max_accuracy_drop: points, max_r2_drop: r2, verdict } = scores.promise;
      const promised = known(r2) ? `lose at most ${r2} of R2` : `lose at most ${points} points`;
      const kept = isAgreement(scores) ? `agree on at least ${percent(100 - points)}` : promised;
      all.push(fact(verdict, `the promise to ${kept}`, verdict));
    }
  }
  if (report.packed) all.push(fact(bytes(report.packed.bytes), "packed file"));
  const time = (plan) => (report.timings ?? []).find((t) => t.plan === plan && t.batch === 1);
  if (time("sparse") && time("dense")) {
    all.push(fact(`${(time("dense").p50_us / time("sparse").p50_us).toFixed(1)}x`, "faster than dense, one sample"));
  }
  $("facts").append(...all);
}

function results() {
  const place = $("results");
  const scores = report.accuracy;
  if (scores && isAgreement(scores)) {
    const rows = ["validation", "test"].filter((name) => scores[name]);
    place.append(
      table(
        ["<samples", "", "answered as by the dense network", "95 % bound"],
        rows.map((name) => {
          const s = scores[name];
          return [name, count(s.images), agreement(s), percent(100 - s.dense_percent - s.drop_upper_95)];
        }),
      ),
      element("p", { class: "lead" }, "The inputs have no labels. The bound is one-sided."),
    );
  } else if (scores) {
    const rows = ["validation", "test"].filter((name) => scores[name]);
    place.append(
      table(
        ["<samples", "", "before", "after", "lost", "95 % bound", "p"],
        rows.map((name) => {
          const s = scores[name];
          const bound = signed(s.drop_upper_95, isFit(s) ? 4 : 2);
          return [name, count(s.images ?? s.samples), before(s), after(s), lost(s), bound, known(s.mcnemar_p) ? s.mcnemar_p.toPrecision(2) : ""];
        }),
      ),
      element("p", { class: "lead" }, "Both networks on the same samples. The bound is one-sided; p is McNemar\u2019s, exact and two-sided."),
    );
  }
  const kernel = (layer, batch) => report.kernels.find((k) => k.layer === layer && k.batch === batch)?.kernel ?? "";
  place.append(
    table(
      ["<layer", "<", "<shape", "weights", "left", "density", "bytes", "<kernel, one sample"],
      report.layers.map((l) => [
        l.name, l.op, `${l.original_shape.join("\u00d7")} \u2192 ${l.shape.join("\u00d7")}`, count(l.weights), count(l.nonzeros),
        percent((100 * l.nonzeros) / l.weights), bytes(l.bytes), kernel(l.name, 1),
      ]),
    ),
    element("h2", {}, "Bytes"),
    table(["<encoding", "bytes", "smaller"], report.encodings.map((e) => [e.encoding, count(e.bytes), `${(report.encodings[0].bytes / e.bytes).toFixed(1)}x`])),
  );
  place.append(element("h2", {}, "Speed and memory"));
  if (!report.timings?.length) {
    place.append(element("p", { class: "lead" }, "Not timed."));
  } else {
    const dense = (t) => report.timings.find((other) => other.plan === "dense" && other.batch === t.batch);
    place.append(
      table(
        ["<plan", "batch", "threads", "runs", "median", "99 %", "samples/s", "weights", "activations", "faster"],
        report.timings.map((t) => [
          t.plan, count(t.batch), count(t.threads), known(t.runs) ? count(t.runs) : "", `${t.p50_us.toFixed(2)} \u00b5s`, `${t.p99_us.toFixed(2)} \u00b5s`, count(Math.round(t.items_per_s)),
          bytes(t.weight_bytes), bytes(t.arena_bytes), dense(t) ? `${(dense(t).p50_us / t.p50_us).toFixed(1)}x` : "",
        ]),
      ),
    );
  }
}

// Curves.

const WIDTH = 320;
const HEIGHT = 190;
const EDGE = { left: 46, right: 8, top: 12, bottom: 26 };

/// The least and the largest; Math.min takes a limited number of arguments.
const extent = (values) => values.reduce(([low, high], x) => [Math.min(low, x), Math.max(high, x)], [Infinity, -Infinity]);

/// Positions on an axis from `from` to `to` pixels, linear or logarithmic, with ticks.
function axis(values, log, from, to) {
  let [low, high] = extent(values);
  if (low === high) [low, high] = log ? [low / 2, high * 2] : [low - 0.5, high + 0.5];
  const f = log ? Math.log10 : (x) => x;
  const at = (x) => from + ((f(x) - f(low)) / (f(high) - f(low))) * (to - from);
  const inside = (ticks) => ticks.filter((t) => t >= low - 1e-9 * Math.abs(low) && t <= high + 1e-9 * Math.abs(high));
  if (log) {
    const steps = high / low > 30 ? [1] : [1, 2, 5];
    const [first, last] = [Math.floor(Math.log10(low)), Math.ceil(Math.log10(high))];
    const powers = Array.from({ length: last - first + 1 }, (_, i) => 10 ** (first + i));
    const ticks = inside(powers.flatMap((power) => steps.map((step) => step * power)));
    if (ticks.length > 1) return { at, ticks };
  }
  const rough = (high - low) / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((s) => s * power).find((s) => s >= rough * (1 - 1e-9)) ?? rough;
  return { at, ticks: inside(Array.from({ length: 7 }, (_, i) => (Math.ceil(low / step) + i) * step)) };
}

const short = (x) => {
  const size = Math.abs(x);
  if (size >= 1e6) return `${+(x / 1e6).toPrecision(3)}M`;
  if (size >= 1e4) return `${+(x / 1e3).toPrecision(3)}k`;
  return `${+x.toPrecision(3)}`;
};

const markers = [];

/// A chart of lines, or of points, with the boundaries of phases where x is an epoch.
function chart(title, lines, { log = false, logX = false, phases = [], dots = false, unit = "", xUnit = "epoch" } = {}) {
  const shown = lines.map((l) => ({ ...l, points: l.points.filter(([x, y]) => Number.isFinite(x) && Number.isFinite(y) && (!log || y > 0)) }));
  const all = shown.flatMap((l) => l.points);
  if (all.length === 0) return null;
  const x = axis(all.map((p) => p[0]), logX, EDGE.left, WIDTH - EDGE.right);
  const y = axis(all.map((p) => p[1]), log, HEIGHT - EDGE.bottom, EDGE.top);
  const svg = drawing("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": title });
  for (const tick of y.ticks) {
    svg.append(
      drawing("line", { x1: EDGE.left, x2: WIDTH - EDGE.right, y1: y.at(tick), y2: y.at(tick), stroke: "var(--line)" }),
      drawing("text", { x: EDGE.left - 6, y: y.at(tick) + 4, "text-anchor": "end" }, short(tick)),
    );
  }
  for (const tick of x.ticks) {
    svg.append(drawing("text", { x: x.at(tick), y: HEIGHT - 8, "text-anchor": "middle" }, short(tick) + (logX ? "x" : "")));
  }
  for (const { end } of phases.slice(0, -1)) {
    svg.append(drawing("line", { x1: x.at(end), x2: x.at(end), y1: EDGE.top, y2: HEIGHT - EDGE.bottom, stroke: "var(--soft)", "stroke-dasharray": "2 3" }));
  }
  shown.forEach((line, i) => {
    const colour = line.colour ?? series(i);
    const points = line.points.map(([px, py]) => `${x.at(px).toFixed(1)},${y.at(py).toFixed(1)}`);
    if (!dots || line.dashed) {
      const dashes = line.dashed ? "4 3" : "none";
      svg.append(drawing("polyline", { points: points.join(" "), fill: "none", stroke: colour, "stroke-width": 1.6, "stroke-dasharray": dashes }));
      return;
    }
    line.points.forEach(([px, py, says, filled]) => {
      const dot = { cx: x.at(px), cy: y.at(py), r: 4.5, fill: filled ? colour : "none", stroke: colour, "stroke-width": 1.6 };
      svg.append(drawing("circle", dot, drawing("title", {}, says)));
    });
  });
  if (!dots) {
    const marker = drawing("line", { x1: 0, x2: 0, y1: EDGE.top, y2: HEIGHT - EDGE.bottom, stroke: "var(--accent)" });
    svg.append(marker);
    const [first, last] = extent(all.map((p) => p[0]));
    markers.push((epochs) => {
      const place = x.at(Math.min(Math.max(epochs, first), last));
      marker.setAttribute("x1", place);
      marker.setAttribute("x2", place);
    });
  }
  const caption = element("figcaption", {}, element("b", {}, title), unit ? `, ${unit}` : "", ` over ${xUnit}`);
  if (lines.length > 1 && lines[0].name) {
    lines.forEach((line, i) => caption.append(" ", element("span", { style: `color: ${line.colour ?? series(i)}` }, `\u25a0\u00a0${line.name}`)));
  }
  return element("figure", {}, svg, caption);
}

/// The ends of the phases, in epochs of the run.
function phases() {
  const ends = [];
  report.history.forEach((e, i) => {
    if (ends.length > 0 && ends.at(-1).phase === e.phase) ends.at(-1).end = i + 1;
    else ends.push({ phase: e.phase, method: e.method, end: i + 1 });
  });
  return ends;
}

/// How many weights have which log alpha, epoch by epoch; bins of half a nat from -8.
function rates(epochs) {
  const noisy = epochs.filter(([, e]) => e.layers.some((l) => l.log_alpha_histogram.length > 0));
  if (noisy.length === 0) return null;
  const bins = noisy.map(([, e]) => e.layers.reduce((sum, l) => sum.map((n, i) => n + (l.log_alpha_histogram[i] ?? 0)), Array(32).fill(0)));
  const [width, height] = [WIDTH - EDGE.left - EDGE.right, HEIGHT - EDGE.top - EDGE.bottom];
  const svg = drawing("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": "log alpha over time" });
  const [wide, high] = [width / bins.length, height / 32];
  const [, most] = extent(bins.flat());
  bins.forEach((column, i) => {
    column.forEach((n, bin) => {
      if (n === 0) return;
      const opacity = (0.08 + 0.92 * (Math.log1p(n) / Math.log1p(most))).toFixed(2);
      svg.append(drawing("rect", { x: (EDGE.left + i * wide).toFixed(2), y: (EDGE.top + (31 - bin) * high).toFixed(2), width: (wide + 0.2).toFixed(2), height: (high + 0.2).toFixed(2), fill: "var(--s0)", opacity }));
    });
  });
  const at = (alpha) => EDGE.top + ((8 - alpha) / 16) * height;
  for (const tick of [-8, -4, 0, 4, 8]) svg.append(drawing("text", { x: EDGE.left - 6, y: at(tick) + 4, "text-anchor": "end" }, `${tick}`));
  const threshold = report.recipe.threshold;
  svg.append(drawing("line", { x1: EDGE.left, x2: WIDTH - EDGE.right, y1: at(threshold), y2: at(threshold), stroke: "var(--s1)", "stroke-dasharray": "4 3" }));
  const label = (i, anchor) => drawing("text", { x: anchor === "start" ? EDGE.left : WIDTH - EDGE.right, y: HEIGHT - 8, "text-anchor": anchor }, `${noisy[i][0]}`);
  svg.append(label(0, "start"), label(noisy.length - 1, "end"));
  const caption = element("figcaption", {}, element("b", {}, "log \u03b1 of the weights left"), ` over epoch; dashed: the threshold ${threshold}, above which weights are removed`);
  return element("figure", {}, svg, caption);
}

function curves() {
  const history = report.history;
  if (history.length === 0) {
    $("training").remove();
    return;
  }
  const epochs = history.map((e, i) => [i + 1, e]);
  const ends = phases();
  const of = (value) => epochs.map(([x, e]) => [x, value(e)]);
  const fit = isRegression;
  const layers = history[0].layers.map((l) => l.node);
  const losses = history.map((e) => e.loss);
  const density = layers.map((name, i) => ({ name, points: of((e) => (100 * e.layers[i].left) / e.layers[i].weights) }));
  const charts = [
    chart(fit ? "R2 on validation" : "Validation error", [{ points: of((e) => (fit ? e.validation_r2 : e.validation_error)) }], { phases: ends, unit: fit ? "" : "%" }),
    chart("Weights left", density, { log: true, phases: ends, unit: "% of each layer" }),
    chart("Loss", [{ points: of((e) => e.loss) }], { log: history.every((e) => e.loss > 0) && extent(losses)[1] > 8 * extent(losses)[0], phases: ends, unit: "nats a sample" }),
    chart("KL divergence", [{ points: of((e) => (e.kl > 0 ? e.kl : NaN)) }], { log: true, unit: "nats" }),
    rates(epochs),
    chart("Time", [{ points: of((e) => e.seconds) }], { phases: ends, unit: "seconds an epoch" }),
  ];
  const tries = report.search?.tries ?? [];
  if (tries.length > 0) {
    const value = (t) => (isFit(t.validation) ? t.validation.sparse_r2 : t.validation.sparse_percent);
    const numbered = tries.map((t, i) => [t, i]).filter(([t]) => t.ratio);
    const points = numbered.map(([t, i]) => {
      const says = `try ${i + 1}: ${count(t.left)} weights, lost ${lost(t.validation)}: ${t.chosen ? "the result" : t.fits ? "fits" : t.undecided ? "undecided" : "does not fit"}`;
      return [t.ratio, value(t), says, t.chosen];
    });
    const dense = isFit(tries[0].validation) ? tries[0].validation.dense_r2 : tries[0].validation.dense_percent;
    const caption = isFit(tries[0].validation) ? "R2 of the tries" : "Error of the tries, %";
    const spread = extent(points.map((p) => p[0]));
    const figure = chart(caption, [{ points }, { points: spread.map((r) => [r, dense]), colour: "var(--soft)", dashed: true }], { logX: true, dots: true, xUnit: "ratio; filled: the result; dashed: the dense network" });
    charts.push(figure);
  }
  $("charts").append(...charts.filter(Boolean));
  const words = ends.map((p) => `${p.phase} ${p.method} to epoch ${p.end}`);
  $("phases").textContent = `Phases, divided by dotted lines: ${words.join("; ")}.`;
}

// The picture.

const REMOVED = -128;

const parse = (colour) => [1, 3, 5].map((i) => parseInt(colour.slice(i, i + 2), 16));
const mix = (a, b, t) => a.map((x, i) => Math.round(x + (b[i] - x) * t));

/// The colour of each byte: blue for negative weights, red for positive ones, by the square root so that small ones are seen.
function palette() {
  const [zero, removed] = ["--zero", "--removed"].map((name) => parse(css(name)));
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const [negative, positive] = dark ? ["#4da3ff", "#ff6b57"].map(parse) : ["#1f5fae", "#b8202f"].map(parse);
  const colours = [];
  for (let v = -127; v <= 127; v++) colours[v + 128] = mix(zero, v < 0 ? negative : positive, Math.sqrt(Math.abs(v) / 127));
  colours[0] = removed;
  return colours;
}

async function inflate(text) {
  const packed = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Int8Array(await new Response(stream).arrayBuffer());
}

/// Where each weight of a frame is, in cells, and the size of the picture.
function layout(layer) {
  if (layer.rows) {
    const [rows, columns] = [layer.rows.length, layer.columns.length];
    return { width: columns, height: rows, place: (i) => [i % columns, Math.floor(i / columns)] };
  }
  const [kh, kw] = layer.shape.length === 4 ? layer.shape.slice(2) : [1, layer.shape[2]];
  const area = kh * kw;
  const across = Math.ceil(Math.sqrt((layer.kernels.length * kh) / kw));
  const down = Math.ceil(layer.kernels.length / across);
  const place = (i) => {
    const [kernel, at] = [Math.floor(i / area), i % area];
    return [(kernel % across) * (kw + 1) + (at % kw), Math.floor(kernel / across) * (kh + 1) + Math.floor(at / kw)];
  };
  return { width: across * (kw + 1) - 1, height: down * (kh + 1) - 1, place };
}

function describe(layer) {
  const whole = layer.shape.join("\u00d7");
  if (!layer.rows) {
    const all = layer.shape[0] * layer.shape[1];
    return layer.kernels.length === all ? `all ${all} kernels of ${whole}` : `${layer.kernels.length} of ${count(all)} kernels of ${whole}`;
  }
  const [rows, columns] = [layer.rows.length, layer.columns.length];
  return rows === layer.shape[0] && columns === layer.shape[1] ? `all of ${whole}` : `${rows} units and ${columns} inputs of ${whole}`;
}

async function pictures() {
  if (!picture) {
    $("picture").remove();
    return;
  }
  if (typeof DecompressionStream === "undefined") {
    $("frame").textContent = "This browser is too old to unpack the picture.";
    return;
  }
  const layers = await Promise.all(
    picture.layers.map(async (layer) => {
      const { width, height, place } = layout(layer);
      const scale = Math.max(1, Math.min(8, Math.floor(480 / width)));
      const canvas = element("canvas", { width, height, style: `width: ${width * scale}px; aspect-ratio: ${width} / ${height}` });
      const left = element("span");
      $("layers").append(element("figure", {}, canvas, element("figcaption", {}, element("b", {}, layer.node), ` ${describe(layer)}`, element("br"), left)));
      const values = await inflate(layer.data);
      const size = values.length / picture.times.length;
      const all = layer.shape.reduce((product, n) => product * n, 1);
      const cells = Array.from({ length: size }, (_, i) => place(i)).map(([x, y]) => 4 * (y * width + x));
      const context = canvas.getContext("2d");
      const image = context.createImageData(width, height);
      return (frame, colours) => {
        const start = frame * size;
        for (let i = 0; i < size; i++) {
          const [red, green, blue] = colours[values[start + i] + 128];
          image.data[cells[i]] = red;
          image.data[cells[i] + 1] = green;
          image.data[cells[i] + 2] = blue;
          image.data[cells[i] + 3] = 255;
        }
        context.putImageData(image, 0, 0);
        left.textContent = `${count(layer.left[frame])} of ${count(all)} weights, ${percent((100 * layer.left[frame]) / all)}`;
      };
    }),
  );
  const last = picture.times.length - 1;
  const slider = $("slider");
  slider.max = last;
  if (last === 0) {
    $("picture-title").textContent = "The weights";
    $("play").remove();
    slider.hidden = true;
  }
  let colours = palette();
  const show = () => {
    const frame = Number(slider.value);
    const time = picture.times[frame];
    layers.forEach((draw) => draw(frame, colours));
    markers.forEach((move) => move(time.epochs));
    const left = picture.layers.reduce((sum, layer) => sum + layer.left[frame], 0);
    const record = Number.isInteger(time.epochs) ? report.history[time.epochs - 1] : undefined;
    const score = !record ? "" : isRegression ? `, R2 ${fixed(record.validation_r2, 4)} on validation` : `, validation error ${percent(record.validation_error)}`;
    const when = last === 0 ? "" : time.step === 0 ? "before training: " : `epoch ${+time.epochs.toFixed(2)}, step ${count(time.step)}: `;
    $("frame").textContent = `${when}${count(left)} weights${score}`;
  };
  const legend = () => {
    const stops = [0, 32, 80, 128, 176, 224, 255].map((v) => `rgb(${colours[Math.max(v, 1)].join(" ")})`);
    $("scale").style.background = `linear-gradient(to right, ${stops.join(", ")})`;
  };
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    colours = palette();
    legend();
    show();
  });
  let timer = null;
  const stop = () => {
    clearInterval(timer);
    timer = null;
    $("play").textContent = "Play";
  };
  $("play")?.addEventListener("click", () => {
    if (timer !== null) return stop();
    if (Number(slider.value) === last) slider.value = 0;
    show();
    $("play").textContent = "Pause";
    timer = setInterval(() => {
      if (Number(slider.value) === last) return stop();
      slider.value = Number(slider.value) + 1;
      show();
    }, 150);
  });
  slider.addEventListener("input", () => {
    if (timer !== null) stop();
    show();
  });
  slider.value = last;
  legend();
  show();
}

$("title").textContent = report.network;
$("subtitle").textContent = `${report.model}${report.data ? `, on ${report.data}` : ""}`;
facts();
results();
curves();
if (page.recipe) $("recipe").textContent = page.recipe;
else $("recipe").parentElement.remove();
$("made").textContent = page.made;
pictures();

"use strict";
// The scenes: figures of tensors with their arithmetic, and what is special to a scene. Texts come from strangers: they
// are only ever put in place as text, never as HTML.
const scenes = (() => {
  const { row, sum, dot, length } = numbers, { Matrix, thumbnail, scaleOf, shorten } = drawing;
  const byId = (id) => document.getElementById(id);
  let page, state, change;  // what main.js gives: the data and tensors, where one is, how to go elsewhere

  function element(name, text = "", attributes = {}) {
    const made = document.createElement(name);
    if (text !== "") made.textContent = text;
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  }

  const written = (x, digits = 4) => {
    const size = Math.abs(x), exact = x === 0 ? "0" : size < 1e-3 || size >= 1e5 ? x.toExponential(digits - 1) : x.toPrecision(digits);
    return exact.replace(/-/g, "−");
  };
  const number = (x, digits) => element("data", written(x, digits), { value: String(x) });
  const percent = (share) => `${share > 0 && share < 1e-3 ? written(100 * share, 2) : (100 * share).toFixed(share < 0.1 ? 1 : 0)} %`;

  function table(head, rows, last) {
    const made = element("table"), line = (cells, tag) => {
      const tr = element("tr");
      tr.append(...cells.map((cell, i) => {
        const td = element(i === 0 || tag === "th" ? "th" : "td", "", i === 0 ? { scope: "row" } : tag === "th" ? { scope: "col" } : {});
        td.append(typeof cell === "number" ? number(cell) : cell ?? "");
        if (i === 0) td.dir = "auto";
        return td;
      }));
      return tr;
    };
    if (head) made.createTHead().append(line(head, "th"));
    made.createTBody().append(...rows.map((cells) => line(cells)));
    if (last) made.tBodies[0].append(Object.assign(line(last), { className: "sum" }));
    return made;
  }

  // ------------------------------------------------------------------------------------------- one number, opened
  const MOST_TERMS = 8;

  // A long table shows the rows with the largest last number, the chosen one among them, and what the others come to.
  function shortened(head, rows, last) {
    if (rows.length <= 2 * MOST_TERMS) return table(head, rows, last);
    const size = (cells) => cells[0].startsWith("→ ") ? Infinity : Math.abs(cells[cells.length - 1]);
    const order = [...rows].sort((a, b) => size(b) - size(a)), rest = order.slice(MOST_TERMS);
    const together = sum(rest.map((cells) => cells[cells.length - 1])), empty = Array(head.length - 2).fill(null);
    return table(head, [...order.slice(0, MOST_TERMS), [`the other ${rest.length} together`, ...empty, together]], last);
  }

  function arithmetic(found, { go } = {}) {
    const inside = [];
    if (found.math) inside.push(byId(`math-${found.math}`).content.cloneNode(true));
    if (found.note) inside.push(element("p", found.note));
    if (found.instead !== undefined) {
      const button = element("button", `show column ${found.instead}`, { type: "button" });
      button.addEventListener("click", () => go(found.instead));
      inside.push(button);
    }
    if (found.terms.length) {
      const rows = found.terms.map((term) => [term.label, term.a, term.b, term.product]);
      inside.push(shortened(["term", ...found.of, "product"], rows, ["sum", null, null, sum(found.terms.map((term) => term.product))]));
    }
    if (found.table) inside.push(shortened(found.table.head, found.table.rows, found.table.sum));
    if (found.steps.length) inside.push(table(null, found.steps));
    if (found.value !== undefined && found.kept !== undefined) {
      const off = Math.abs(found.value - found.kept), agrees = off <= found.bound, p = element("p", "", { class: "verdict" });
      p.append("computed here ", number(found.value, 6), ", in the model ", number(found.kept, 6),
        ...(found.exact ? [` (kept to ${written(found.exact, 1)})`] : []), ": ",
        element("b", agrees ? "they agree" : "they differ", { class: agrees ? "good" : "bad" }),
        `, ${written(off, 2)} apart; rounding on this page explains up to ${written(found.bound, 2)}`);
      inside.push(p);
    } else {
      const p = element("p", found.kept === undefined ? "computed here " : "in the model ");
      p.append(number(found.kept ?? found.value, 6));
      inside.push(p);
    }
    const box = element("div", "", { class: "scroll", tabindex: "0" });
    box.append(...inside);
    return box;
  }

  // ------------------------------------------------------------------------------------------ figures of tensors
  const tensorScale = (tensor) => tensor.scale ??= scaleOf(tensor.data);  // which takes a while
  // A head's largest share: in a long text all may be small.
  const largestOf = ({ data, columns: T }, head) => Math.max(...data.subarray(head * T * T, (head + 1) * T * T));
  const SHAPES = { probs: "(H, T, T)", expanded: "(T, F)", activated: "(T, F)" };
  const name = (pattern) => pattern.replace("{layer}", String(state.layer));
  const contextOf = (text) => ({ data: page.data, weights: page.weights, tensors: page.texts[text], text });

  function caption(figure, tensor, shape) {
    const letters = shape ?? SHAPES[tensor.split(".").pop()] ?? "(T, D)", ledger = page.data.ledger?.[tensor];
    const sizes = { T: page.texts.map((tensors) => tensors.get("embeddings.word").rows).join(" and "), ...page.data.model };
    const filled = letters.replace(/[A-Z]/g, (letter) => sizes[letter]);
    const text = figure.querySelector("figcaption"), made = page.data.madeBy[tensor];
    text.replaceChildren(element("code", tensor), ` ${letters} = ${filled}; minisbert/${made}; `,
      ledger ? `PyTorch differs by at most ${written(ledger[0], 2)}, bound ${written(ledger[1], 2)}`
        : "not compared with PyTorch: minisbert verify --against torch does it");
    const moved = movedBy(tensor);
    if (moved) text.append("; ", element("b", moved, { class: "bad" }));
  }

  function build(figure) {
    const canvas = element("canvas"), read = element("p", "", { class: "read", "aria-live": "off" }), cell = element("details", "", { class: "cell" });
    cell.append(element("summary"), element("div"));
    figure.append(element("figcaption"), canvas, read, cell);
    // of all figures that change, a screen reader reads the one that the keyboard is on
    canvas.addEventListener("focus", () => read.setAttribute("aria-live", "polite"));
    canvas.addEventListener("blur", () => read.setAttribute("aria-live", "off"));
    return { canvas, read, cell };
  }

  // One tensor of both texts, or of one: rows are tokens. Where there is a cell, its arithmetic is in the fold below.
  function tensorFigure(figure) {
    const { canvas, read, cell } = build(figure), pattern = figure.dataset.tensor, only = figure.dataset.text;
    const isWide = /expanded|activated/.test(pattern), isProbs = pattern.endsWith("probs");
    const isVector = pattern.startsWith("modules") || pattern === "sentence_embedding";
    const lengths = page.data.pieces.map((pieces) => isVector ? 1 : pieces.length);
    const shown = only === undefined ? [0, 1] : [Number(only)];
    const rows = shown.flatMap((text) => isVector ? ["AB"[text]] : page.data.pieces[text]);
    const place = (r) => shown.length === 1 ? [shown[0], r] : r < lengths[0] ? [0, r] : [1, r - lengths[0]];
    const key = isProbs ? "to" : isWide ? "wide" : "column";

    const matrix = new Matrix(canvas, (r, c, open) => {
      const [text, token] = place(r);
      change({ text, [key]: c, ...(isVector ? {} : { token }) });
      if (open) cell.open = true;
    });
    const at = (r, c) => {
      const [text, token] = place(r), tensor = page.texts[text].get(name(pattern));
      return tensor.data[(isProbs ? state.head * tensor.columns + token : token) * tensor.columns + c];
    };
    const label = (r) => isVector ? `text ${"AB"[place(r)[0]]}` : `${shown.length > 1 ? "AB"[place(r)[0]] + ": " : ""}${rows[r]}`;
    const say = (r, c) => isProbs ? `“${rows[r]}” looks at “${rows[c]}”: ` : `${label(r)}, column ${c}: `;
    matrix.hover = (found) => {
      const [r, c] = found ?? matrix.look.chosen;
      read.replaceChildren(say(r, c), number(at(r, c)));
    };
    cell.addEventListener("toggle", () => redraw());

    function redraw() {
      const tensor = name(pattern), of = page.texts[shown[0]].get(tensor);
      caption(figure, tensor, isVector ? "(D)" : undefined);
      const text = shown.includes(state.text) ? state.text : shown[0], most = page.data.pieces[text].length - 1;
      const token = isVector ? 0 : Math.min(state.token, most);
      const c = isProbs ? Math.min(state.to, most) : Math.min(state[key], of.columns - 1);
      const chosen = [token + (shown.length > 1 && text === 1 ? lengths[0] : 0), c];
      const [, layer, , last] = tensor.match(/layers\.(\d+)\.(\w+)\.(\w+)/) ?? [];
      const matrixOf = { query: "query", key: "key", value: "value", expanded: "expand",
        projected: tensor.includes("attention") ? "output" : "contract" }[last];
      const scale = isProbs ? largestOf(of, state.head) : Math.max(...shown.map((one) => tensorScale(page.texts[one].get(tensor))));
      matrix.show({ rows, columns: isProbs ? rows : of.columns, value: at, scale, chosen, gap: shown.length > 1 ? lengths[0] : 0,
        marked: matrixOf ? [page.weights.matrices[layer][matrixOf].column] : [], zoom: isProbs ? 0 : state.zoom,
        write: isProbs ? (x) => x.toFixed(2) : (x) => written(x, 3), key: [tensor, state.head] },
      `${tensor}${only === undefined ? "" : `, text ${"AB"[text]}`}, ${say(...chosen)}${written(at(...chosen))}`);
      matrix.hover(null);
      const value = written(at(...chosen));
      cell.firstChild.textContent = `How ${value} was made`;
      if (!cell.open) return;
      const row = isProbs ? state.head * of.columns + token : token;
      const found = cells.open(contextOf(text), tensor, row, c);
      cell.lastChild.replaceChildren(arithmetic(found, { go: (column) => change({ [key]: column }) }));
      cell.dataset.at = JSON.stringify([tensor, text, row, c]);
    }
    return redraw;
  }

  // ------------------------------------------------------------------------------------------------- special parts
  function counts() {
    const rows = [0, 1].map((text) => ["AB"[text], Array.from(page.data.texts[text]).length, page.data.pieces[text].length, page.data.lost[text]]
      .map(String));
    byId("counts").replaceWith(Object.assign(table(["text", "characters", "tokens, with [CLS] and [SEP]", "tokens cut off"], rows), { id: "counts" }));
  }

  function pieces(list) {
    const text = Number(list.dataset.text);
    const buttons = page.data.pieces[text].map((piece, token) => {
      const button = element("button", "", { type: "button" });
      button.append(element("span", piece, { dir: "auto" }), element("small", String(page.data.ids[text][token])));
      button.addEventListener("click", () => change({ text, token }));
      const item = element("li");
      item.append(button);
      list.append(item);
      return button;
    });
    return () => buttons.forEach((button, token) => button.setAttribute("aria-pressed", String(state.text === text && state.token === token)));
  }

  function layers() {
    const buttons = Array.from({ length: page.data.model.L }, (_, layer) => {
      const button = element("button", String(layer), { type: "button", "aria-label": `layer ${layer}` });
      button.addEventListener("click", () => change({ layer }));
      byId("layers").append(button);
      return button;
    });
    return () => buttons.forEach((button, layer) => button.setAttribute("aria-pressed", String(layer === state.layer)));
  }

  function heads() {
    const buttons = Array.from({ length: page.data.model.H }, (_, head) => {
      const button = element("button", "", { type: "button", "aria-label": `head ${head}` });
      button.append(element("canvas"), String(head));
      button.addEventListener("click", () => change({ head }));
      byId("heads").append(button);
      return button;
    });
    return () => buttons.forEach((button, head) => {
      const probs = page.texts[state.text].get(`layers.${state.layer}.attention.probs`), T = probs.columns;
      button.setAttribute("aria-pressed", String(head === state.head));
      thumbnail(button.firstChild, T, T, (r, c) => probs.data[(head * T + r) * T + c], largestOf(probs, head));
    });
  }

  const looksOf = () => {
    const probs = page.texts[state.text].get(`layers.${state.layer}.attention.probs`);
    return Array.from(row(probs, state.head * probs.columns + state.token), (share, s) => [share, s]).sort(([a], [b]) => b - a);
  };

  function looks() {
    const inside = byId("score").lastElementChild;
    const draw = () => {
      byId("looks").replaceChildren(...looksOf().slice(0, 12).map(([share, s]) => {
        const item = element("li"), meter = element("span", "", { class: "meter" });
        meter.style.width = `${100 * share}%`;
        item.append(element("span", shorten(page.data.pieces[state.text][s], 14), { dir: "auto" }), number(share), meter);
        return item;
      }));
      if (!byId("score").open) return;
      const [query, key] = ["query", "key"].map((what) => page.texts[state.text].get(`layers.${state.layer}.attention.${what}`));
      inside.replaceChildren(arithmetic(cells.score(query, key, state.token, state.to, state.head, page.data.model.K)));
    };
    byId("score").addEventListener("toggle", draw);
    return draw;
  }

  // The activation function, and where the chosen number is on it.
  function curve() {
    const svg = byId("curve"), SVG = "http://www.w3.org/2000/svg", f = numbers.ACTIVATIONS[page.data.model.activation];
    const make = (tag, attributes, text = "") => {
      const made = document.createElementNS(SVG, tag);
      for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
      made.textContent = text;
      svg.append(made);
      return made;
    };
    const x = (value) => 210 + 50 * Math.max(-4, Math.min(4, value)), y = (value) => 140 - 30 * Math.max(-0.9, Math.min(4, value));
    make("line", { x1: 10, x2: 410, y1: y(0), y2: y(0) });
    make("line", { x1: x(0), x2: x(0), y1: 10, y2: 165 });
    const steps = Array.from({ length: 81 }, (_, i) => -4 + i / 10);
    make("path", { d: steps.map((value, i) => `${i ? "L" : "M"}${x(value)} ${y(f(value)).toFixed(1)}`).join("") });
    const point = make("circle", { r: 5 }), words = make("text", { x: 14, y: 20 });
    return () => {
      const tensor = page.texts[state.text].get(`layers.${state.layer}.feed_forward.expanded`);
      const before = tensor.data[state.token * tensor.columns + state.wide], after = f(before);
      point.setAttribute("cx", x(before));
      point.setAttribute("cy", y(after));
      words.textContent = `${page.data.model.activation}(${written(before)}) = ${written(after)}`;
      svg.setAttribute("aria-label", `The activation function; ${words.textContent}`);
    };
  }

  function modules() {
    const output = element("figure", "", { "data-tensor": `layers.${page.data.model.L - 1}.feed_forward.output` });
    byId("modules").append(output, ...numbers.moduleNames(page.data.model).map((one) => element("figure", "", { "data-tensor": one })));
  }

  // ---------------------------------------------------------------------------------------- the cosine, opened again
  // Where words begin, and how they read; with byPiece every piece is one.
  function words(text, byPiece) {
    const found = [];
    page.data.pieces[text].forEach((piece, i) => {
      if (found.length && piece.startsWith("##") && !byPiece) {
        found[found.length - 1].pieces.push(i);
        found[found.length - 1].label += piece.slice(2);
      } else found.push({ label: piece, pieces: [i] });
    });
    return found;
  }
  const contribution = (a, b) => a.pieces.reduce((sum, i) => sum + b.pieces.reduce((part, j) => part + page.data.pairs[i][j], 0), 0);
  const hundredths = (x) => (100 * x).toFixed(2).replace("-", "−");

  function strongest(count) {
    const all = words(0).flatMap((one) => words(1).map((other) => ({ one, other, value: contribution(one, other) })));
    return all.sort((x, y) => Math.abs(y.value) - Math.abs(x.value)).slice(0, count);
  }

  function pairs() {
    if (!page.data.pairs) {
      byId("pairs").hidden = byId("pairs-first").hidden = true;
      byId("no-pairs").hidden = false;
      byId("no-pairs").textContent = `No table of word pairs: ${page.data.noPairs}.`;
      return () => {};
    }
    const figure = byId("pair-figure"), { canvas, read, cell } = build(figure), choose = byId("by-piece");
    byId("strongest").append(...strongest(5).map(({ one, other, value }) => {
      const button = element("button", "", { type: "button" }), item = element("li");
      button.append(element("span", `${one.label} · ${other.label}`, { dir: "auto" }), " ", element("data", hundredths(value), { value: String(value) }));
      button.addEventListener("click", () => {
        cell.open = true;
        change({ a: one.pieces[0], b: other.pieces[0], scene: 10 });
        figure.scrollIntoView({ block: "center" });
      });
      item.append(button);
      return item;
    }));
    const matrix = new Matrix(canvas, (r, c, open) => {
      change({ a: words(0, choose.checked)[r].pieces[0], b: words(1, choose.checked)[c].pieces[0] });
      if (open) cell.open = true;
    });
    const all = sum(page.data.pairs.flat());
    byId("pair-sum").append("All cells add up to ", number(all, 8), ", and the cosine is ", number(page.data.cosine, 8), ": ",
      Math.abs(all - page.data.cosine) <= 1e-6 ? element("b", "they agree to 1e−6", { class: "good" }) : element("b", "they differ", { class: "bad" }), ".");

    function redraw() {
      const [a, b] = [words(0, choose.checked), words(1, choose.checked)];
      const find = (list, piece) => list.findIndex((word) => word.pieces.includes(piece));
      const chosen = [find(a, state.a), find(b, state.b)], value = (r, c) => contribution(a[r], b[c]);
      const values = a.flatMap((one) => b.map((other) => contribution(one, other)));
      const say = (r, c) => `“${a[r].label}” with “${b[c].label}”: `;
      figure.firstChild.textContent = "c(i, j) (T, T): rows are A, columns B, in hundredths; minisbert/analysis/explain.py: pair_contributions";
      matrix.show({ rows: a.map((word) => word.label), columns: b.map((word) => word.label), value, scale: Math.max(...values.map(Math.abs)) || 1,
        chosen, write: hundredths, key: choose.checked }, `contributions of word pairs, ${say(...chosen)}${hundredths(value(...chosen))} hundredths`);
      matrix.hover = (found) => {
        const [r, c] = found ?? chosen;
        read.replaceChildren(say(r, c), element("data", hundredths(value(r, c)), { value: String(value(r, c)) }), " hundredths");
      };
      matrix.hover(null);
      const [one, other] = [a[chosen[0]], b[chosen[1]]];
      cell.firstChild.textContent = `Why “${one.label}” and “${other.label}” contribute ${hundredths(value(...chosen))} hundredths`;
      if (!cell.open) return;
      const outputs = page.texts.map((tensors) => tensors.get(`layers.${page.data.model.L - 1}.feed_forward.output`));
      const single = one.pieces.length * other.pieces.length === 1;
      const open = one.pieces.flatMap((i) => other.pieces.map((j) => ({ i, j, found: cells.pair(outputs, i, j, page.data.pairs[i][j]) })));
      const inside = single ? [] : [element("p", "A word of several pieces: their contributions are added.")];
      for (const { i, j, found } of open) {
        if (!single) inside.push(element("h3", `${page.data.pieces[0][i]} with ${page.data.pieces[1][j]}`, { dir: "auto" }));
        inside.push(arithmetic(found));
      }
      const back = element("button", `follow “${page.data.pieces[0][state.a]}” back: where did it look in the last layer?`, { type: "button" });
      back.addEventListener("click", () => change({ text: 0, token: state.a, layer: page.data.model.L - 1, scene: 5 }));
      cell.lastChild.replaceChildren(...inside, back);
    }
    choose.addEventListener("change", redraw);
    cell.addEventListener("toggle", redraw);
    return redraw;
  }

  function dimensions() {
    const figure = byId("dimensions"), { canvas, read, cell } = build(figure);
    const vectors = page.texts.map((tensors) => tensors.get("sentence_embedding").data);
    const [a, b] = vectors.map((v) => v.map((x) => x / length(v))), product = a.map((x, d) => x * b[d]);
    // the products are small: in colours they count as much as the numbers they are made of
    const rows = [a, b, product], labels = ["A", "B", "product"], louder = [1, 1, scaleOf(a) / scaleOf(product)];
    const matrix = new Matrix(canvas, (r, c, open) => {
      change({ dimension: c, line: r });
      if (open) cell.open = true;
    });
    cell.addEventListener("toggle", () => redraw());

    function redraw() {
      const d = Math.min(state.dimension, a.length - 1), chosen = [state.line, d];
      figure.firstChild.replaceChildren(element("code", "sentence_embedding"), " (D), both texts, at length 1; the products are drawn louder; minisbert/similarity.py: cos_sim");
      const say = (r, c) => `${labels[r]}, dimension ${c}: `;
      matrix.show({ rows: labels, columns: a.length, value: (r, c) => rows[r][c] * louder[r], scale: scaleOf(a), chosen, zoom: state.zoom },
        `both sentence vectors and their product, ${say(...chosen)}${written(rows[state.line][d])}`);
      matrix.hover = (found) => {
        const [r, c] = found ?? chosen;
        read.replaceChildren(say(r, c), number(rows[r][c]));
      };
      matrix.hover(null);
      cell.firstChild.textContent = `How ${written(page.data.cosine, 5)} is a sum of ${a.length} products`;
      if (!cell.open) return;
      const terms = Array.from(a, (x, i) => ({ label: `dimension ${i}`, a: x, b: b[i], product: product[i] }));
      cell.lastChild.replaceChildren(arithmetic({ math: "cosine", of: ["A", "B"], terms, steps: [[`dimension ${d}: A`, a[d]], ["B", b[d]], ["product", product[d]]],
        value: dot(a, b), kept: page.data.cosine, bound: 1e-6 }));
    }
    return redraw;
  }

  // ------------------------------------------------------------------------------------------------- sentences
  const FACTS = {
    model: () => page.data.model.name, a: () => page.data.texts[0], b: () => page.data.texts[1],
    cosine: () => number(state.switch < 0 ? page.data.cosine : page.data.switches[state.switch].cosine),
    D: () => page.data.model.D, K: () => page.data.model.K, L: () => page.data.model.L, layer: () => state.layer, head: () => state.head,
    piece: () => page.data.pieces[state.text][state.token], other: () => page.data.pieces[state.text][state.to],
    T: () => page.data.pieces[state.text].length,
    looks: () => {
      const [share, s] = looksOf()[0];
      return `In layer ${state.layer}, head ${state.head}, “${page.data.pieces[state.text][state.token]}” looks most at “${page.data.pieces[state.text][s]}”: ${percent(share)}.`;
    },
    residual: () => {
      const tensors = page.texts[state.text], l = state.layer;
      const before = tensors.get(l ? `layers.${l - 1}.feed_forward.output` : "embeddings.output");
      const [came, done] = [before, tensors.get(`layers.${l}.attention.projected`)].map((tensor) => length(row(tensor, state.token)));
      return `In layer ${l} the vector of “${page.data.pieces[state.text][state.token]}” that came in has length ${written(came, 3)}, and what attention adds ${written(done, 3)}.`;
    },
    active: () => {
      const activated = row(page.texts[state.text].get(`layers.${state.layer}.feed_forward.activated`), state.token);
      return `For “${page.data.pieces[state.text][state.token]}” in layer ${state.layer}, ${activated.filter((x) => x > 0).length} of ${activated.length} numbers are above 0 after the activation function.`;
    },
    made: () => {
      if (!page.data.pairs) return "";
      const [first] = strongest(1);
      return `The strongest pair is “${first.one.label}” with “${first.other.label}”: ${hundredths(first.value)} of ${hundredths(page.data.cosine)} hundredths.`;
    },
    broken: () => {
      if (state.switch < 0) return "";
      const { says, cosine } = page.data.switches[state.switch];
      return `In a port in which ${says}, the cosine is ${written(cosine)}, not ${written(page.data.cosine)}. The tensors below stay the right ones; each says how far it moves.`;
    },
  };

  // ------------------------------------------------------------------------------------------------ what a switch moves
  const MOVED = [null, null, /^embeddings/, /(query|key|value)$/, /probs$/, /(context|attention\.projected)$/,
    /attention\.(summed|output)$/, /feed_forward/, /^(modules|sentence)/, /^sentence/];

  function movedBy(tensor) {
    const of = state.switch < 0 ? undefined : page.data.switches[state.switch].moved;
    if (!of || !(tensor in of)) return "";
    if (of[tensor] === null) return "is not there";
    const most = Math.max(...of[tensor]);
    return most < 1e-6 ? "" : `moves by ${percent(most)}`;
  }

  function moved() {
    const switched = state.switch < 0 ? null : page.data.switches[state.switch];
    document.querySelectorAll(".scene").forEach((scene, i) => {
      const place = scene.querySelector(".moved");
      place.replaceChildren();
      if (!switched || !MOVED[i]) return;
      const of = Object.entries(switched.moved).filter(([tensor]) => MOVED[i].test(tensor));
      const gone = of.some(([, far]) => far === null), most = Math.max(0, ...of.flatMap(([, far]) => far ?? []));
      if (most < 1e-6 && !gone) return place.append(element("span", "nothing moves", { class: "soft" }));
      place.append(...meter(most), gone ? `${percent(most)} at most; some tensors are not there` : `moves by ${percent(most)} at most`);
    });
    if (!switched) return;
    const rows = Object.entries(switched.moved).map(([tensor, far]) => {
      const bar = element("span");
      bar.append(...(far ? meter(Math.max(...far)) : []));
      return [tensor, ...(far ? far.map(percent) : ["is not there", ""]), bar];
    });
    byId("moved").replaceWith(Object.assign(table(["tensor", "A", "B", "of its largest number, from a millionth to all"], rows), { id: "moved" }));
  }

  // From one millionth to all of it, each tenfold as long as the next.
  function meter(share) {
    const bar = element("span", "", { class: "meter" });
    bar.style.width = `${Math.max(0, Math.min(1, 1 + Math.log10(share) / 6)) * 8}rem`;
    return [bar, " "];
  }

  // --------------------------------------------------------------------------------------------------------- all of it
  const THUMBNAILS = [null, null, "embeddings.word", "layers.{layer}.attention.query", "layers.{layer}.attention.probs", "layers.{layer}.attention.context",
    "layers.{layer}.attention.output", "layers.{layer}.feed_forward.activated", "modules.0", "sentence_embedding"];

  let thumbnailsOf;  // the layer and the light they were drawn for
  function thumbnails() {
    const now = `${state.layer} ${drawing.dark.matches}`;
    if (now === thumbnailsOf) return;
    thumbnailsOf = now;
    document.querySelectorAll(".scene > summary canvas").forEach((canvas, i) => {
      canvas.hidden = !THUMBNAILS[i];
      if (!THUMBNAILS[i]) return;
      const all = page.texts.map((tensors) => tensors.get(name(THUMBNAILS[i])) ?? tensors.get("sentence_embedding"));
      if (i === 4) {  // attention: the heads of both texts side by side
        const T = Math.max(...all.map((t) => t.columns)), H = page.data.model.H;
        return thumbnail(canvas, 2 * T, H * T, (r, c) => {
          const t = all[r < T ? 0 : 1], [q, h, s] = [r % T, Math.floor(c / T), c % T];
          return q < t.columns && s < t.columns ? t.data[(h * t.columns + q) * t.columns + s] : 0;
        }, 1);
      }
      const rows = all.map((t) => t.rows), scale = Math.max(...all.map(tensorScale));
      thumbnail(canvas, rows[0] + rows[1], all[0].columns, (r, c) => {
        const [t, q] = r < rows[0] ? [all[0], r] : [all[1], r - rows[0]];
        return t.data[q * t.columns + c];
      }, scale);
    });
  }

  // What is seen is drawn: a scene when it is open, the sentences always.
  function start(given, where, goTo) {
    [page, state, change] = [given, where, goTo];
    modules();
    counts();
    const parts = [], inScene = (place, redraw) => ({ scene: place.closest(".scene"), redraw });
    document.querySelectorAll("figure[data-tensor]").forEach((figure) => parts.push(inScene(figure, tensorFigure(figure))));
    document.querySelectorAll(".pieces").forEach((list) => parts.push(inScene(list, pieces(list))));
    parts.push(inScene(byId("heads"), heads()), inScene(byId("looks"), looks()), inScene(byId("curve"), curve()));
    parts.push(inScene(byId("pairs"), pairs()), inScene(byId("dimensions"), dimensions()));
    const drawLayers = layers();
    return (only) => {
      drawLayers();
      document.querySelectorAll("[data-fact]").forEach((place) => place.replaceChildren(FACTS[place.dataset.fact]()));
      moved();
      if (!only) thumbnails();
      for (const { scene, redraw } of parts) if (scene.open && (!only || scene === only)) redraw();
    };
  }

  return { start, strongest, written, element };
})();

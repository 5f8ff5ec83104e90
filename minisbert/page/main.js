"use strict";
// Where one is, and how one gets elsewhere: controls, keys, the address, the switches, print.
(async () => {
  const byId = (id) => document.getElementById(id), { element, written } = scenes;
  const data = JSON.parse(byId("data").textContent), { model } = data;
  if (!("DecompressionStream" in window)) {
    document.body.replaceChildren(element("h1", document.title), ...data.texts.map((text) => element("p", text, { dir: "auto" })),
      element("p", `Their cosine is ${written(data.cosine)}. To show how it was made, this page needs a browser of 2023 or later.`));
    return;
  }
  const page = { data, ...await numbers.read(data) };

  // scene: the one opened last; text, token: the one followed; to: whom it looks at; column, wide: of the D and F numbers
  const START = { scene: 0, layer: 0, head: 0, text: 0, token: 0, to: 0, column: data.columns[0].query, wide: data.columns[0].expand,
    a: 0, b: 0, dimension: 0, line: 2, zoom: 0, switch: -1 };
  const ZOOMS = [0, 96, 16];  // columns that are seen, 0 for all
  const state = { ...START };
  const inFrame = window.location.protocol === "about:";  // of a notebook, which has no address

  const most = () => ({ scene: 10, layer: model.L - 1, head: model.H - 1, text: 1, token: data.pieces[state.text].length - 1,
    to: data.pieces[state.text].length - 1, column: model.D - 1, wide: model.F - 1, a: data.pieces[0].length - 1, b: data.pieces[1].length - 1,
    dimension: model.widths[model.widths.length - 1] - 1, line: 2, zoom: 96, switch: data.switches.length - 1 });

  function change(to) {
    Object.assign(state, to);
    const limits = most();
    for (const key of ["token", "to"]) state[key] = Math.min(state[key], limits[key]);  // the other text may be shorter
    if (to.scene) open(to.scene);
    refresh();
  }

  function open(scene) {
    const box = byId(`scene-${scene}`);
    box.open = true;
    box.scrollIntoView({ block: "start" });
    box.querySelector("summary").focus({ preventScroll: true });
  }

  // ------------------------------------------------------------------------------------------------ the address
  function toAddress() {
    const said = Object.keys(START).filter((key) => state[key] !== START[key]).map((key) => `${key}=${state[key]}`);
    if (!inFrame) window.history.replaceState(null, "", said.length ? `#${said.join("&")}` : window.location.pathname + window.location.search);
  }

  function fromAddress() {
    const said = Object.fromEntries(new URLSearchParams(window.location.hash.slice(1))), to = { ...START };
    for (const key of Object.keys(START)) {
      const value = Number(said[key]), limits = { ...most(), token: Infinity, to: Infinity };  // text may change with them
      if (key in said && Number.isInteger(value) && value >= (key === "switch" ? -1 : 0) && value <= limits[key]) to[key] = value;
    }
    if (!ZOOMS.includes(to.zoom)) to.zoom = 0;
    if (!("scene" in said)) to.scene = "head" in said || "to" in said ? 5 : "layer" in said || "token" in said ? 4 : 0;
    change(to);
  }

  // -------------------------------------------------------------------------------------------------- the controls
  const choices = (count) => Array.from({ length: count }, (_, i) => element("option", String(i)));
  byId("layer").append(...choices(model.L));
  byId("head").append(...choices(model.H));
  byId("token").append(...[0, 1].map((text) => {
    const group = element("optgroup", "", { label: "AB"[text] });
    group.append(...data.pieces[text].map((piece, token) => element("option", `${"AB"[text]}: ${piece}`, { value: `${text},${token}` })));
    return group;
  }));
  byId("zoom").addEventListener("change", (event) => change({ zoom: Number(event.target.value) }));
  byId("column").max = String(model.D - 1);
  byId("layer").addEventListener("change", (event) => change({ layer: Number(event.target.value) }));
  byId("head").addEventListener("change", (event) => change({ head: Number(event.target.value) }));
  byId("token").addEventListener("change", (event) => {
    const [text, token] = event.target.value.split(",").map(Number);
    change({ text, token });
  });
  byId("column").addEventListener("change", (event) => {
    const column = Number(event.target.value);
    change({ column: Number.isInteger(column) ? Math.max(0, Math.min(model.D - 1, column)) : state.column });
  });

  const switches = byId("switches").querySelector("div");
  [{ label: "as proven" }, ...data.switches].forEach(({ label }, i) => {
    const words = element("label"), radio = element("input", "", { type: "radio", name: "switch", value: String(i - 1) });
    radio.addEventListener("change", () => change({ switch: i - 1 }));
    words.append(radio, ` ${label}`);
    switches.append(words);
  });
  byId("reset").addEventListener("click", () => {
    change({ switch: -1 });
    switches.querySelector("input").focus();
  });

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
    const scene = "1234567890".indexOf(event.key) + 1;
    if (scene) change({ scene });
    else if (event.key === "[") change({ layer: Math.max(0, state.layer - 1) });
    else if (event.key === "]") change({ layer: Math.min(model.L - 1, state.layer + 1) });
    else if ("+=-".includes(event.key)) change({ zoom: ZOOMS[Math.max(0, Math.min(2, ZOOMS.indexOf(state.zoom) + (event.key === "-" ? -1 : 1)))] });
    else if (event.key === "Escape" && state.scene) byId(`scene-${state.scene}`).open = false;
    else return;
    event.preventDefault();
  });

  // ------------------------------------------------------------------------------------------------------ all of it
  const draw = scenes.start(page, state, change);
  if (data.pairs) {
    const [{ one, other }] = scenes.strongest(1);
    Object.assign(START, { a: one.pieces[0], b: other.pieces[0], token: one.pieces[0], to: one.pieces[0] });
  }

  function refresh(only) {
    draw(only);
    byId("layer").value = String(state.layer);
    byId("head").value = String(state.head);
    byId("token").value = `${state.text},${state.token}`;
    byId("column").value = String(state.column);
    byId("zoom").value = String(state.zoom);
    switches.querySelectorAll("input").forEach((radio) => { radio.checked = Number(radio.value) === state.switch; });
    byId("broken").hidden = state.switch < 0;
    byId("was").textContent = state.switch < 0 ? "" : `not ${written(data.cosine)}`;
    toAddress();
  }

  document.querySelectorAll(".scene").forEach((box, i) => box.addEventListener("toggle", () => {
    if (box.open) state.scene = i + 1;
    else if (state.scene === i + 1) state.scene = 0;
    refresh(box);
  }));
  const { recomputed } = page;
  byId("trust").textContent = `Your browser has just recomputed ${recomputed.count.toLocaleString("en")} of these numbers from those before them. ` +
    `The largest difference is ${written(100 * recomputed.worst, 2)} % of its tensor's largest number (${recomputed.name}): this page keeps most numbers with 11 bits. ` +
    (data.ledger ? "Beside each tensor stands by how much PyTorch differs from the package." : "");
  window.addEventListener("hashchange", fromAddress);
  drawing.dark.addEventListener("change", () => refresh());

  let closed = [];
  window.addEventListener("beforeprint", () => {
    closed = [...document.querySelectorAll(".scene:not([open]), .answer:not([open])")];
    closed.forEach((box) => { box.open = true; });
    refresh();
  });
  window.addEventListener("afterprint", () => closed.forEach((box) => { box.open = false; }));
  fromAddress();
  document.documentElement.dataset.ready = "true";
})();

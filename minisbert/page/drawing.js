"use strict";
// A matrix as coloured cells on a canvas, for mouse, touch and keyboard; orange is negative, blue positive.
const drawing = (() => {
  const dark = window.matchMedia("(prefers-color-scheme: dark)"), print = window.matchMedia("print");
  const isDark = () => dark.matches && !print.matches;
  const LIGHT = { none: [247, 247, 247], less: [200, 90, 0], more: [8, 72, 140], ink: "#1a1a1a", soft: "#555", mark: "#000" };
  const DARK = { none: [36, 40, 43], less: [255, 160, 70], more: [110, 190, 255], ink: "#ececec", soft: "#b0b0b0", mark: "#fff" };
  const colours = () => isDark() ? DARK : LIGHT;
  const LABEL = 96, FONT = "12px system-ui, sans-serif", MOST_HEIGHT = 600, NUMBER = 46;

  // share: -1 to 1
  function colour(share, { none, less, more }) {
    const far = share < 0 ? less : more, s = Math.min(1, Math.abs(share));
    return none.map((from, i) => Math.round(from + s * (far[i] - from)));
  }

  // What 98 of 100 numbers stay below: a few columns of BERT are so large that all others would be pale.
  function scaleOf(data) {
    const sizes = Float64Array.from(data, Math.abs).sort();
    return sizes[Math.floor(0.98 * (sizes.length - 1))] || 1;
  }

  // Cells as pixels of an image, which the canvas then stretches.
  function image(rows, columns, value, scale) {
    const picture = new ImageData(columns, rows), inThisLight = colours();
    for (let r = 0; r < rows; r++) for (let c = 0; c < columns; c++) {
      picture.data.set([...colour(value(r, c) / scale, inThisLight), 255], 4 * (r * columns + c));
    }
    const small = document.createElement("canvas");
    [small.width, small.height] = [columns, rows];
    small.getContext("2d").putImageData(picture, 0, 0);
    return small;
  }

  function thumbnail(canvas, rows, columns, value, scale) {
    const brush = canvas.getContext("2d");
    canvas.width = canvas.clientWidth * (window.devicePixelRatio || 1) || 190;
    canvas.height = canvas.clientHeight * (window.devicePixelRatio || 1) || 46;
    brush.imageSmoothingEnabled = columns > canvas.width;
    brush.drawImage(image(rows, columns, value, scale), 0, 0, canvas.width, canvas.height);
  }

  const shorten = (text, letters) => {
    const found = Array.from(text);
    return found.length > letters ? found.slice(0, letters - 1).join("") + "…" : text;
  };

  // look: { rows: [labels], columns: [labels] or count, value(r, c), scale, gap: rows before a gap, marked: columns,
  // chosen: [r, c], write(x): a cell's text where there is room, zoom: columns that are shown, 0 for all, key: what the
  // cells depend on }. pick(r, c, open) is called by mouse and keyboard.
  class Matrix {
    constructor(canvas, pick) {
      this.canvas = canvas;
      this.pick = pick;
      canvas.tabIndex = 0;
      canvas.setAttribute("role", "application");
      canvas.addEventListener("pointermove", (event) => this.hover?.(this.under(event)));
      canvas.addEventListener("pointerleave", () => this.hover?.(null));
      canvas.addEventListener("click", (event) => {
        const found = this.under(event);
        if (found) this.pick(...found, true);
      });
      canvas.addEventListener("keydown", (event) => this.key(event));
      new ResizeObserver(() => this.draw()).observe(canvas.parentElement);
    }

    key(event) {
      if (!this.look || event.ctrlKey || event.metaKey || event.altKey) return;
      const [r, c] = this.look.chosen, last = [this.look.rows.length - 1, this.all - 1], far = this.all > 64 ? 16 : 4;
      const to = { ArrowUp: [r - 1, c], ArrowDown: [r + 1, c], ArrowLeft: [r, c - 1], ArrowRight: [r, c + 1], Home: [r, 0],
        End: [r, last[1]], PageUp: [r, c - far], PageDown: [r, c + far], Enter: [r, c] }[event.key];
      if (!to) return;
      event.preventDefault();
      this.pick(...to.map((x, i) => Math.max(0, Math.min(last[i], x))), event.key === "Enter");
    }

    get all() { return Array.isArray(this.look.columns) ? this.look.columns.length : this.look.columns; }

    show(look, name) {
      this.look = look;
      this.canvas.setAttribute("aria-label", name);
      this.draw();
    }

    // Where things are; of the columns, count from first on are seen.
    measure() {
      const { rows, columns, gap, zoom, chosen } = this.look, width = this.canvas.parentElement.clientWidth;
      const named = Array.isArray(columns), left = Math.min(LABEL, width / 4);
      const room = width - left - (named ? 16 : 4);  // the last label leans to the right
      const count = zoom ? Math.min(this.all, zoom, Math.floor(room / (zoom > 16 ? 3 : NUMBER))) : this.all;
      const first = Math.max(0, Math.min(this.all - count, chosen[1] - Math.floor(count / 2)));
      const wide = named ? Math.min(52, room / count) : room / count;
      const tall = named ? Math.max(9, Math.min(28, wide)) : Math.max(5, Math.min(20, MOST_HEIGHT / rows.length));
      const longest = named ? Math.max(...columns.map((label) => Array.from(shorten(label, 12)).length)) : 0;
      const top = named ? Math.min(80, 14 + 6.5 * longest) : wide >= NUMBER ? 20 : 6;
      return { left, top, wide, tall, first, count, gap: gap ? 8 : 0, height: top + rows.length * tall + (gap ? 8 : 0) + 4, width };
    }

    y(r) { return this.size.top + r * this.size.tall + (this.look.gap && r >= this.look.gap ? this.size.gap : 0); }

    under(event) {
      if (!this.size) return null;
      const box = this.canvas.getBoundingClientRect(), { left, wide, tall, first, count } = this.size;
      const c = Math.floor((event.clientX - box.left - left) / wide), y = event.clientY - box.top;
      const r = this.look.rows.findIndex((_, i) => y >= this.y(i) && y < this.y(i) + tall);
      return r >= 0 && c >= 0 && c < count ? [r, first + c] : null;
    }

    draw() {
      if (!this.look || !this.canvas.parentElement.clientWidth) return;
      const { rows, columns, value, scale, chosen } = this.look, size = this.size = this.measure(), { left, first, count } = size;
      const ratio = window.devicePixelRatio || 1, brush = this.canvas.getContext("2d");
      this.canvas.style.height = `${size.height}px`;
      [this.canvas.width, this.canvas.height] = [Math.round(size.width * ratio), Math.round(size.height * ratio)];
      brush.setTransform(ratio, 0, 0, ratio, 0, 0);
      const key = [this.look.key, first, count, isDark()].join();
      if (key !== this.drawn) this.cells = image(rows.length, count, (r, c) => value(r, first + c), scale);
      this.drawn = key;
      brush.imageSmoothingEnabled = size.wide * ratio < 1;
      for (const r of rows.keys()) brush.drawImage(this.cells, 0, r, count, 1, left, this.y(r), count * size.wide, size.tall);
      this.drawLabels(brush, colours());
      this.drawNumbers(brush);
      brush.strokeStyle = colours().mark;
      brush.lineWidth = 2;
      const x = left + (chosen[1] - first) * size.wide;
      brush.strokeRect(size.wide < 4 ? x - 2 : x, this.y(chosen[0]), Math.max(size.wide, 4), size.tall);
    }

    drawLabels(brush, { ink, soft, mark }) {
      const { rows, columns, chosen, marked = [] } = this.look, { left, top, wide, tall, first, count } = this.size;
      brush.font = FONT;
      brush.textBaseline = "middle";
      brush.textAlign = "right";
      rows.forEach((label, r) => {
        if (tall < 11 && r !== chosen[0]) return;  // no room for all
        brush.fillStyle = r === chosen[0] ? ink : soft;
        brush.fillText(shorten(label, 13), left - 5, this.y(r) + tall / 2, left - 6);
      });
      for (let c = first; c < first + count; c++) {
        const middle = left + (c - first + 0.5) * wide;
        brush.fillStyle = c === chosen[1] ? ink : soft;
        if (Array.isArray(columns) && (wide >= 11 || c === chosen[1])) {
          brush.save();
          brush.translate(middle, top - 5);
          brush.rotate(-Math.PI / 3);
          brush.textAlign = "left";
          brush.fillText(shorten(columns[c], 12), 0, 0, 84);
          brush.restore();
        } else if (!Array.isArray(columns) && wide >= NUMBER) {
          brush.textAlign = "center";
          brush.fillText(String(c), middle, 13);
        }
        if (!marked.includes(c)) continue;
        brush.fillStyle = mark;  // a triangle: its weights are on the page
        brush.beginPath();
        for (const [x, y] of [[-4, 0], [4, 0], [0, 5]]) brush.lineTo(middle + x, y);
        brush.fill();
      }
    }

    drawNumbers(brush) {
      const { rows, value, scale, write } = this.look, { left, wide, tall, first, count } = this.size;
      if (!write || wide < 34 || tall < 11) return;
      brush.textAlign = "center";
      for (const r of rows.keys()) for (let c = 0; c < count; c++) {
        const x = value(r, first + c), [red, green, blue] = colour(x / scale, colours());
        brush.fillStyle = 0.299 * red + 0.587 * green + 0.114 * blue > 140 ? "#000" : "#fff";
        brush.fillText(write(x), left + (c + 0.5) * wide, this.y(r) + tall / 2, wide - 2);
      }
    }
  }

  return { Matrix, thumbnail, scaleOf, dark, shorten };
})();

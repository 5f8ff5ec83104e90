"use strict";
// A matrix as coloured cells on a canvas, for mouse, touch and keyboard; orange is negative, blue positive.
const drawing = (() => {
  const dark = window.matchMedia("(prefers-color-scheme: dark)"), print = window.matchMedia("print");
  const isDark = () => dark.matches && !print.matches;
  const LIGHT = { none: [247, 247, 247], less: [200, 90, 0], more: [8, 72, 140], ink: "#1a1a1a", soft: "#555", mark: "#000" };
  const DARK = { none: [36, 40, 43], less: [255, 160, 70], more: [110, 190, 255], ink: "#ececec", soft: "#b0b0b0", mark: "#fff" };
  const colours = () => isDark() ? DARK : LIGHT;
  const LABEL = 96, FONT = "12px system-ui, sans-serif", MOST_HEIGHT = 620;

  // share: -1 to 1
  function colour(share) {
    const { none, less, more } = colours(), far = share < 0 ? less : more, s = Math.min(1, Math.abs(share));
    return none.map((from, i) => Math.round(from + s * (far[i] - from)));
  }

  // Three times the root mean square: a few columns of BERT are so large that all others would be pale.
  function scaleOf(data) {
    return 3 * Math.sqrt(data.reduce((sum, x) => sum + x * x, 0) / Math.max(1, data.length)) || 1;
  }

  // Cells as pixels of an image, which the canvas then stretches.
  function image(rows, columns, value, scale) {
    const picture = new ImageData(columns, rows);
    for (let r = 0; r < rows; r++) for (let c = 0; c < columns; c++) {
      picture.data.set([...colour(value(r, c) / scale), 255], 4 * (r * columns + c));
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
  // chosen: [r, c], write(x): a cell's text where there is room }. pick(r, c, open) is called by mouse and keyboard.
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
      const [r, c] = this.look.chosen, last = [this.look.rows.length - 1, this.count - 1], far = this.count > 64 ? 16 : 4;
      const to = { ArrowUp: [r - 1, c], ArrowDown: [r + 1, c], ArrowLeft: [r, c - 1], ArrowRight: [r, c + 1], Home: [r, 0],
        End: [r, last[1]], PageUp: [r, c - far], PageDown: [r, c + far], Enter: [r, c] }[event.key];
      if (!to) return;
      event.preventDefault();
      this.pick(...to.map((x, i) => Math.max(0, Math.min(last[i], x))), event.key === "Enter");
    }

    get count() { return Array.isArray(this.look.columns) ? this.look.columns.length : this.look.columns; }

    show(look, name) {
      this.look = look;
      this.canvas.setAttribute("aria-label", name);
      this.draw();
    }

    measure() {
      const { rows, columns, gap } = this.look, width = this.canvas.parentElement.clientWidth;
      const named = Array.isArray(columns), left = Math.min(LABEL, width / 4);
      const wide = named ? Math.min(52, (width - left - 4) / this.count) : (width - left - 4) / this.count;
      const tall = named ? Math.max(9, Math.min(28, wide)) : Math.max(5, Math.min(20, (MOST_HEIGHT - 20) / rows.length));
      const top = named ? Math.min(80, 14 + 6.5 * Math.max(...columns.map((label) => Array.from(shorten(label, 12)).length))) : 6;
      return { left, top, wide, tall, gap: gap ? 8 : 0, height: top + rows.length * tall + (gap ? 8 : 0) + 4, width };
    }

    y(r) { return this.size.top + r * this.size.tall + (this.look.gap && r >= this.look.gap ? this.size.gap : 0); }

    under(event) {
      if (!this.size) return null;
      const box = this.canvas.getBoundingClientRect(), { left, wide, tall } = this.size;
      const c = Math.floor((event.clientX - box.left - left) / wide), y = event.clientY - box.top;
      const r = this.look.rows.findIndex((_, i) => y >= this.y(i) && y < this.y(i) + tall);
      return r >= 0 && c >= 0 && c < this.count ? [r, c] : null;
    }

    draw() {
      if (!this.look || !this.canvas.parentElement.clientWidth) return;
      const { rows, columns, value, scale, marked = [], chosen, write } = this.look, size = this.size = this.measure();
      const ratio = window.devicePixelRatio || 1, brush = this.canvas.getContext("2d"), ink = colours();
      this.canvas.style.height = `${size.height}px`;
      [this.canvas.width, this.canvas.height] = [Math.round(size.width * ratio), Math.round(size.height * ratio)];
      brush.setTransform(ratio, 0, 0, ratio, 0, 0);
      const cells = image(rows.length, this.count, value, scale), across = this.count * size.wide;
      brush.imageSmoothingEnabled = size.wide * ratio < 1;
      for (const r of rows.keys()) brush.drawImage(cells, 0, r, this.count, 1, size.left, this.y(r), across, size.tall);
      brush.font = FONT;
      brush.textBaseline = "middle";
      brush.textAlign = "right";
      rows.forEach((label, r) => {
        if (size.tall < 11 && r !== chosen[0]) return;  // no room for all
        brush.fillStyle = r === chosen[0] ? ink.ink : ink.soft;
        brush.fillText(shorten(label, 13), size.left - 5, this.y(r) + size.tall / 2, size.left - 6);
      });
      if (Array.isArray(columns)) columns.forEach((label, c) => {
        if (size.wide < 11 && c !== chosen[1]) return;
        brush.save();
        brush.translate(size.left + (c + 0.5) * size.wide, size.top - 5);
        brush.rotate(-Math.PI / 3);
        brush.textAlign = "left";
        brush.fillStyle = c === chosen[1] ? ink.ink : ink.soft;
        brush.fillText(shorten(label, 12), 0, 0, 84);
        brush.restore();
      });
      brush.fillStyle = ink.mark;
      for (const c of marked) {  // whose weights are on the page
        const x = size.left + (c + 0.5) * size.wide;
        brush.beginPath();
        brush.moveTo(x - 4, 0);
        brush.lineTo(x + 4, 0);
        brush.lineTo(x, 5);
        brush.fill();
      }
      if (write && size.wide >= 34) rows.forEach((_, r) => {
        for (let c = 0; c < this.count; c++) {
          const [red, green, blue] = colour(value(r, c) / scale);
          brush.fillStyle = 0.299 * red + 0.587 * green + 0.114 * blue > 140 ? "#000" : "#fff";
          brush.textAlign = "center";
          brush.fillText(write(value(r, c)), size.left + (c + 0.5) * size.wide, this.y(r) + size.tall / 2);
        }
      });
      brush.strokeStyle = ink.mark;
      brush.lineWidth = 2;
      brush.strokeRect(size.left + chosen[1] * size.wide - (size.wide < 4 ? 2 : 0), this.y(chosen[0]), Math.max(size.wide, 4), size.tall);
    }
  }

  return { Matrix, thumbnail, scaleOf, dark, shorten };
})();

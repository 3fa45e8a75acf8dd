/* Concepts over a photo, as dff.rendering.overlay lays them: the strongest concept at each pixel
   gives its colour, about equal ones mix, and the stronger it is, the more opaque. */

const MEETING = 0.3;

class Painter {
  /** `maps` are k grey pictures of one size; `colors` k triples. */
  constructor(canvas, photo, maps, colors) {
    Object.assign(this, { canvas, photo, maps, colors });
    this.context = canvas.getContext("2d");
    this.layers = [h("canvas"), h("canvas")];
  }

  /** What is at a place (x, y in 0..1): [concept, strength] pairs, the strongest first. */
  at(x, y, threshold = 0.05) {
    const { width, height } = this.maps[0] || { width: 1, height: 1 };
    const column = Math.min(width - 1, Math.max(0, Math.floor(x * width)));
    const row = Math.min(height - 1, Math.max(0, Math.floor(y * height)));
    return this.maps
      .map((map, k) => [k, map.values[row * width + column] / 255])
      .filter(([, strength]) => strength >= threshold)
      .sort((a, b) => b[1] - a[1]);
  }

  /** Draw; `only` is one concept or null, `mix` the photo's weight. */
  draw({ only = null, mix = 0.5, threshold = 0, numbers = true, upTo = 1, heat = null, table = null }) {
    const { canvas, context, photo } = this;
    context.globalCompositeOperation = "source-over";
    context.drawImage(photo, 0, 0, canvas.width, canvas.height);
    if (this.maps.length && upTo > 0) {
      this.clipped(0, upTo, () => this.concepts(only, mix, threshold, numbers));
    }
    if (heat && upTo < 1) this.clipped(upTo, 1, () => this.heated(heat, table, mix));
  }

  /** Draw Grad-CAM alone. */
  drawHeat(heat, table, mix) {
    this.context.drawImage(this.photo, 0, 0, this.canvas.width, this.canvas.height);
    this.heated(heat, table, mix);
  }

  clipped(from, to, paint) {
    const { context, canvas } = this;
    context.save();
    context.beginPath();
    context.rect(from * canvas.width, 0, (to - from) * canvas.width, canvas.height);
    context.clip();
    paint();
    context.restore();
  }

  concepts(only, mix, threshold, numbers) {
    const { canvas, context } = this;
    this.tint(only, 1 - mix, threshold);
    context.imageSmoothingQuality = "high";
    context.globalCompositeOperation = "saturation"; // the photo's own colours step back
    context.drawImage(this.layers[0], 0, 0, canvas.width, canvas.height);
    context.globalCompositeOperation = "source-over";
    context.drawImage(this.layers[1], 0, 0, canvas.width, canvas.height);
    if (numbers) this.numbers(only, threshold);
  }

  /** Fill the two layers: grey, and the concepts' colours, both as opaque as concepts are strong. */
  tint(only, weight, threshold) {
    const { width, height } = this.maps[0];
    const shown = this.maps.map((map, k) => [map.values, this.colors[k]])
      .filter((_, k) => only === null || only === k);
    const [pale, tinted] = this.layers.map((layer) => {
      layer.width = width;
      layer.height = height;
      return layer.getContext("2d").createImageData(width, height);
    });
    const least = Math.max(1, threshold * 255);
    for (let i = 0, j = 0; i < width * height; i++, j += 4) {
      let strongest = 0;
      for (const [values] of shown) if (values[i] > strongest) strongest = values[i];
      if (strongest < least) continue;
      let red = 0, green = 0, blue = 0, sum = 0;
      for (const [values, color] of shown) {
        let share = 1 - (1 - values[i] / strongest) / MEETING;
        if (share <= 0) continue;
        share *= share;
        red += share * color[0]; green += share * color[1]; blue += share * color[2];
        sum += share;
      }
      tinted.data[j] = red / sum; tinted.data[j + 1] = green / sum; tinted.data[j + 2] = blue / sum;
      tinted.data[j + 3] = strongest * weight;
      pale.data[j] = pale.data[j + 1] = pale.data[j + 2] = 128;
      pale.data[j + 3] = strongest * weight;
    }
    this.layers[0].getContext("2d").putImageData(pale, 0, 0);
    this.layers[1].getContext("2d").putImageData(tinted, 0, 0);
  }

  /** Write each concept's number where it is the strongest, so that colour is not all there is. */
  numbers(only, threshold) {
    const { canvas, context } = this;
    const size = Math.max(11, Math.min(canvas.width, canvas.height) / 26);
    context.font = `600 ${size}px system-ui, sans-serif`;
    context.textAlign = "center";
    context.textBaseline = "middle";
    this.peaks = this.peaks || this.maps.map(peak);
    const marked = [];
    this.peaks.forEach(({ x, y, strength }, k) => {
      if ((only !== null && only !== k) || strength < Math.max(0.2, threshold)) return;
      const radius = size * (k > 98 ? 1.05 : 0.85);
      let left = Math.min(canvas.width - radius - 2, Math.max(radius + 2, x * canvas.width));
      const top = Math.min(canvas.height - radius - 2, Math.max(radius + 2, y * canvas.height));
      const side = left < canvas.width / 2 ? 1 : -1; // beside a mark that is there already
      while (marked.some((mark) => Math.hypot(mark[0] - left, mark[1] - top) < 2 * radius)) {
        left += side * radius;
      }
      marked.push([left, top]);
      context.beginPath();
      context.arc(left, top, radius, 0, 2 * Math.PI);
      context.fillStyle = "#fff";
      context.fill();
      context.lineWidth = size / 5;
      context.strokeStyle = `rgb(${this.colors[k].join(" ")})`;
      context.stroke();
      context.fillStyle = "#1b1d21";
      context.fillText(String(this.marks ? this.marks[k] : k + 1), left, top + size * 0.06);
    });
  }

  heated(heat, table, mix) {
    const layer = this.layers[0];
    layer.width = heat.width;
    layer.height = heat.height;
    const context = layer.getContext("2d");
    const image = context.createImageData(heat.width, heat.height);
    heat.values.forEach((value, i) => {
      image.data.set(table.subarray(3 * value, 3 * value + 3), 4 * i);
      image.data[4 * i + 3] = 255 * (1 - mix);
    });
    context.putImageData(image, 0, 0);
    this.context.imageSmoothingQuality = "high";
    this.context.drawImage(layer, 0, 0, this.canvas.width, this.canvas.height);
  }
}

function peak(map) {
  let place = 0;
  for (let i = 1; i < map.values.length; i++) if (map.values[i] > map.values[place]) place = i;
  return { x: ((place % map.width) + 0.5) / map.width,
    y: (Math.floor(place / map.width) + 0.5) / map.height, strength: map.values[place] / 255 };
}

/** Interpolate cells (rows x cols bytes) to a picture of the given size, as dff.maps.upsample. */
function upsampled(cells, grid, width, height) {
  const across = places(width, grid.cols, grid.width, grid.stride[1], grid.offset[1]);
  const down = places(height, grid.rows, grid.height, grid.stride[0], grid.offset[0]);
  const values = new Uint8Array(width * height);
  down.forEach(([top, below, v], row) => across.forEach(([left, right, u], column) => {
    const upper = cells[top * grid.cols + left] * (1 - u) + cells[top * grid.cols + right] * u;
    const lower = cells[below * grid.cols + left] * (1 - u) + cells[below * grid.cols + right] * u;
    values[row * width + column] = Math.round(upper * (1 - v) + lower * v);
  }));
  return { width, height, values };
}

function places(pixels, cells, length, stride, offset) {
  return Array.from({ length: pixels }, (_, i) => {
    const centre = ((i + 0.5) * length) / pixels;
    const place = Math.min(cells - 1, Math.max(0, (centre - offset) / stride));
    const before = Math.floor(place);
    return [before, Math.min(before + 1, cells - 1), place - before];
  });
}

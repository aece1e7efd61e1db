// The points as numbers, and the search for the one under the pointer.

class Cloud {
  constructor(buffer, header) {
    this.blob = buffer;
    this.starts = header.chunk_starts;
    this.boxes = Float32Array.from(header.chunk_boxes);
    this.count = this.starts[this.starts.length - 1];
    const shares = new Uint16Array(buffer, 0, 3 * this.count);
    this.view = new Uint16Array(buffer, 6 * this.count, this.count);
    this.colors = new Uint8Array(buffer, 8 * this.count, 4 * this.count);
    this.places = new Float32Array(3 * this.count);
    for (let chunk = 0; chunk + 1 < this.starts.length; chunk++) {
      for (let i = this.starts[chunk]; i < this.starts[chunk + 1]; i++) {
        for (let a = 0; a < 3; a++) {
          this.places[3 * i + a] = this.boxes[6 * chunk + a] + shares[3 * i + a] / 65535 * this.boxes[6 * chunk + 3 + a];
        }
      }
    }
  }

  at(i) { return [this.places[3 * i], this.places[3 * i + 1], this.places[3 * i + 2]]; }

  // A sample of coordinates along one axis, ascending.
  sorted(axis) {
    const step = Math.max(1, Math.floor(this.count / 20000)), values = [];
    for (let i = 0; i < this.count; i += step) values.push(axis(this.at(i)));
    return values.sort((a, b) => a - b);
  }

  // The visible point nearest to the viewer within some pixels of (x, y); -1 if there is none.
  pick(clip, x, y, width, height, least, visible) {
    for (const radius of [3, 8, 16]) {
      let found = -1, nearest = Infinity;
      for (let i = 0; i < this.count; i++) {
        if (this.colors[4 * i + 3] < 255 * least || !visible[this.view[i]]) continue;
        const X = this.places[3 * i], Y = this.places[3 * i + 1], Z = this.places[3 * i + 2];
        const w = clip[3] * X + clip[7] * Y + clip[11] * Z + clip[15];
        if (w <= 0 || w >= nearest) continue;
        const u = ((clip[0] * X + clip[4] * Y + clip[8] * Z + clip[12]) / w * 0.5 + 0.5) * width - x;
        const v = (0.5 - (clip[1] * X + clip[5] * Y + clip[9] * Z + clip[13]) / w * 0.5) * height - y;
        if (u * u + v * v < radius * radius) { found = i; nearest = w; }
      }
      if (found >= 0) return found;
    }
    return -1;
  }
}

async function readPoints(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
}

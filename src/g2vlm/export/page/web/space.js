// Vectors, matrices (column-major, as WebGL takes them), and a camera that orbits upright around a point.

const sub = (a, b) => [a[0] - b[0], a[1] - b[1], a[2] - b[2]];
const add = (a, b, s = 1) => [a[0] + s * b[0], a[1] + s * b[1], a[2] + s * b[2]];
const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
const cross = (a, b) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
const norm = (a) => Math.hypot(a[0], a[1], a[2]);
const unit = (a) => { const n = norm(a) || 1; return [a[0] / n, a[1] / n, a[2] / n]; };

function multiply(a, b) {
  const out = new Float32Array(16);
  for (let c = 0; c < 4; c++) for (let r = 0; r < 4; r++) {
    let sum = 0;
    for (let k = 0; k < 4; k++) sum += a[k * 4 + r] * b[c * 4 + k];
    out[c * 4 + r] = sum;
  }
  return out;
}

class OrbitCamera {
  constructor(up, extent) {
    this.up = unit(up);
    this.extent = extent;
    this.right0 = unit(cross(Math.abs(this.up[0]) < 0.9 ? [1, 0, 0] : [0, 1, 0], this.up));
    this.front0 = cross(this.up, this.right0);
    this.target = [0, 0, 0];
    this.distance = extent;
    this.yaw = 0;
    this.pitch = 0.3;
    this.fov = 1;
    this.roll = 0;
  }

  // Where it looks, from yaw (around up) and pitch (above the horizon, so that it looks down).
  get forward() {
    const flat = add(this.front0.map((x) => x * Math.cos(this.yaw)), this.right0, Math.sin(this.yaw));
    return add(flat.map((x) => x * Math.cos(this.pitch)), this.up, -Math.sin(this.pitch));
  }

  get position() { return add(this.target, this.forward, -this.distance); }
  get right() { return unit(cross(this.forward, this.up)); }

  // `downwards` is the lower side of the picture, for cameras that were not held level.
  look(position, forward, distance, fov, downwards) {
    const f = unit(forward);
    this.pitch = Math.max(-1.55, Math.min(1.55, -Math.asin(Math.max(-1, Math.min(1, dot(f, this.up))))));
    this.yaw = Math.atan2(dot(f, this.right0), dot(f, this.front0));
    this.distance = distance;
    this.target = add(position, this.forward, distance);
    if (fov) this.fov = fov;
    const upwards = cross(this.right, this.forward);
    this.roll = downwards ? Math.atan2(-dot(downwards, this.right), -dot(downwards, upwards)) : 0;
  }

  turn(dx, dy) {
    this.roll = 0;
    this.yaw += dx * 0.006;
    this.pitch = Math.max(-1.55, Math.min(1.55, this.pitch + dy * 0.006));
  }

  shift(dx, dy, height) {
    const step = 2 * this.distance * Math.tan(this.fov / 2) / height;
    const upwards = cross(this.right, this.forward);
    this.target = add(add(this.target, this.right, -dx * step), upwards, dy * step);
  }

  approach(factor) {
    this.distance = Math.max(this.extent * 1e-3, Math.min(this.extent * 20, this.distance * factor));
  }

  fly(ahead, aside, above) {
    const step = 0.6 * this.distance;
    this.target = add(add(add(this.target, this.forward, ahead * step), this.right, aside * step), this.up, above * step);
  }

  // Clip coordinates from world coordinates.
  matrix(aspect) {
    const f = this.forward, level = this.right, above = cross(level, f), p = this.position;
    const c = Math.cos(this.roll), s = Math.sin(this.roll);
    const r = add(level.map((x) => x * c), above, -s), u = add(above.map((x) => x * c), level, s);
    const view = new Float32Array([r[0], u[0], -f[0], 0, r[1], u[1], -f[1], 0, r[2], u[2], -f[2], 0,
      -dot(r, p), -dot(u, p), dot(f, p), 1]);
    const near = Math.min(this.distance, this.extent) * 0.01, far = this.extent * 30 + this.distance * 2;
    const t = 1 / Math.tan(this.fov / 2);
    const projection = new Float32Array([t / aspect, 0, 0, 0, 0, t, 0, 0,
      0, 0, (far + near) / (near - far), -1, 0, 0, 2 * far * near / (near - far), 0]);
    return multiply(projection, view);
  }
}

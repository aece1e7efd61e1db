// The page: controls, pointer and keys, and a frame drawn whenever something changed.

const byId = (name) => document.getElementById(name);
const header = JSON.parse(byId("header").textContent);
const canvas = byId("canvas"), overlay = byId("overlay"), message = byId("message");
const look = { mode: 0, least: 0, size: 1, maxSize: 64, depths: [1, 2], cameras: header.frusta, floor: true, inside: -1 };
const held = new Set(), fingers = new Map();
let cloud, drawing, camera, ends = [], wanted = true, lastTime = 0, moved = 0, sizeUnit = 1;

async function start() {
  message.textContent = "Reading points…";
  try {
    cloud = new Cloud(await readPoints(byId("points").textContent), header);
    byId("points").remove();
    drawing = new Drawing(canvas, header, cloud);
  } catch (error) {
    message.textContent = `Cannot show the scene: ${error.message}`;
    return;
  }
  prepareSpace();
  fillPanel();
  listen();
  message.textContent = "";
  if (window.innerWidth <= 640) fold();
  requestAnimationFrame(frame);
}

function prepareSpace() {
  const spans = [0, 1, 2].map((a) => { const s = cloud.sorted((p) => p[a]); return [s[Math.floor(s.length * 0.02)], s[Math.floor(s.length * 0.98)]]; });
  const extent = Math.max(...spans.map(([a, b]) => b - a)) || 1;
  camera = new OrbitCamera(header.up, extent);
  const T = header.views[0].T_world_camera, first = [T[3], T[7], T[11]], ahead = [T[2], T[6], T[10]];
  const depths = cloud.sorted((p) => dot(sub(p, first), ahead)).filter((d) => d > 0);
  look.depths = [depths[Math.floor(depths.length * 0.02)] || 1, depths[Math.floor(depths.length * 0.98)] || 2];
  // About what one point covers if all lie on the sides of a box of this extent.
  sizeUnit = extent / Math.sqrt(cloud.count) * 0.09;
  home();
  addFloor(spans, extent);
  if (header.frusta) header.views.forEach(addCamera);
}

// Behind and above the first camera, so that the scene is seen with its cameras.
function home() {
  const T = header.views[0].T_world_camera, ahead = [T[2], T[6], T[10]], depth = look.depths[1];
  const target = add([T[3], T[7], T[11]], ahead, 0.5 * depth);
  camera.look(add(target, ahead, -0.85 * depth), ahead, 0.85 * depth, 1);
  camera.target = target;
  camera.pitch = Math.min(1.2, Math.max(camera.pitch, 0) + 0.3);
  leave();
}

function addFloor(spans, extent) {
  const centre = spans.map(([a, b]) => (a + b) / 2), up = camera.up;
  const middle = add(centre, up, header.floor - dot(centre, up));
  const cell = 10 ** Math.floor(Math.log10(extent / 4)), half = Math.ceil(extent * 0.7 / cell);
  const places = [];
  for (let i = -half; i <= half; i++) {
    for (const [a, b] of [[camera.right0, camera.front0], [camera.front0, camera.right0]]) {
      const on = add(middle, a, i * cell);
      places.push(...add(on, b, -half * cell), ...add(on, b, half * cell));
    }
  }
  drawing.addLines("floor", places, [0.6, 0.65, 0.7, 0.22]);
  byId("floor").parentElement.append(` (${cell} ${header.unit})`);
}

function addCamera(view, index) {
  const T = view.T_world_camera, d = header.frustum_depth, [left, top, right, bottom] = view.borders;
  const world = (x, y, z) => [0, 4, 8].map((r) => T[r] * x + T[r + 1] * y + T[r + 2] * z + T[r + 3]);
  const tip = world(0, 0, 0);
  const corners = [[left, top], [right, top], [right, bottom], [left, bottom]].map(([x, y]) => world(x * d, y * d, d));
  const places = corners.flatMap((c, i) => [...tip, ...c, ...c, ...corners[(i + 1) % 4]]);
  drawing.addLines("cameras", places, [...view.color, 1], index);
  if (!view.picture) return;
  const image = new Image();
  image.onload = () => { drawing.addPicture(corners, image, index); wanted = true; };
  image.src = view.picture;
}

// To where a photo was taken; its own frustum would hide everything there.
function jump(view, index) {
  const T = view.T_world_camera, distance = (look.depths[0] + look.depths[1]) / 4;
  camera.look([T[3], T[7], T[11]], [T[2], T[6], T[10]], distance, view.fov_rad, [T[1], T[5], T[9]]);
  look.inside = index;
  if (view.picture) { byId("photo").src = view.picture; byId("beside").classList.add("shown"); }
  wanted = true;
}

function leave() {
  look.inside = -1;
  byId("beside").classList.remove("shown");
  wanted = true;
}

function fillPanel() {
  byId("title").textContent = header.title;
  byId("scale").textContent = header.scale === "metric" ? `Metres: ${header.scale_source}` : `No metric scale: ${header.scale_source}`;
  header.views.forEach((view, index) => {
    const item = document.createElement("li"), button = document.createElement("button");
    const name = document.createElement("span"), check = document.createElement("input");
    button.type = "button"; button.title = `Jump to ${view.name}`;
    button.style.borderColor = `rgb(${view.color.map((c) => Math.round(255 * c)).join(" ")})`;
    if (view.picture) { const image = new Image(); image.src = view.picture; image.alt = ""; button.append(image); }
    name.textContent = view.name;
    button.append(name);
    button.onclick = () => jump(view, index);
    check.type = "checkbox"; check.checked = true; check.title = "Show its points";
    check.setAttribute("aria-label", `Show the points of ${view.name}`);
    check.onchange = () => { drawing.visible[index] = check.checked; item.classList.toggle("off", !check.checked); drawing.tellViews(); wanted = true; };
    item.append(button, check);
    byId("views").append(item);
  });
  const follow = (name, use) => { const input = byId(name); input.oninput = () => { use(input); wanted = true; }; use(input); };
  follow("mode", (input) => { look.mode = Number(input.value); });
  follow("confidence", (input) => { look.least = input.value / 100; byId("confidence-value").textContent = `${input.value} %`; });
  follow("size", (input) => { look.pointSize = sizeUnit * input.value; byId("size-value").textContent = `${(input.value / 20).toFixed(1)}×`; });
  follow("floor", (input) => { look.floor = input.checked; });
  byId("cameras").checked = look.cameras;
  follow("cameras", (input) => { look.cameras = input.checked; });
  byId("measure").onclick = () => setMeasuring(byId("measure").getAttribute("aria-pressed") !== "true");
  byId("home").onclick = home;
  byId("leave").onclick = leave;
  byId("fold").onclick = fold;
  byId("shot").onclick = () => canvas.toBlob((blob) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob); link.download = "scene.png"; link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  });
}

function fold() {
  const hidden = byId("panel").classList.toggle("hidden");
  byId("fold").setAttribute("aria-expanded", String(!hidden));
}

function setMeasuring(on) {
  byId("measure").setAttribute("aria-pressed", String(on));
  canvas.classList.toggle("picking", on);
  ends = [];
  byId("length").textContent = on ? "Click two points." : "";
  wanted = true;
}

function click(x, y) {
  if (byId("measure").getAttribute("aria-pressed") !== "true") return;
  const index = pickAt(x, y);
  if (index < 0) { byId("length").textContent = "No point there: click on the cloud."; return; }
  if (ends.length === 2) ends = [];
  ends.push(index);
  byId("length").textContent = ends.length === 2 ? lengthText() : "Click the second point.";
  wanted = true;
}

const lengthText = () => `${norm(sub(cloud.at(ends[0]), cloud.at(ends[1]))).toPrecision(4)} ${header.unit}`;
const pickAt = (x, y) => cloud.pick(clipMatrix(), x, y, canvas.clientWidth, canvas.clientHeight, look.least, drawing.visible);
const clipMatrix = () => camera.matrix(canvas.clientWidth / Math.max(1, canvas.clientHeight));

function listen() {
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    fingers.set(event.pointerId, { x: event.clientX, y: event.clientY, button: event.button });
    moved = 0;
  });
  canvas.addEventListener("pointermove", (event) => {
    const before = fingers.get(event.pointerId);
    if (!before) return;
    const dx = event.clientX - before.x, dy = event.clientY - before.y;
    const others = [...fingers].filter(([id]) => id !== event.pointerId).map(([, finger]) => finger);
    moved += Math.abs(dx) + Math.abs(dy);
    if (others.length) {
      const apart = (x, y) => Math.hypot(x - others[0].x, y - others[0].y) || 1;
      camera.approach(apart(before.x, before.y) / apart(event.clientX, event.clientY));
      camera.shift(dx / 2, dy / 2, canvas.clientHeight);
    } else if (before.button === 2 || event.shiftKey) camera.shift(dx, dy, canvas.clientHeight);
    else camera.turn(dx, dy);
    Object.assign(before, { x: event.clientX, y: event.clientY });
    wanted = true;
  });
  const release = (event) => {
    const finger = fingers.get(event.pointerId);
    fingers.delete(event.pointerId);
    if (finger && event.type === "pointerup" && moved < 5 && finger.button === 0) {
      const box = canvas.getBoundingClientRect();
      click(event.clientX - box.left, event.clientY - box.top);
    }
  };
  for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, release);
  canvas.addEventListener("contextmenu", (event) => event.preventDefault());
  canvas.addEventListener("wheel", (event) => { event.preventDefault(); camera.approach(Math.exp(event.deltaY * 0.0012)); wanted = true; }, { passive: false });
  canvas.addEventListener("dblclick", (event) => {
    const index = pickAt(event.offsetX, event.offsetY);
    if (index >= 0) { camera.target = cloud.at(index); wanted = true; }
  });
  canvas.addEventListener("keydown", (event) => { held.add(event.key.toLowerCase()); wanted = true; });
  canvas.addEventListener("keyup", (event) => held.delete(event.key.toLowerCase()));
  canvas.addEventListener("blur", () => held.clear());
  new ResizeObserver(() => { wanted = true; }).observe(canvas);
}

function fly(seconds) {
  const along = (ahead, back) => (held.has(ahead) ? seconds : 0) - (held.has(back) ? seconds : 0);
  camera.fly(along("w", "s") + along("arrowup", "arrowdown"), along("d", "a") + along("arrowright", "arrowleft"), along("e", "q"));
}

function frame(now) {
  const seconds = Math.min(0.1, (now - lastTime) / 1000);
  lastTime = now;
  if (held.size) { fly(seconds); wanted = true; }
  if (wanted) { wanted = false; paint(); }
  requestAnimationFrame(frame);
}

function paint() {
  const ratio = Math.min(2, window.devicePixelRatio || 1);
  const width = Math.round(canvas.clientWidth * ratio), height = Math.round(canvas.clientHeight * ratio);
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  look.size = look.pointSize * height / (2 * Math.tan(camera.fov / 2));
  const clip = clipMatrix();
  drawing.draw(clip, look);
  paintLength(clip);
}

function paintLength(clip) {
  overlay.replaceChildren();
  const shown = ends.map((i) => {
    const p = [...cloud.at(i), 1], c = [0, 1, 3].map((r) => clip[r] * p[0] + clip[r + 4] * p[1] + clip[r + 8] * p[2] + clip[r + 12]);
    return [(c[0] / c[2] * 0.5 + 0.5) * canvas.clientWidth, (0.5 - c[1] / c[2] * 0.5) * canvas.clientHeight, c[2]];
  });
  if (shown.some(([, , w]) => w <= 0)) return;
  const put = (name, values, text = "") => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(values)) node.setAttribute(key, value);
    node.textContent = text;
    overlay.append(node);
  };
  if (shown.length === 2) {
    const [[x1, y1], [x2, y2]] = shown;
    put("line", { x1, y1, x2, y2 });
    put("text", { x: (x1 + x2) / 2, y: (y1 + y2) / 2 - 10 }, lengthText());
  }
  for (const [cx, cy] of shown) put("circle", { cx, cy, r: 5 });
}

start();

// Drawing with WebGL 2: points in chunks, lines (cameras, floor grid), pictures of the cameras.

const POINT_VERTEX = `#version 300 es
precision highp float; precision highp sampler2D;
layout(location=0) in vec3 fraction; layout(location=1) in uint view; layout(location=2) in vec4 color;
layout(location=3) in vec3 normal;
uniform mat4 clip; uniform vec3 low, span; uniform float size, least, maxSize; uniform int mode; uniform vec2 depths;
uniform sampler2D views; out vec3 tint;
vec3 hue(float h) { return clamp(abs(fract(h + vec3(0., 2./3., 1./3.)) * 6. - 3.) - 1., 0., 1.); }
vec3 viridis(float t) { return clamp(vec3(.28,.0,.33) + t*(vec3(.11,1.4,1.38) + t*(vec3(-.33,.21,.09) + t*(vec3(-4.63,-5.8,-19.33)
  + t*(vec3(6.23,14.18,56.69) + t*(vec3(4.78,-13.75,-65.35) + t*vec3(-5.44,4.65,26.31)))))), 0., 1.); }
void main() {
  int v = int(view);
  vec4 plane = texelFetch(views, ivec2(2 * (v >> 11), v & 2047), 0);
  float shown = texelFetch(views, ivec2(2 * (v >> 11) + 1, v & 2047), 0).x;
  vec3 p = low + fraction * span;
  gl_Position = clip * vec4(p, 1.);
  gl_PointSize = clamp(size / gl_Position.w, 1.5, maxSize);
  if (color.a < least || shown < .5) gl_Position = vec4(2., 2., 2., 0.);
  float depth = dot(plane.xyz, p) - plane.w;
  float share = clamp((1./max(depth, 1e-6) - 1./depths.y) / (1./depths.x - 1./depths.y), 0., 1.);
  tint = color.rgb;
  if (mode == 1) tint = viridis(color.a);
  if (mode == 2) tint = mix(vec3(.15), hue((1. - share) * .68), .9);
  if (mode == 3) tint = dot(normal, normal) > .1 ? normalize(normal) * .5 + .5 : vec3(.1);
  if (mode == 4) tint = mix(vec3(1.), hue(fract(float(v) * .618034)), .75) * (.35 + .65 * dot(color.rgb, vec3(.3, .6, .1)));
}`;
const POINT_FRAGMENT = `#version 300 es
precision mediump float; in vec3 tint; out vec4 result;
void main() { vec2 d = gl_PointCoord - .5; if (dot(d, d) > .25) discard; result = vec4(tint, 1.); }`;
const LINE_VERTEX = `#version 300 es
precision highp float; layout(location=0) in vec3 place; layout(location=1) in vec4 color; uniform mat4 clip; out vec4 tint;
void main() { gl_Position = clip * vec4(place, 1.); tint = color; }`;
const LINE_FRAGMENT = `#version 300 es
precision mediump float; in vec4 tint; out vec4 result; void main() { result = tint; }`;
const PICTURE_VERTEX = `#version 300 es
precision highp float; layout(location=0) in vec3 place; layout(location=1) in vec2 uv; uniform mat4 clip; out vec2 at;
void main() { gl_Position = clip * vec4(place, 1.); at = uv; }`;
const PICTURE_FRAGMENT = `#version 300 es
precision mediump float; in vec2 at; uniform sampler2D picture; out vec4 result;
void main() { result = vec4(texture(picture, at).rgb, 1.); }`;

function program(gl, vertex, fragment) {
  const made = gl.createProgram();
  for (const [kind, text] of [[gl.VERTEX_SHADER, vertex], [gl.FRAGMENT_SHADER, fragment]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, text);
    gl.compileShader(shader);
    if (!gl.getShaderParameter(shader, gl.COMPILE_STATUS)) throw new Error(gl.getShaderInfoLog(shader));
    gl.attachShader(made, shader);
  }
  gl.linkProgram(made);
  if (!gl.getProgramParameter(made, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(made));
  const uniforms = {};
  for (let i = 0; i < gl.getProgramParameter(made, gl.ACTIVE_UNIFORMS); i++) {
    const name = gl.getActiveUniform(made, i).name;
    uniforms[name] = gl.getUniformLocation(made, name);
  }
  return { made, uniforms };
}

class Drawing {
  constructor(canvas, header, cloud) {
    const gl = canvas.getContext("webgl2", { antialias: true, preserveDrawingBuffer: true });
    if (!gl) throw new Error("This browser has no WebGL 2.");
    this.gl = gl; this.header = header; this.cloud = cloud; this.lines = []; this.pictures = [];
    this.points = program(gl, POINT_VERTEX, POINT_FRAGMENT);
    this.line = program(gl, LINE_VERTEX, LINE_FRAGMENT);
    this.picture = program(gl, PICTURE_VERTEX, PICTURE_FRAGMENT);
    this.blob = gl.createBuffer();
    gl.bindBuffer(gl.ARRAY_BUFFER, this.blob);
    gl.bufferData(gl.ARRAY_BUFFER, cloud.blob, gl.STATIC_DRAW);
    this.views = gl.createTexture();
    this.visible = header.views.map(() => true);
    this.tellViews();
    gl.enable(gl.DEPTH_TEST);
    gl.clearColor(0.063, 0.071, 0.082, 1);
  }

  // Two texels for each view: its depth plane, and whether it is shown.
  tellViews() {
    const gl = this.gl, columns = Math.ceil(this.header.views.length / 2048) * 2;
    const rows = Math.min(2048, this.header.views.length);
    const data = new Float32Array(columns * rows * 4);
    this.header.views.forEach((view, index) => {
      const T = view.T_world_camera, ahead = [T[2], T[6], T[10]];
      const at = 4 * ((index & 2047) * columns + 2 * (index >> 11));
      data.set([...ahead, dot(ahead, [T[3], T[7], T[11]]), this.visible[index] ? 1 : 0], at);
    });
    gl.bindTexture(gl.TEXTURE_2D, this.views);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA32F, columns, rows, 0, gl.RGBA, gl.FLOAT, data);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.NEAREST);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MAG_FILTER, gl.NEAREST);
  }

  // Lines as pairs of ends: places (3 numbers each) in one colour (4 numbers).
  addLines(group, places, color, owner = -1) {
    const gl = this.gl, count = places.length / 3, data = new Float32Array(count * 7);
    for (let i = 0; i < count; i++) data.set([places[3 * i], places[3 * i + 1], places[3 * i + 2], ...color], 7 * i);
    const buffer = gl.createBuffer();
    gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
    gl.bufferData(gl.ARRAY_BUFFER, data, gl.STATIC_DRAW);
    this.lines.push({ group, buffer, count, owner });
  }

  addPicture(corners, image, owner) {
    const gl = this.gl, uv = [[0, 0], [1, 0], [1, 1], [0, 0], [1, 1], [0, 1]], order = [0, 1, 2, 0, 2, 3];
    const buffer = gl.createBuffer(), texture = gl.createTexture();
    gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
    gl.bufferData(gl.ARRAY_BUFFER, new Float32Array(order.flatMap((c, i) => [...corners[c], ...uv[i]])), gl.STATIC_DRAW);
    gl.bindTexture(gl.TEXTURE_2D, texture);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, gl.RGBA, gl.UNSIGNED_BYTE, image);
    gl.generateMipmap(gl.TEXTURE_2D);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_WRAP_S, gl.CLAMP_TO_EDGE);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_WRAP_T, gl.CLAMP_TO_EDGE);
    this.pictures.push({ buffer, texture, owner });
  }

  draw(clip, look) {
    const gl = this.gl;
    gl.viewport(0, 0, gl.drawingBufferWidth, gl.drawingBufferHeight);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    this.drawPoints(clip, look);
    gl.useProgram(this.line.made);
    gl.uniformMatrix4fv(this.line.uniforms.clip, false, clip);
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.SRC_ALPHA, gl.ONE_MINUS_SRC_ALPHA);
    for (const { group, buffer, count, owner } of this.lines) {
      if (!look[group] || (owner >= 0 && owner === look.inside)) continue;
      this.attributes(buffer, 28, [[3, 0], [4, 12]]);
      gl.drawArrays(gl.LINES, 0, count);
    }
    gl.disable(gl.BLEND);
    if (!look.cameras) return;
    gl.useProgram(this.picture.made);
    gl.uniformMatrix4fv(this.picture.uniforms.clip, false, clip);
    for (const { buffer, texture, owner } of this.pictures) {
      if (owner === look.inside) continue;
      this.attributes(buffer, 20, [[3, 0], [2, 12]]);
      gl.bindTexture(gl.TEXTURE_2D, texture);
      gl.drawArrays(gl.TRIANGLES, 0, 6);
    }
  }

  attributes(buffer, stride, layout) {
    const gl = this.gl;
    gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
    for (let i = 0; i < 4; i++) gl.disableVertexAttribArray(i);
    layout.forEach(([size, offset], index) => {
      gl.enableVertexAttribArray(index);
      gl.vertexAttribPointer(index, size, gl.FLOAT, false, stride, offset);
    });
  }

  drawPoints(clip, look) {
    const gl = this.gl, { uniforms, made } = this.points, { starts, boxes, count } = this.cloud;
    gl.useProgram(made);
    gl.bindTexture(gl.TEXTURE_2D, this.views);
    gl.bindBuffer(gl.ARRAY_BUFFER, this.blob);
    for (let i = 0; i < 4; i++) gl.enableVertexAttribArray(i);
    gl.vertexAttribPointer(0, 3, gl.UNSIGNED_SHORT, true, 6, 0);
    gl.vertexAttribIPointer(1, 1, gl.UNSIGNED_SHORT, 2, 6 * count);
    gl.vertexAttribPointer(2, 4, gl.UNSIGNED_BYTE, true, 4, 8 * count);
    gl.vertexAttribPointer(3, 3, gl.BYTE, true, 4, 12 * count);
    gl.uniformMatrix4fv(uniforms.clip, false, clip);
    gl.uniform1f(uniforms.size, look.size);
    gl.uniform1f(uniforms.maxSize, look.maxSize);
    gl.uniform1f(uniforms.least, look.least);
    gl.uniform1i(uniforms.mode, look.mode);
    gl.uniform2f(uniforms.depths, ...look.depths);
    for (let chunk = 0; chunk + 1 < starts.length; chunk++) {
      gl.uniform3f(uniforms.low, boxes[6 * chunk], boxes[6 * chunk + 1], boxes[6 * chunk + 2]);
      gl.uniform3f(uniforms.span, boxes[6 * chunk + 3], boxes[6 * chunk + 4], boxes[6 * chunk + 5]);
      gl.drawArrays(gl.POINTS, starts[chunk], starts[chunk + 1] - starts[chunk]);
    }
  }
}

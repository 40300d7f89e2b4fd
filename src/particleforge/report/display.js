// Draws the events of the page in space: four panels that are seen from one point of view.
// Drag or arrow keys turn them, the wheel (once the picture has the focus) or + and - zoom.
// The data are those of scene.py: z is the beam, lengths are in radii of the calorimeter's face.
(function () {
  "use strict";
  const { events, classes, face } = JSON.parse(document.getElementById("display-data").textContent);
  const canvas = document.getElementById("display-canvas");
  const choice = document.getElementById("display-event");
  const pen = canvas.getContext("2d");
  const START = { turn: 0.5, tilt: 0.35, zoom: 1 };
  const STEP = Math.PI / 36;
  // corners, degrees to the first one (90 is down), and for a star the radius of those between
  const SHAPES = {
    o: [24, 0], s: [4, 45], "^": [3, -90], D: [4, 0], v: [3, 90], p: [5, -90], h: [6, -90],
    "*": [5, -90, 0.45],
  };
  let view = { ...START };
  let width = 0;

  // Camera: z points right and y up at turn 0; the third value grows towards the reader.
  function turned(x, y, z) {
    const right = z * Math.cos(view.turn) + x * Math.sin(view.turn);
    const near = z * Math.sin(view.turn) - x * Math.cos(view.turn);
    return [
      right,
      y * Math.cos(view.tilt) - near * Math.sin(view.tilt),
      y * Math.sin(view.tilt) + near * Math.cos(view.tilt),
    ];
  }

  function line(at, points, colour, thickness) {
    pen.beginPath();
    points.forEach((p) => pen.lineTo(...at(p)));
    pen.strokeStyle = colour;
    pen.lineWidth = thickness;
    pen.stroke();
  }

  function mark(x, y, radius, shape, colour, filled) {
    const [corners, first, between] = SHAPES[shape];
    const n = between ? 2 * corners : corners;
    pen.beginPath();
    for (let i = 0; i < n; i += 1) {
      const angle = Math.PI * (first / 180 + 2 * i / n);
      const r = between && i % 2 ? radius * between : radius;
      pen.lineTo(x + r * Math.cos(angle), y + r * Math.sin(angle));
    }
    pen.closePath();
    pen.fillStyle = filled ? colour : "#ffffff";
    pen.globalAlpha = filled ? 0.85 : 0.55;
    pen.fill();
    pen.globalAlpha = 1;
    pen.strokeStyle = colour;
    pen.lineWidth = 1.6;
    pen.stroke();
  }

  const sizeOf = (energy) => Math.sqrt(Math.min(Math.max(13 * Math.sqrt(Math.max(energy, 0)), 9), 260));

  function drawFace(at) {
    const circle = (z) => Array.from({ length: 61 }, (_, i) =>
      [Math.cos(i * Math.PI / 30), Math.sin(i * Math.PI / 30), z]);
    [-face, face].forEach((z) => line(at, circle(z), "#c3c8ce", 1));
    for (let i = 0; i < 12; i += 1) {
      const x = Math.cos(i * Math.PI / 6), y = Math.sin(i * Math.PI / 6);
      line(at, [[x, y, -face], [x, y, face]], "#e4e7ea", 1);
    }
    pen.setLineDash([4, 4]);
    line(at, [[0, 0, -1.4 * face], [0, 0, 1.4 * face]], "#8a9097", 1);
    pen.setLineDash([]);
  }

  function trackPoints([phi, turn, radius, z]) {
    return Array.from({ length: 13 }, (_, i) => {
      const t = i / 12;
      return [t * radius * Math.cos(phi + t * turn), t * radius * Math.sin(phi + t * turn), t * z];
    });
  }

  function drawMarks(at, panel) {
    (panel.tracks || []).forEach((track) => line(at, trackPoints(track), "#30343a", 1.1));
    const marks = (panel.clusters || []).map(([x, y, z, energy]) =>
      ({ p: [x, y, z], energy, shape: "s", colour: "#6b7077", filled: false }));
    (panel.particles || []).forEach(([x, y, z, kind, charged, energy]) => {
      const { colour, shape } = classes[kind % classes.length];
      marks.push({ p: [x, y, z], energy, shape, colour, filled: Boolean(charged), line: true });
    });
    marks.sort((a, b) => turned(...a.p)[2] - turned(...b.p)[2]);
    marks.filter((m) => m.line).forEach((m) => {
      pen.globalAlpha = 0.45;
      line(at, [[0, 0, 0], m.p], m.colour, 1.2);
      pen.globalAlpha = 1;
    });
    marks.forEach((m) => mark(...at(m.p), sizeOf(m.energy), m.shape, m.colour, m.filled));
  }

  function drawPanel(panel, left, top, w, h) {
    pen.save();
    pen.beginPath();
    pen.rect(left, top, w, h);
    pen.clip();
    const scale = view.zoom * Math.min(w, h - 24) / (2.2 * Math.hypot(1, face));
    const at = ([x, y, z]) => {
      const [right, up] = turned(x, y, z);
      return [left + w / 2 + scale * right, top + 24 + (h - 24) / 2 - scale * up];
    };
    drawFace(at);
    drawMarks(at, panel);
    pen.fillStyle = "#ffffff";
    pen.fillRect(left, top, w, 24);
    pen.fillStyle = "#1c1e21";
    pen.font = "600 14px system-ui, sans-serif";
    pen.fillText(panel.title, left + 8, top + 17);
    pen.font = "13px system-ui, sans-serif";
    pen.textAlign = "right";
    pen.fillText(panel.note, left + w - 8, top + 17);
    pen.restore();
    pen.strokeStyle = "#d9dde2";
    pen.lineWidth = 1;
    pen.strokeRect(left + 0.5, top + 0.5, w - 1, h - 1);
  }

  // Returns the height that the legend takes.
  function drawLegend(top, dry) {
    let x = 10, y = top + 18;
    pen.font = "13px system-ui, sans-serif";
    classes.forEach(({ label, colour, shape, charged }) => {
      const w = pen.measureText(label).width + 40;
      if (x + w > width && x > 10) { x = 10; y += 22; }
      if (!dry) {
        mark(x + 7, y - 4, 6.5, shape, colour, charged);
        pen.fillStyle = "#1c1e21";
        pen.fillText(label, x + 19, y);
      }
      x += w;
    });
    return y + 10 - top;
  }

  function draw() {
    const { name, panels } = events[choice.selectedIndex];
    const columns = width >= 560 ? 2 : 1;
    const w = width / columns, h = Math.min(0.72 * w, 430), rows = Math.ceil(panels.length / columns);
    const sharp = Math.max(window.devicePixelRatio || 1, 2);  // of a screen, or of paper
    const height = rows * h + drawLegend(0, true);
    canvas.width = Math.round(width * sharp);
    canvas.height = Math.round(height * sharp);
    pen.scale(sharp, sharp);
    pen.fillStyle = "#ffffff";
    pen.fillRect(0, 0, width, height);
    panels.forEach((panel, i) => drawPanel(panel, (i % columns) * w, Math.floor(i / columns) * h, w, h));
    drawLegend(rows * h, false);
    canvas.setAttribute("aria-label", `Event display of ${name}: `
      + panels.map((panel) => `${panel.title} ${panel.note}`).join("; "));
  }

  function zoom(factor) {
    view.zoom = Math.min(Math.max(view.zoom * factor, 0.4), 40);
  }

  function turn(left, down) {
    view.turn += left;
    view.tilt = Math.min(Math.max(view.tilt + down, -Math.PI / 2), Math.PI / 2);
  }

  const ACTIONS = {
    ArrowLeft: () => turn(STEP, 0),
    ArrowRight: () => turn(-STEP, 0),
    ArrowUp: () => turn(0, -STEP),
    ArrowDown: () => turn(0, STEP),
    "+": () => zoom(1.2),
    "=": () => zoom(1.2),
    "-": () => zoom(1 / 1.2),
    b: () => { view = { ...view, turn: Math.PI / 2, tilt: 0 }; },
    s: () => { view = { ...view, turn: 0, tilt: 0 }; },
    0: () => { view = { ...START }; },
  };

  function act(key) {
    ACTIONS[key]();
    draw();
  }

  canvas.addEventListener("keydown", (event) => {
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (event.ctrlKey || event.altKey || event.metaKey || !(key in ACTIONS)) return;
    event.preventDefault();
    act(key);
  });
  document.querySelectorAll("#display button").forEach((button) =>
    button.addEventListener("click", () => act(button.dataset.key)));
  choice.addEventListener("change", draw);
  canvas.addEventListener("pointerdown", (event) => {
    canvas.focus({ preventScroll: true });
    if (event.isTrusted) canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!(event.buttons & 1)) return;
    turn(-event.movementX * 0.008, event.movementY * 0.008);
    draw();
  });
  canvas.addEventListener("wheel", (event) => {
    if (!event.deltaY || document.activeElement !== canvas) return;  // the page scrolls on
    event.preventDefault();
    zoom(event.deltaY < 0 ? 1.1 : 1 / 1.1);
    draw();
  }, { passive: false });

  events.forEach(({ name }) => choice.add(new Option(name)));
  document.getElementById("display").hidden = false;
  function fit(onPaper) {
    width = onPaper ? 760 : document.getElementById("display").clientWidth;
    draw();
  }
  let printing = false;
  window.addEventListener("beforeprint", () => { printing = true; fit(true); });
  window.addEventListener("afterprint", () => { printing = false; fit(false); });
  window.addEventListener("resize", () => fit(printing));
  fit(false);
})();

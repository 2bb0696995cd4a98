// Paints a mask over the picture: white where it may change. Pointer, touch, and keyboard:
// arrows move the brush, the space bar paints, Delete or Backspace rubs out, [ and ] set its size.
let mask, show, at, last;
const size = () => Number(element.querySelector(".ef-brush").value) / 100;
const rubs = () => element.querySelector(".ef-rub").checked;

function begin() {
  const image = element.querySelector("img");
  show = element.querySelector("canvas");
  if (!image || !show) return;
  const fit = () => {
    show.width = image.naturalWidth;
    show.height = image.naturalHeight;
    mask = new OffscreenCanvas(show.width, show.height);
    at = [show.width / 2, show.height / 2];
  };
  if (image.complete && image.naturalWidth) fit();
  else image.addEventListener("load", fit, { once: true });
}

function radius() {
  return Math.max(0.5, (size() * Math.min(show.width, show.height)) / 2);
}

function stroke(from, to, rub) {
  const pen = mask.getContext("2d");
  pen.globalCompositeOperation = rub ? "destination-out" : "source-over";
  pen.strokeStyle = pen.fillStyle = "#fff";
  pen.lineCap = "round";
  pen.lineWidth = 2 * radius();
  pen.beginPath();
  pen.moveTo(...from);
  pen.lineTo(to[0] + 0.01, to[1]);
  pen.stroke();
  draw();
}

function draw(cursor) {
  const pen = show.getContext("2d");
  pen.clearRect(0, 0, show.width, show.height);
  pen.globalCompositeOperation = "source-over";
  pen.drawImage(mask, 0, 0);
  pen.globalCompositeOperation = "source-in";
  pen.fillStyle = "rgb(225 29 116)";
  pen.fillRect(0, 0, show.width, show.height);
  if (!cursor) return;
  pen.globalCompositeOperation = "source-over";
  pen.strokeStyle = "#000";
  pen.lineWidth = Math.max(1, show.width / 200);
  pen.beginPath();
  pen.arc(...at, radius(), 0, 7);
  pen.stroke();
}

async function tell() {
  const flat = new OffscreenCanvas(mask.width, mask.height);
  const pen = flat.getContext("2d");
  pen.fillStyle = "#000";
  pen.fillRect(0, 0, flat.width, flat.height);
  pen.drawImage(mask, 0, 0);
  const data = pen.getImageData(0, 0, flat.width, flat.height).data;
  let painted = 0;
  for (let i = 0; i < data.length; i += 4) painted += data[i] > 127;
  const blob = await flat.convertToBlob({ type: "image/png" });
  const reader = new FileReader();
  reader.onload = () => trigger("apply", { mask: painted ? reader.result : "" });
  reader.readAsDataURL(blob);
  element.querySelector(".ef-painted").textContent =
    painted ? Math.max(1, Math.round((painted / data.length) * 400)) + " % painted" : "nothing painted: anything may change";
}

function place(event) {
  const box = show.getBoundingClientRect();
  return [
    ((event.clientX - box.left) / box.width) * show.width,
    ((event.clientY - box.top) / box.height) * show.height,
  ];
}

element.addEventListener("pointerdown", (event) => {
  if (!event.target.matches("canvas") || !mask) return;
  event.preventDefault();
  event.target.setPointerCapture(event.pointerId);
  last = at = place(event);
  stroke(last, last, rubs());
});
element.addEventListener("pointermove", (event) => {
  if (!last || !event.target.matches("canvas")) return;
  at = place(event);
  stroke(last, at, rubs());
  last = at;
});
element.addEventListener("pointerup", () => {
  if (last) tell();
  last = undefined;
});
element.addEventListener("pointercancel", () => (last = undefined));
element.addEventListener("keydown", (event) => {
  if (!event.target.matches("canvas") || !mask) return;
  const by = radius();
  const moves = { ArrowLeft: [-by, 0], ArrowRight: [by, 0], ArrowUp: [0, -by], ArrowDown: [0, by] };
  const brush = element.querySelector(".ef-brush");
  if (moves[event.key]) {
    at = [
      Math.min(show.width, Math.max(0, at[0] + moves[event.key][0])),
      Math.min(show.height, Math.max(0, at[1] + moves[event.key][1])),
    ];
  } else if (event.key === " ") {
    stroke(at, at, rubs());
    tell();
  } else if (event.key === "Delete" || event.key === "Backspace") {
    stroke(at, at, true);
    tell();
  } else if (event.key === "[" || event.key === "]") {
    brush.value = Number(brush.value) + (event.key === "]" ? 3 : -3);
  } else return;
  event.preventDefault();
  draw(true);
});
element.addEventListener("focusin", (event) => mask && event.target.matches("canvas") && draw(true));
element.addEventListener("focusout", (event) => mask && event.target.matches("canvas") && draw());
element.addEventListener("click", (event) => {
  if (!event.target.matches(".ef-clear") || !mask) return;
  mask.getContext("2d").clearRect(0, 0, mask.width, mask.height);
  draw();
  tell();
});
watch("value", begin);
begin();

"use strict";

const at = (name) => document.getElementById(name);
const KEY = "sdpack-key", KEPT = 60;
const ROOT = location.pathname.replace(/\/+$/, "");  // the prefix a proxy serves this page under
let running = null, last = null;

function headers(more) {
  const key = sessionStorage.getItem(KEY);
  return key ? { ...more, authorization: `Bearer ${key}` } : { ...more };
}

// Fetches from this server; asks for a key where one is needed, and then tries again.
async function ask(path, options = {}) {
  const answer = await fetch(ROOT + path, { ...options, headers: headers(options.headers) });
  if (answer.status === 401) {
    await askForKey();
    return ask(path, options);
  }
  if (!answer.ok) {
    const body = await answer.json().catch(() => null);
    throw new Error(body?.error?.message ?? `the server answered ${answer.status}`);
  }
  return answer;
}

function askForKey() {
  return new Promise((resolve) => {
    at("key").value = "";
    at("ask").addEventListener("close", () => {
      sessionStorage.setItem(KEY, at("key").value.trim());
      resolve();
    }, { once: true });
    at("ask").showModal();
  });
}

function say(words, bad = false) {
  at("said").textContent = words;
  at("said").classList.toggle("bad", bad);
}

function options(select, values, chosen) {
  select.replaceChildren(...values.map((value) => new Option(value, value, false, value === chosen)));
}

function bytes(count) {
  return count >= 2 ** 30 ? `${(count / 2 ** 30).toFixed(2)} GiB` : `${(count / 2 ** 20).toFixed(1)} MiB`;
}

function cell(text, number = false) {
  const made = document.createElement("td");
  made.textContent = text;
  if (number) made.className = "number";
  return made;
}

// The licences of a part, and of the bridge and the LoRAs in it.
function licences(part) {
  const bridge = part.bridge ? [`bridge ${part.bridge.licence}`] : [];
  const loras = (part.loras ?? []).map((lora) => `LoRA ${lora.licence}`);
  return [part.licence, ...bridge, ...loras].join(", ");
}

function describe(can) {
  document.title = `${can.model} · sdpack`;
  at("model").textContent = can.model;
  options(at("steps"), can.steps.choices, can.steps.usual);
  options(at("size"), can.sizes, can.sizes[0]);
  at("guidance").value = can.guidance_scale;
  at("negative").value = can.negative_prompt;
  at("count").max = can.limits.pictures;
  at("prompt").maxLength = can.limits.prompt;
  const { quality, metric, mixes, pictures } = can.evidence;
  at("why").textContent =
    `Chosen for ${can.profile} among ${mixes} mixes that fit, by ${pictures} pictures: ` +
    `${metric} ${quality.value.toFixed(3)} (95 %: ${quality.low.toFixed(3)} to ` +
    `${quality.high.toFixed(3)}); ${can.placement}; predicted peak ` +
    `${bytes(can.memory.predicted_bytes)} of ${bytes(can.memory.budget_bytes)}.`;
  at("licences").textContent = can.licences.line;
  at("mix").replaceChildren(...Object.entries(can.mix).map(([role, part]) => {
    const row = document.createElement("tr");
    row.append(
      cell(role.replaceAll("_", " ")), cell(part.candidate), cell(part.precision),
      cell(part.parameters.toLocaleString("en"), true),
      cell(role in can.memory.weights ? bytes(can.memory.weights[role]) : "when its turn comes", true),
      cell(licences(part)),
    );
    return row;
  }));
}

async function connect() {
  at("draw").disabled = true;
  describe(await (await ask("/capabilities")).json());
  for (;;) {
    const answer = await fetch(`${ROOT}/readyz`);
    const { status, reason } = await answer.json();
    at("state").textContent = status === "loading" ? "loading the engines …" : reason ?? status;
    at("state").classList.toggle("bad", status === "failed");
    if (answer.ok) break;
    await new Promise((resolve) => setTimeout(resolve, 500));
  }
  at("draw").disabled = false;
}

// The events of a stream, one after the other.
async function* events(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    text += value;
    let end;
    while ((end = text.indexOf("\n\n")) >= 0) {
      const data = /^data: (.*)$/m.exec(text.slice(0, end));
      text = text.slice(end + 2);
      if (data) yield JSON.parse(data[1]);
    }
  }
}

function asked() {
  const filled = (name) => at(name).value.trim() !== "";
  return {
    prompt: at("prompt").value,
    negative_prompt: at("negative").value,
    n: Number(at("count").value || 1),
    size: at("size").value,
    steps: Number(at("steps").value),
    ...(filled("guidance") && { guidance_scale: Number(at("guidance").value) }),
    ...(filled("seed") && { seed: Number(at("seed").value) }),
  };
}

async function draw() {
  const wanted = asked();
  busy(true);
  say("waiting …");
  try {
    const started = await ask("/v1/jobs", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(wanted),
    });
    running = (await started.json()).id;
    const path = `/v1/jobs/${running}`;
    const stream = await ask(path, { headers: { accept: "text/event-stream" } });
    let job = null;
    for await (job of events(stream)) {
      at("progress").value = job.progress;
      if (job.status === "running") {
        const place = job.n > 1 ? `, ${job.made} of ${job.n} pictures` : "";
        say(`step ${job.step} of ${job.steps}${place}`);
      }
    }
    if (job?.status === "done") await show(job, wanted);
    else say(job?.error?.message ?? job?.status ?? "the server closed the connection",
      job?.status !== "cancelled");
  } catch (error) {
    say(error.message, true);
  } finally {
    busy(false);
  }
}

async function show(job, wanted) {
  for (const [number, picture] of job.data.entries()) {
    const file = await (await ask(`/v1/images/${job.id}/${number}`)).blob();
    const image = new Image();
    image.src = URL.createObjectURL(file);
    image.alt = wanted.prompt;
    await image.decode();
    image.classList.toggle("small", image.naturalWidth <= 128);
    const link = document.createElement("a");
    link.href = image.src;
    link.download = `${picture.seed}.png`;
    link.title = "Save this picture";
    link.append(image);
    const words = document.createElement("b");
    words.textContent = wanted.prompt;
    const caption = document.createElement("figcaption");
    caption.append(words, `seed ${picture.seed}, ${wanted.steps} steps`);
    const figure = document.createElement("figure");
    figure.append(link, caption);
    const item = document.createElement("li");
    item.append(figure);
    at("gallery").prepend(item);
    last = picture.seed;
  }
  while (at("gallery").children.length > KEPT) {
    const oldest = at("gallery").lastElementChild;
    URL.revokeObjectURL(oldest.querySelector("img").src);
    oldest.remove();
  }
  at("empty").hidden = true;
  at("again").disabled = false;
  say([job.n > 1 ? `${job.n} pictures drawn` : "drawn", ...job.warnings].join("; "));
}

function busy(is) {
  at("draw").disabled = is;
  at("stop").disabled = !is;
  at("progress").value = 0;
  at("progress").hidden = !is;
  if (!is) running = null;
}

at("form").addEventListener("submit", (event) => {
  event.preventDefault();
  if (!at("draw").disabled) draw();
});
at("prompt").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) at("form").requestSubmit();
});
at("stop").addEventListener("click", () => {
  if (running) ask(`/v1/jobs/${running}`, { method: "DELETE" }).catch((error) => say(error.message, true));
});
addEventListener("pagehide", () => {
  if (running) fetch(`${ROOT}/v1/jobs/${running}`, { method: "DELETE", keepalive: true, headers: headers() });
});
at("again").addEventListener("click", () => { at("seed").value = last; });
connect().catch((error) => {
  at("state").textContent = error.message;
  at("state").classList.add("bad");
});

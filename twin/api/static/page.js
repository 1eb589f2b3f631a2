// The live page: polls the API once a second with ETags and puts what it says into the document.
// Everything goes in as text (never as HTML): ids and attributes are written by cars.

const PERIOD_MS = 1000;
const LATE_MS = 2500;
const PAGE = 25;
const LATEST = 15;
const MAX_SAMPLES = 90;
const FINAL = new Set(["succeeded", "failed", "rejected", "expired", "cancelled", "undeliverable"]);
const HEALTH = ["alarm", "warning", "normal", "insufficient_data"];
const PRESENCE = ["online", "stale", "offline", "unknown"];
const EXAMPLE_ARGS = { limit_power: '{"factor": 0.5}' };
const TONE = { alarm: "bad", warning: "warn", stale: "warn", online: "good", normal: "good" };

const $ = (id) => document.getElementById(id);
const state = {
  catalogue: new Map(), indexed: [],
  cursors: [null], next: null,
  car: null, carPanel: null,
  lastGood: 0, failedSince: 0, roundSince: 0,
};

// --- small helpers ------------------------------------------------------------------------------

function h(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "class") element.className = value;
    else element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function words(name) {
  return String(name).replaceAll("_", " ");
}

function number(value, digits = decimals(value)) {
  if (typeof value !== "number") return String(value);
  return value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

function decimals(value) {
  const size = Math.abs(value);
  return size >= 1000 ? 0 : size >= 10 ? 1 : 2;
}

function percent(share) {
  return number(share * 100, share > -0.1 && share < 0.1 && share !== 0 ? 1 : 0);
}

const UNITS = { degC: "°C", deg: "°", "m/s2": "m/s²", "1": "" };

/** A signal's value and unit as people read them: a 0..1 share is a percentage. */
function shown(name, value) {
  const signal = state.catalogue.get(name);
  if (!signal) return [number(value), ""];
  if (signal.unit === "1" && signal.type === "float") return [percent(value), "%"];
  if (signal.unit === "1") return [String(value), ""];
  return [number(value, signal.type === "int" ? 0 : undefined), UNITS[signal.unit] ?? signal.unit];
}

function age(ms) {
  const s = Math.max(0, Date.now() - ms) / 1000;
  if (s < 60) return `${Math.floor(s)} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d`;
}

function when(ms, suffix = " ago") {
  return h("time", { "data-t": ms, "data-suffix": suffix, datetime: new Date(ms).toISOString(), title: new Date(ms).toLocaleString() }, age(ms) + suffix);
}

function refreshAges() {
  for (const element of document.querySelectorAll("time[data-t]")) {
    setText(element, age(Number(element.dataset.t)) + element.dataset.suffix);
  }
}

function span(ms) {
  return ms < 1000 ? `${ms} ms` : ms < 60000 ? `${(ms / 1000).toFixed(1)} s` : age(Date.now() - ms);
}

function badge(word) {
  return h("span", { class: `badge ${word}` }, words(word));
}

function carLink(id) {
  return h("button", { type: "button", class: "link", onclick: () => openCar(id) }, id);
}

function bar(value, limit, full, className = "bar") {
  const over = limit !== undefined && value > limit;
  const fill = h("i");
  fill.style.width = `${Math.min(100, Math.max(0, (value / full) * 100))}%`;
  const element = h("span", { class: over ? `${className} over` : className }, fill);
  if (limit !== undefined) {
    const mark = h("u");
    mark.style.left = `${Math.min(100, (limit / full) * 100)}%`;
    element.append(mark);
  }
  return element;
}

/** Keep `parent`'s children in step with `items`: an unchanged item keeps its element and focus. */
function keyed(parent, items, keyOf, make) {
  const old = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  let before = null;
  for (const item of items) {
    const key = keyOf(item);
    const print = JSON.stringify(item);
    let element = old.get(key);
    if (!element || element.print !== print) {
      const fresh = make(item);
      fresh.dataset.key = key;
      fresh.print = print;
      if (element) replaceKeepingFocus(element, fresh);
      element = fresh;
    }
    old.delete(key);
    const place = before ? before.nextSibling : parent.firstChild;
    if (place !== element) parent.insertBefore(element, place);
    before = element;
  }
  for (const element of old.values()) element.remove();
}

function replaceKeepingFocus(element, fresh) {
  const targets = [...element.querySelectorAll("a, button")];
  const focused = targets.indexOf(document.activeElement);
  element.replaceWith(fresh);
  if (focused >= 0) fresh.querySelectorAll("a, button")[focused]?.focus();
}

// --- the API ------------------------------------------------------------------------------------

class ApiError extends Error {
  constructor(status, problem) {
    super(problem.detail ?? problem.title ?? `HTTP ${status}`);
    this.status = status;
    this.code = problem.code;
  }
}

const cache = new Map();

/** GET with ETag: [body, changed]. The cache holds only what was asked for in the last round. */
async function get(path) {
  const known = cache.get(path);
  const response = await fetch(path, {
    headers: known ? { "If-None-Match": known.etag } : {},
    cache: "no-store",
    signal: AbortSignal.timeout(8000),
  });
  if (response.status === 304 && known) {
    known.used = true;
    return [known.body, false];
  }
  const body = await read(response);
  cache.set(path, { etag: response.headers.get("ETag"), body, used: true });
  return [body, true];
}

async function read(response) {
  if (response.status === 204) return null;
  let body = {};
  try {
    body = await response.json();
  } catch {
    // not JSON: something between us and the API answered
  }
  if (!response.ok) throw new ApiError(response.status, body);
  return body;
}

async function write(method, path, body, headers = {}) {
  const response = await fetch(path, {
    method,
    headers: { "Content-Type": "application/json", "Idempotency-Key": newKey(), ...headers },
    body: body === undefined ? undefined : JSON.stringify(body),
    signal: AbortSignal.timeout(15000),
  });
  return read(response);
}

function newKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

function dropUnused() {
  for (const [path, entry] of cache) {
    if (entry.used) entry.used = false;
    else cache.delete(path);
  }
}

// --- fleet --------------------------------------------------------------------------------------

function showFleet(fleet) {
  const tiles = [{ kind: "", word: "cars", count: fleet.total }];
  for (const word of HEALTH) tiles.push({ kind: "health", word, count: fleet.health[word] ?? 0 });
  for (const word of PRESENCE) tiles.push({ kind: "presence", word, count: fleet.presence[word] ?? 0 });
  const picked = tiles.map((tile) => ({ ...tile, on: isPicked(tile) }));
  keyed($("tiles"), picked, (tile) => tile.kind + tile.word, (tile) =>
    h("button", {
      type: "button",
      class: `tile ${TONE[tile.word] ?? ""} ${tile.count ? "some" : ""}`,
      "aria-pressed": String(tile.on),
      onclick: () => pick(tile),
    }, h("b", {}, number(tile.count, 0)), h("span", {}, words(tile.word))));
  keyed($("spread"), HEALTH.map((word) => ({ word, count: fleet.health[word] ?? 0 })), (part) => part.word, (part) => {
    const piece = h("i", { class: part.word, title: `${words(part.word)}: ${part.count}` });
    piece.style.flexGrow = part.count;
    return piece;
  });
  $("spread").setAttribute("aria-label", `Health: ${HEALTH.map((word) => `${fleet.health[word] ?? 0} ${words(word)}`).join(", ")}`);
  const select = $("filter-fleet");
  const names = Object.keys(fleet.fleet).filter(Boolean).slice(0, 200);
  const have = [...select.options].slice(1).map((option) => option.value);
  if (names.join("\n") !== have.join("\n")) {
    const current = select.value;
    select.replaceChildren(h("option", { value: "" }, "all"), ...names.map((name) => h("option", { value: name }, name)));
    select.value = names.includes(current) ? current : "";
  }
}

function isPicked(tile) {
  const chosen = { health: $("filter-health").value, presence: $("filter-presence").value };
  return tile.kind ? chosen[tile.kind] === tile.word : !chosen.health && !chosen.presence;
}

function pick(tile) {
  const on = tile.kind && !isPicked(tile);
  $("filter-health").value = on && tile.kind === "health" ? tile.word : "";
  $("filter-presence").value = on && tile.kind === "presence" ? tile.word : "";
  restart();
}

// --- cars ---------------------------------------------------------------------------------------

function carsPath() {
  const conditions = [];
  for (const field of ["health", "presence", "fleet"]) {
    const value = $(`filter-${field}`).value;
    if (value) conditions.push(`${field} eq ${JSON.stringify(value)}`);
  }
  const fields = ["vehicle_id", "updated_at", "attributes", "presence", "health.state", "health.models.autoencoder", ...state.indexed.map((name) => `reported.${name}`)];
  const query = new URLSearchParams({ limit: PAGE, fields: fields.join(",") });
  if (conditions.length) query.set("filter", conditions.join(" and "));
  const cursor = state.cursors.at(-1);
  if (cursor) query.set("cursor", cursor);
  return `/v1/twins?${query}`;
}

function showCarsHead() {
  const unitOf = (name) => shown(name, 0)[1];
  $("cars-head").replaceChildren(
    ...["Vehicle", "Presence", "Health", "Score"].map((text) => h("th", { scope: "col" }, text)),
    ...state.indexed.map((name) => h("th", { scope: "col", class: "number", title: name }, words(name), " ", h("small", {}, unitOf(name)))),
    h("th", { scope: "col" }, "Fleet · model · firmware"),
    h("th", { scope: "col", class: "number" }, "Updated"));
}

function showCars(page) {
  state.next = page.next_cursor;
  keyed($("cars-body"), page.items, (twin) => twin.vehicle_id, carRow);
  const empty = page.items.length === 0;
  $("cars-empty").hidden = !empty;
  setText($("cars-empty"), state.next ? "None among the cars looked at so far; the next page goes on." : filtered() ? "No car fulfils these conditions." : "No car has spoken yet. A car's first message makes its twin.");
  $("previous").disabled = state.cursors.length < 2;
  $("next").disabled = !state.next;
  setText($("page-number"), `page ${state.cursors.length}`);
}

function filtered() {
  return ["health", "presence", "fleet"].some((field) => $(`filter-${field}`).value);
}

function carRow(twin) {
  const attributes = twin.attributes ?? {};
  const shares = twin.health?.models?.autoencoder?.signals ?? [];
  const blamed = new Set(twin.health?.state === "alarm" ? shares.slice(0, 2).map((share) => share.signal) : []);
  const kind = [attributes.fleet, attributes.model, attributes.firmware].filter(Boolean).join(" · ");
  return h("tr", {},
    h("td", {}, carLink(twin.vehicle_id)),
    h("td", {}, badge(twin.presence.state)),
    h("td", {}, badge(twin.health.state)),
    h("td", {}, scoreMeter(twin.health.models?.autoencoder)),
    ...state.indexed.map((name) => {
      const value = twin.reported?.[name]?.v;
      return h("td", { class: blamed.has(name) ? "number hot" : "number" }, value === undefined ? "–" : shown(name, value)[0]);
    }),
    h("td", { class: "text", title: kind }, kind),
    h("td", { class: "number muted" }, when(twin.updated_at, "")));
}

function scoreMeter(model) {
  if (model?.score === undefined) return h("span", { class: "muted" }, "–");
  const full = model.threshold ? 2 * model.threshold : model.score || 1;
  return h("span", { class: "meter", title: `score ${model.score}, threshold ${model.threshold}` }, bar(model.score, model.threshold, full), h("span", { class: "figure" }, number(model.score)));
}

// --- evidence -----------------------------------------------------------------------------------

/** Rows of evidence: each model's figure against its threshold, then the signals that carry it. */
function evidence(health, reported) {
  const grid = h("div", { class: "evidence" });
  for (const [name, model] of Object.entries(health.models ?? {})) {
    if (model.score !== undefined) {
      const full = Math.max(model.score, model.threshold ?? 0) * 1.15 || 1;
      grid.append(h("span", { class: "what", title: `version ${model.version}` }, words(name)), bar(model.score, model.threshold, full),
        h("span", { class: "value" }, comparison(model.score, model.threshold)));
    }
    if (model.failure_probability !== undefined) {
      grid.append(h("span", { class: "what", title: `version ${model.version}` }, `${words(name)}, failure in ${span(model.horizon_s * 1000)}`), bar(model.failure_probability, model.threshold, 1, model.threshold === undefined ? "bar share" : "bar"),
        h("span", { class: "value" }, `${percent(model.failure_probability)} %`));
    }
    if (model.remaining_s !== undefined) {
      grid.append(h("span", { class: "what", title: "component time until failure, with its interval" }, "· life left"), h("span", {}),
        h("span", { class: "value" }, lifeLeft(model)));
    }
    for (const share of model.signals ?? []) {
      const entry = reported?.[share.signal];
      const [value, unit] = entry ? shown(share.signal, entry.v) : ["", ""];
      grid.append(h("span", { class: "what" }, `· ${words(share.signal)}`), bar(share.share, undefined, 1, "bar share"),
        h("span", { class: "value" }, `${percent(share.share)} %`, value ? h("span", { class: "muted" }, ` at ${value} ${unit}`) : null));
    }
  }
  return grid;
}

/** "9 h (2 h to 31 h)"; an interval without an upper end is "(from 2 h)". */
function lifeLeft(model) {
  const [left, low, high] = [model.remaining_s, model.remaining_low_s, model.remaining_high_s].map((s) => (s === undefined ? undefined : hours(s)));
  return `${left} (${high === undefined ? `from ${low}` : `${low} to ${high}`})`;
}

function hours(seconds) {
  return `${Math.round(seconds / 3600)} h`;
}

function comparison(value, threshold) {
  if (threshold === undefined) return number(value);
  return `${number(value)} ${value > threshold ? ">" : "≤"} ${number(threshold)}`;
}

function versions(health) {
  return Object.entries(health.models ?? {}).map(([name, model]) => `${name} ${model.version}`).join(" · ");
}

function alarmsPath() {
  const fields = ["vehicle_id", "health", "commands.last", "reported"];
  return `/v1/twins?${new URLSearchParams({ filter: "health eq alarm", limit: 50, fields: fields.join(",") })}`;
}

function showAlarms(page, total) {
  const items = [...page.items].sort((a, b) => b.health.since - a.health.since);
  $("alarms-empty").hidden = items.length > 0;
  setText($("alarms-count"), total > items.length ? `${items.length} of ${total}` : total ? String(total) : "");
  keyed($("alarms"), items.map(onlyEvidence), (twin) => twin.vehicle_id, (twin) => {
    const last = twin.commands?.last;
    return h("li", {},
      h("div", { class: "card-head" }, carLink(twin.vehicle_id), badge("alarm"), when(twin.health.since)),
      evidence(twin.health, twin.reported),
      h("p", { class: "small" }, versions(twin.health), last ? h("span", {}, ` · last command ${last.name}: ${words(last.state)}`) : null));
  });
}

/** Leave out what the card does not show, so that it is redrawn only when it must be. */
function onlyEvidence(twin) {
  const named = Object.values(twin.health.models ?? {}).flatMap((model) => (model.signals ?? []).map((share) => share.signal));
  const reported = Object.fromEntries(named.filter((name) => twin.reported?.[name]).map((name) => [name, { v: twin.reported[name].v }]));
  const { since, models } = twin.health;
  return { vehicle_id: twin.vehicle_id, health: { since, models }, reported, commands: { last: twin.commands?.last } };
}

// --- commands -----------------------------------------------------------------------------------

function steps(command) {
  return h("ol", { class: "steps", "aria-label": "States" }, ...command.history.map((step, i) =>
    h("li", { title: `${new Date(step.at).toLocaleString()}${step.reason ? `: ${step.reason}` : ""}` }, words(step.state),
      i > 0 ? h("small", {}, `+${span(step.at - command.history[i - 1].at)}`) : null)));
}

function why(command) {
  const cause = command.cause;
  const json = h("a", { href: `/v1/commands/${encodeURIComponent(command.id)}`, title: command.id }, "ledger entry");
  if (!cause) return h("p", { class: "small" }, `asked by ${command.by} · `, json);
  const record = `${cause.topic}/${cause.partition}/${cause.offset}`;
  return h("p", { class: "small" },
    `because ${cause.model} ${comparison(cause.value, cause.threshold)}`,
    cause.signals?.length ? ` (${cause.signals.slice(0, 2).map((share) => `${words(share.signal)} ${percent(share.share)} %`).join(", ")})` : "",
    " · score record ", h("code", { title: cause.score }, record), ` · version ${cause.version} · `, json);
}

function commandCard(command, withCar) {
  const last = command.history.at(-1);
  const args = Object.keys(command.args ?? {}).length ? JSON.stringify(command.args) : "";
  return h("li", {},
    h("div", { class: "card-head" },
      h("strong", {}, command.name), badge(command.state),
      withCar ? carLink(command.vehicle_id) : null,
      !withCar && !FINAL.has(command.state) ? h("button", { type: "button", onclick: () => cancel(command.id) }, "Cancel") : null,
      when(command.issued_at)),
    steps(command),
    args ? h("p", { class: "small" }, "arguments ", h("code", {}, args.slice(0, 300))) : null,
    last?.reason ? h("p", { class: "small" }, `reason: ${last.reason}`) : null,
    why(command));
}

function showCommands(page) {
  $("commands-empty").hidden = page.items.length > 0;
  const items = [...page.items].sort((a, b) => b.issued_at - a.issued_at);
  keyed($("commands"), items, (command) => command.id, (command) => commandCard(command, true));
}

// --- one car ------------------------------------------------------------------------------------

function openCar(id) {
  state.car = { id, twin: null, samples: new Map() };
  history.replaceState(null, "", `#${encodeURIComponent(id)}`);
  setText($("car-title"), id);
  setText($("car-sub"), "loading");
  $("car-json").href = `/v1/twins/${encodeURIComponent(id)}`;
  for (const part of ["car-facts", "car-health", "car-signals", "car-desired", "car-commands"]) $(part).replaceChildren();
  for (const part of ["desired-answer", "command-answer"]) answer($(part), "", "");
  $("car-note").hidden = true;
  if (!$("drawer").open) $("drawer").showModal();
  $("drawer").scrollTop = 0;
  poll();
}

function carClosed() {
  state.car = null;
  history.replaceState(null, "", location.pathname);
}

async function pollCar(car) {
  const path = `/v1/twins/${encodeURIComponent(car.id)}`;
  try {
    const [[twin], [commands]] = await Promise.all([get(path), get(`${path}/commands?limit=20`)]);
    if (state.car !== car) return;
    car.twin = twin;
    $("car-note").hidden = true;
    showCar(car, twin, commands);
  } catch (error) {
    if (!(error instanceof ApiError) || error.status >= 500) throw error;
    if (state.car !== car) return;
    setText($("car-sub"), "");
    setText($("car-note"), error.message);
    $("car-note").hidden = false;
  }
}

function showCar(car, twin, commands) {
  setText($("car-sub"), `revision ${twin.revision} · twin since ${new Date(twin.created_at).toLocaleString()}`);
  const { presence, health } = twin;
  const facts = [
    { name: "presence", badge: presence.state, since: presence.since, text: presence.reason },
    { name: "health", badge: health.state, since: health.since },
    ...Object.entries(twin.attributes).map(([name, text]) => ({ name, text })),
  ];
  keyed($("car-facts"), facts, (fact) => fact.name, (fact) =>
    h("span", { class: "fact" }, h("span", {}, `${words(fact.name)} `), fact.badge ? badge(fact.badge) : null, fact.since ? h("span", {}, " ", when(fact.since, "")) : null, fact.text ? ` ${fact.text}` : null));
  keyed($("car-health"), [{ health: { models: health.models, state: health.state }, id: health.score_id, reported: onlyEvidence(twin).reported }], () => "health", (item) =>
    h("div", {},
      Object.keys(item.health.models).length ? evidence(item.health, item.reported) : h("p", { class: "muted" }, "No score yet: the models need a full window of telemetry."),
      h("p", { class: "small" }, versions(item.health), item.id ? ` · score ${item.id}` : "")));
  showSignals(car, twin.reported);
  showDesired(twin);
  keyed($("car-commands"), commands.items, (command) => command.id, (command) => commandCard(command, false));
}

function showSignals(car, reported) {
  const order = [...state.catalogue.keys()].filter((name) => name in reported);
  keyed($("car-signals"), order.map((name) => ({ name, ...reported[name] })), (signal) => signal.name, (signal) => {
    const samples = car.samples.get(signal.name) ?? [];
    if (samples.at(-1)?.[0] !== signal.t) samples.push([signal.t, signal.v]);
    if (samples.length > MAX_SAMPLES) samples.shift();
    car.samples.set(signal.name, samples);
    const known = state.catalogue.get(signal.name);
    const [value, unit] = shown(signal.name, signal.v);
    return h("tr", {},
      h("td", { title: `${signal.name}; ${known.min} to ${known.max} ${known.unit}; ${known.vss ?? "no VSS path"}` }, words(signal.name), signal.q ? h("span", {}, " ", badge(signal.q)) : null),
      h("td", { class: "number" }, value), h("td", { class: "muted" }, unit), h("td", {}, sparkline(samples)), h("td", { class: "muted" }, when(signal.t, "")));
  });
}

function sparkline(samples) {
  const NS = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(NS, "svg");
  svg.setAttribute("viewBox", "0 0 100 20");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  if (samples.length < 2) return svg;
  const values = samples.map((sample) => sample[1]);
  const low = Math.min(...values);
  const height = Math.max(...values) - low;
  const points = values.map((value, i) => `${(i / (values.length - 1)) * 100},${height ? 18 - ((value - low) / height) * 16 : 10}`);
  const line = document.createElementNS(NS, "polyline");
  line.setAttribute("points", points.join(" "));
  svg.append(line);
  return svg;
}

function showDesired(twin) {
  const { properties, status } = twin.desired;
  const names = [...new Set([...Object.keys(properties), ...Object.keys(twin.config), ...Object.keys(status)])];
  const rows = names.map((name) => ({ name, desired: properties[name], reported: twin.config[name], status: status[name] }));
  const text = (value) => (value === undefined ? "–" : JSON.stringify(value));
  keyed($("car-desired"), rows, (row) => row.name, (row) =>
    h("tr", {}, h("td", {}, row.name), h("td", {}, h("code", {}, text(row.desired))), h("td", {}, h("code", {}, text(row.reported))), h("td", {}, row.status ? badge(row.status.state) : "")));
}

function answer(output, tone, text) {
  output.className = tone;
  setText(output, text);
}

async function submit(output, action) {
  answer(output, "", "waiting for the owner's decision");
  try {
    answer(output, "ok", await action());
    poll();
  } catch (error) {
    answer(output, "bad", error instanceof SyntaxError ? `That is not JSON: ${error.message}` : error.message);
  }
}

function sendCommand(event) {
  event.preventDefault();
  const { id } = state.car;
  submit($("command-answer"), async () => {
    const body = { name: $("command-name").value, args: JSON.parse($("command-args").value || "{}"), ttl_s: Number($("command-ttl").value) };
    const made = await write("POST", `/v1/twins/${encodeURIComponent(id)}/commands`, body);
    return `${made.name} is ${words(made.state)}`;
  });
}

function patchDesired(event) {
  event.preventDefault();
  const { id, twin } = state.car;
  submit($("desired-answer"), async () => {
    const patch = JSON.parse($("desired-patch").value);
    const condition = twin ? { "If-Match": `"d${twin.desired.version}"` } : {};
    const made = await write("PATCH", `/v1/twins/${encodeURIComponent(id)}/desired`, patch, { "Content-Type": "application/merge-patch+json", ...condition });
    return `desired is at version ${made.version}`;
  });
}

function cancel(id) {
  submit($("command-answer"), async () => {
    const made = await write("POST", `/v1/commands/${encodeURIComponent(id)}/cancel`);
    return `${made.name} is ${words(made.state)}`;
  });
}

// --- the round ----------------------------------------------------------------------------------

let polling = false;
let again = false;
let timer = 0;

async function poll() {
  if (polling) {
    again = true;
    return;
  }
  polling = true;
  clearTimeout(timer);
  try {
    do {
      again = false;
      state.roundSince = Date.now();
      await round();
    } while (again);
    state.lastGood = Date.now();
    state.failedSince = 0;
  } catch (error) {
    state.failedSince ||= Date.now();
    state.fault = error;
  } finally {
    polling = false;
    showLive();
    if (!document.hidden) timer = setTimeout(poll, PERIOD_MS);
  }
}

async function round() {
  if (!state.catalogue.size) {
    const [catalogue] = await get("/v1/catalogue");
    state.catalogue = new Map(catalogue.items.map((signal) => [signal.name, signal]));
    state.indexed = catalogue.items.filter((signal) => signal.indexed).map((signal) => signal.name);
    showCarsHead();
  }
  const { car } = state;
  const path = carsPath();
  const [[fleet], [cars], [alarms], [commands]] = await Promise.all([
    get("/v1/fleet"), get(path), get(alarmsPath()), get(`/v1/commands?limit=${LATEST}`), car ? pollCar(car) : null,
  ]);
  showFleet(fleet);
  if (path === carsPath()) showCars(cars);
  showAlarms(alarms, fleet.health.alarm ?? 0);
  showCommands(commands);
  dropUnused();
}

function showLive() {
  const ok = !state.failedSince;
  const late = polling && Date.now() - state.roundSince > LATE_MS;
  $("live").className = `live ${document.hidden ? "" : ok && !late ? "ok" : "bad"}`;
  setText($("live-text"), document.hidden ? "paused" : !ok ? "not live" : late ? "waiting for the API" : "live");
  $("away").hidden = ok;
  if (!ok) {
    const answered = state.fault instanceof ApiError;
    const seen = state.lastGood ? ` What you see is from ${new Date(state.lastGood).toLocaleTimeString()}.` : "";
    setText($("away"), `${answered ? `The API cannot answer: ${state.fault.message}.` : "The API does not answer."}${seen} Trying again every second.`);
  }
}

function restart() {
  state.cursors = [null];
  poll();
}

function wire() {
  for (const field of ["health", "presence", "fleet"]) $(`filter-${field}`).addEventListener("change", restart);
  $("next").addEventListener("click", () => { if (state.next) { state.cursors.push(state.next); poll(); } });
  $("previous").addEventListener("click", () => { if (state.cursors.length > 1) { state.cursors.pop(); poll(); } });
  $("find").addEventListener("submit", (event) => {
    event.preventDefault();
    const id = $("find-id").value.trim();
    if (id) openCar(id);
  });
  $("close").addEventListener("click", () => $("drawer").close());
  $("drawer").addEventListener("close", carClosed);
  $("drawer").addEventListener("click", (event) => { if (event.target === $("drawer")) $("drawer").close(); });
  $("command-form").addEventListener("submit", sendCommand);
  $("command-name").addEventListener("change", () => { $("command-args").value = EXAMPLE_ARGS[$("command-name").value] ?? "{}"; });
  $("desired-form").addEventListener("submit", patchDesired);
  $("theme").addEventListener("click", () => setTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark", true));
  document.addEventListener("visibilitychange", () => {
    clearTimeout(timer);
    if (document.hidden) showLive();
    else poll();
  });
  setInterval(() => {
    refreshAges();
    if (state.lastGood) showLive();
  }, 1000);
}

function askedCar() {
  try {
    return decodeURIComponent(location.hash.slice(1));
  } catch {
    return ""; // no percent-encoding of ours
  }
}

function setTheme(theme, keep) {
  document.documentElement.dataset.theme = theme;
  if (keep) localStorage.setItem("theme", theme);
}

setTheme(localStorage.getItem("theme") ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light"), false);
wire();
const asked = askedCar();
poll().then(() => { if (asked) openCar(asked); });

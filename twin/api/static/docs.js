// The API reference: draws /openapi.json, so it needs nothing from elsewhere and cannot be out of date.

document.documentElement.dataset.theme =
  localStorage.getItem("theme") ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");

function h(tag, props, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

function typeOf(schema = {}) {
  if (schema.$ref) return schema.$ref.split("/").at(-1);
  const kind = (schema.anyOf ?? []).find((option) => option.type !== "null") ?? schema;
  const range = kind.minimum !== undefined ? ` ${kind.minimum} to ${kind.maximum ?? "…"}` : "";
  const standard = schema.default !== undefined ? `, default ${schema.default}` : "";
  return `${kind.type ?? ""}${range}${standard}`;
}

function table(head, rows) {
  return h("table", { class: "signals" },
    h("thead", {}, h("tr", {}, ...head.map((text) => h("th", { scope: "col" }, text)))),
    h("tbody", {}, ...rows.map((cells) => h("tr", {}, ...cells.map((cell) => h("td", {}, cell))))));
}

function curl(method, path, call) {
  const media = Object.keys(call.requestBody?.content ?? {})[0];
  const parts = ["curl -sS"];
  if (method !== "get") parts.push(`-X ${method.toUpperCase()}`);
  if (media) parts.push(`-H 'Content-Type: ${media}' -d '{}'`);
  parts.push(`'${location.origin}${path}'`);
  return parts.join(" ");
}

function section(path, method, call) {
  const details = h("details", { class: "call" },
    h("summary", {}, h("span", { class: `method ${method}` }, method.toUpperCase()), " ", h("code", {}, path), " ", h("span", { class: "muted" }, call.summary ?? "")));
  details.append(h("p", {}, call.description ?? ""), h("pre", {}, h("code", {}, curl(method, path, call))));
  if (call.parameters?.length) {
    details.append(h("h3", {}, "Parameters"), table(["Name", "In", "Type", "Meaning"],
      call.parameters.map((p) => [h("code", {}, p.name), p.in, typeOf(p.schema), p.description ?? ""])));
  }
  for (const [media, content] of Object.entries(call.requestBody?.content ?? {})) {
    details.append(h("h3", {}, `Body: ${media}`), h("pre", {}, h("code", {}, JSON.stringify(content.schema, null, 1))));
  }
  details.append(h("h3", {}, "Answers"), table(["Status", "Content", "Meaning"], Object.entries(call.responses).map(([status, answer]) => {
    const [media, content] = Object.entries(answer.content ?? {})[0] ?? ["", {}];
    return [h("code", {}, status), `${media} ${typeOf(content.schema)}`, answer.description ?? ""];
  })));
  return details;
}

function shape(name, schema) {
  return h("details", { class: "call", id: `shape-${name}` }, h("summary", {}, h("code", {}, name), " ", h("span", { class: "muted" }, (schema.description ?? "").split("\n")[0])),
    h("pre", {}, h("code", {}, JSON.stringify(schema, null, 1))));
}

async function draw() {
  const response = await fetch("/openapi.json");
  const api = await response.json();
  document.getElementById("about").textContent = api.info.description;
  const groups = new Map();
  for (const [path, methods] of Object.entries(api.paths)) {
    for (const [method, call] of Object.entries(methods)) {
      const tag = call.tags?.at(-1) ?? "other";
      groups.set(tag, [...(groups.get(tag) ?? []), section(path, method, call)]);
    }
  }
  const calls = document.getElementById("calls");
  for (const [tag, sections] of groups) calls.append(h("h2", {}, tag), ...sections);
  calls.append(h("h2", {}, "shapes"), ...Object.entries(api.components.schemas).map(([name, schema]) => shape(name, schema)));
}

draw().catch(() => { document.getElementById("about").textContent = "The API does not answer; load this page again."; });

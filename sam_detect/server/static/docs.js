// Shows the OpenAPI document of the service that gave this page.

const made = (name, text, attributes = {}) => Object.assign(document.createElement(name), { textContent: text, ...attributes });

function drawn(path, method, operation) {
  const box = document.createElement("details");
  const head = made("summary", "");
  head.append(made("code", `${method.toUpperCase()} ${path}`), ` ${operation.summary ?? ""}`);
  box.append(head, made("p", operation.description ?? ""));
  if (operation.parameters?.length) {
    const list = document.createElement("ul");
    for (const each of operation.parameters) {
      const item = document.createElement("li");
      item.append(made("code", each.name), ` (${each.in}${each.required ? ", required" : ""}) ${each.description ?? ""}`);
      list.append(item);
    }
    box.append(made("h3", "Parameters"), list);
  }
  for (const [kind, { schema }] of Object.entries(operation.requestBody?.content ?? {})) {
    const shown = made("pre", JSON.stringify(schema, null, 2), { tabIndex: 0, role: "region", ariaLabel: `${method} ${path}: ${kind}` });
    box.append(made("h3", `Body: ${kind}`), shown); // it scrolls, so it takes the focus
  }
  const answers = document.createElement("ul");
  for (const [status, { description }] of Object.entries(operation.responses)) answers.append(made("li", `${status}: ${description}`));
  box.append(made("h3", "Answers"), answers);
  return box;
}

const place = document.getElementById("operations");
const token = new URLSearchParams(location.hash.slice(1)).get("token");
const answer = await fetch("openapi.json", { headers: token ? { Authorization: `Bearer ${token}` } : {} });
if (answer.ok) {
  const { paths } = await answer.json();
  const all = Object.entries(paths).flatMap(([path, methods]) => Object.entries(methods).map(([method, operation]) => drawn(path, method, operation)));
  place.replaceChildren(...all);
} else document.getElementById("status").textContent = "Add #token=... to the address of this page.";

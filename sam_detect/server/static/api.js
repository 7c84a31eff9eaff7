// Requests to the server that gave this page, and what became of them.

// The token is after "#", so that it is in no address that a server or a log sees.
export const token = new URLSearchParams(location.hash.slice(1)).get("token");

/** An answer that was no success; `status` is 0 where there was no answer. */
export class Refused extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

/** The answer to a request: POST where there is a body, unless `method` says otherwise. */
export async function ask(path, body, { method, signal, headers: more } = {}) {
  const headers = { ...more, ...(token ? { Authorization: `Bearer ${token}` } : {}) };
  const options = { headers, signal, method: method ?? (body === undefined ? "GET" : "POST") };
  if (body instanceof Blob || body instanceof FormData) options.body = body;
  else if (body !== undefined) {
    options.body = JSON.stringify(body);
    headers["Content-Type"] = "application/json";
  }
  let answer;
  try {
    answer = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, "the server cannot be reached");
  }
  if (answer.ok) return answer;
  const problem = await answer.json().catch(() => ({}));
  throw new Refused(answer.status, problem.detail ?? `the server answered ${answer.status}`);
}

export const asJson = async (path, body, options) => (await ask(path, body, options)).json();

/** An address of this document for what an answer holds, such as an image; revoke it after use. */
export const asUrl = async (path, options) => URL.createObjectURL(await (await ask(path, undefined, options)).blob());

/** The protocols to open a WebSocket with: the second one carries the token, which no header can. */
export function socketProtocols() {
  if (!token) return ["sam-detect"];
  const bytes = String.fromCharCode(...new TextEncoder().encode(token));
  return ["sam-detect", `token.${btoa(bytes).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "")}`];
}

// The server: its models, a streamed answer, what the model saw.

/** An answer that is no answer: `status` of HTTP, 0 where the server could not be reached. */
export class Failed extends Error {
  constructor(status, message, retryAfter = null) {
    super(message);
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

async function call(path, key, body, signal) {
  const headers = key ? { Authorization: `Bearer ${key}` } : {};
  if (body) headers["Content-Type"] = "application/json";
  let response;
  try {
    const method = body ? "POST" : "GET";
    response = await fetch(path, { method, headers, body: body && JSON.stringify(body), signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Failed(0, "The server cannot be reached.");
  }
  if (response.ok) return response;
  const said = await response.json().catch(() => null);
  throw new Failed(response.status, said?.error?.message ?? `The server answered with status ${response.status}.`,
    response.headers.get("Retry-After"));
}

export async function models(key) {
  return (await (await call("/v1/models", key)).json()).data;
}

export async function look(key, model, messages) {
  return (await call("/v1/look", key, { model, messages })).json();
}

/** Yields {text}, and at the end {usage, finish}. */
export async function* chat(key, request, signal) {
  const body = { ...request, stream: true, stream_options: { include_usage: true } };
  const response = await call("/v1/chat/completions", key, body, signal);
  let usage = null, finish = null, complete = false;
  try {
    for await (const data of events(response.body)) {
      if (data === "[DONE]") { complete = true; break; }
      const chunk = JSON.parse(data);
      if (chunk.error) throw new Failed(500, chunk.error.message);
      usage = chunk.usage ?? usage;
      const choice = chunk.choices[0];
      finish = choice?.finish_reason ?? finish;
      if (choice?.delta.content) yield { text: choice.delta.content };
    }
  } catch (error) {
    if (error.name === "AbortError" || error instanceof Failed) throw error;
    throw new Failed(0, "The connection broke off.");
  }
  if (!complete) throw new Failed(0, "The connection broke off.");
  yield { usage, finish };
}

async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) if (part.startsWith("data: ")) yield part.slice(6);
  }
}

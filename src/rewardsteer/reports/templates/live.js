// The live page: connects only to the server that sent it.
(() => {
  const form = document.querySelector("form"), button = form.querySelector("[type=submit]");
  const message = document.querySelector("[data-message]");
  const inspector = mountInspector(document.querySelector("[data-inspector]"), []);
  const number = (name) => Number(form.elements[name].value);

  function asked() {
    const signal = form.elements.signal.value;
    return {
      prompt: form.elements.prompt.value, completion: form.elements.completion.value || null,
      method: form.elements.method.value, weight: number("weight"), max_tokens: number("max_tokens"),
      temperature: number("temperature"), seed: number("seed"),
      filter: signal ? { signal, threshold: number("threshold"), start: number("start") } : null,
    };
  }

  async function told(response) {
    let text = `The server answered ${response.status}.`;
    try {
      const body = await response.json();
      const detail = body.error ? body.error.message : body.detail;
      if (typeof detail === "string") text = detail;
      else if (Array.isArray(detail)) text = detail.map((one) => one.msg).join("; ");
    } catch { /* no JSON: the status must do */ }
    const wait = response.headers.get("Retry-After");
    return response.status === 429 && wait ? `${text} Try again in ${wait} s.` : text;
  }

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    button.disabled = true;
    message.textContent = "Scoring token by token …";
    try {
      const headers = { "Content-Type": "application/json" };
      if (form.elements.key?.value) headers.Authorization = `Bearer ${form.elements.key.value}`;
      const response = await fetch("/v1/inspect", { method: "POST", headers, body: JSON.stringify(asked()) });
      if (!response.ok) throw new Error(await told(response));
      const record = await response.json();
      record.label = `${record.method}: ${record.prompt.slice(-40)}${record.completion.slice(0, 40)}`;
      inspector.add(record);
      message.textContent = `${record.tokens.length} tokens.`;
    } catch (error) {
      message.textContent = error instanceof TypeError ? "The server cannot be reached." : error.message;
    } finally {
      button.disabled = false;
    }
  });
})();

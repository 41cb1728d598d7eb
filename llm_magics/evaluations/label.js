// The widget of lm.label. Texts come from data that is not trusted: every text is set as text, none
// as HTML.

// A kernel that is busy, or has stopped, is reported after this time.
const PATIENCE_MS = 3000;

function render({ model, el }) {
  let waiting = null; // the timer of the message, while the kernel saves a label
  const place = create("p", { className: "llm-place", textContent: model.get("place") });
  const bar = create("progress", { max: 1, value: 0, "aria-label": "Labelled items" });
  const count = create("span", { className: "llm-count", role: "status" });
  const head = create("div", { className: "llm-head" }, bar, count);
  const item = create("div", { className: "llm-item", tabIndex: 0, role: "region", "aria-label": "Item to label" });
  const question = create("p", { className: "llm-question", dir: "auto", textContent: model.get("question") });
  const buttons = create("div", { className: "llm-labels", role: "group", "aria-label": "Labels" });
  const skip = create("button", { type: "button", className: "llm-button" }, create("kbd", { textContent: "s" }), " skip");
  const undo = create("button", { type: "button", className: "llm-button" }, create("kbd", { textContent: "u" }), " undo");
  const retry = create("button", { type: "button", className: "llm-button", textContent: "show skipped items", hidden: true });
  const note = create("input", { type: "text", className: "llm-field llm-note", placeholder: "note (n), saved with the label", "aria-label": "Note", autocomplete: "off" });
  const more = create("div", { className: "llm-more" }, note, skip, undo, retry);
  const message = create("p", { className: "llm-message", role: "alert" });

  function send(kind, label) {
    const key = model.get("item").key;
    if (waiting !== null || (["label", "skip"].includes(kind) && !key)) return;
    waiting = setTimeout(() => say("The kernel is busy or has stopped. The last action is not saved yet."), PATIENCE_MS);
    el.setAttribute("aria-busy", "true");
    model.send({ kind, label, item: key, note: note.value });
  }

  function say(text) {
    setText(message, text);
    message.hidden = !text;
  }

  model.get("labels").forEach((text, number) => {
    const key = number < 9 ? [create("kbd", { textContent: String(number + 1) }), " "] : [];
    const button = create("button", { type: "button", className: "llm-button llm-label" }, ...key, text);
    button.addEventListener("click", () => send("label", number));
    buttons.append(button);
  });
  skip.addEventListener("click", () => send("skip"));
  undo.addEventListener("click", () => send("undo"));
  retry.addEventListener("click", () => send("retry"));

  function update() {
    const current = model.get("item");
    const { labelled = 0, skipped = 0, count: all = 0 } = model.get("progress");
    const hadFocus = el.contains(document.activeElement);
    clearTimeout(waiting);
    waiting = null;
    el.removeAttribute("aria-busy");
    bar.value = all ? (labelled + skipped) / all : 1;
    setText(count, `${labelled} of ${all} labelled${skipped ? `, ${skipped} skipped` : ""}`);
    say(model.get("message"));
    retry.hidden = Boolean(current.key) || !skipped;
    for (const button of [...buttons.children, skip]) button.disabled = !current.key;
    undo.disabled = !(labelled + skipped);
    if (item.dataset.key === (current.key ?? "") && message.textContent) return;
    item.dataset.key = current.key ?? "";
    note.value = "";
    const fields = current.fields ?? [];
    const parts = fields.flatMap(([name, text]) => [
      ...(fields.length > 1 ? [create("div", { className: "llm-name", textContent: name })] : []),
      create("div", { className: "llm-text", dir: "auto", textContent: text }),
    ]);
    item.replaceChildren(...(parts.length ? parts : [create("div", { textContent: all ? "All items are done." : "There are no items." })]));
    item.scrollTop = 0;
    // A disabled button loses the focus, and keys with it.
    if (hadFocus) item.focus({ preventScroll: true });
  }

  el.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
    if (event.target === note) {
      if (event.key === "Enter" || event.key === "Escape") item.focus();
      return;
    }
    // On some keyboards the digits need Shift.
    const digit = /^[1-9]$/.test(event.key) ? event.key : /^Digit([1-9])$/.exec(event.code)?.[1];
    const number = Number(digit ?? 0) - 1;
    if (event.key === "s") send("skip");
    else if (event.key === "u") send("undo");
    else if (event.key === "n") note.focus();
    else if (number >= 0 && number < buttons.children.length) send("label", number);
    else return;
    event.preventDefault();
  });

  message.dataset.error = "true";
  el.classList.add("llm-widget", "llm-labelling", "mathjax_ignore", "tex2jax_ignore");
  keepKeys(el);
  question.hidden = !question.textContent;
  el.append(head, place, item, question, buttons, more, message);
  update();
  model.on("change:turn", update);
  return () => {
    clearTimeout(waiting);
    model.off("change:turn", update);
  };
}

export default { render };

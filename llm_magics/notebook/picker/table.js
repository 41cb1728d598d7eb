// The table of the panel of %llm pick. Names of models and messages come from services, which are
// not trusted: every text is set as text, none as HTML.

const MARKS = { ok: "●", unavailable: "▲", missing: "○", asking: "…" };
const TITLES = {
  chat: "Chat models",
  embedding: "Embedding models",
  other: "Models for other tasks",
};
const ACTIONS = { pull: "pull", delete: "delete", embed: "use for embeddings" };

// A delete button that was pressed once is a delete button again after this time.
const ARMED_MS = 5000;
const PAGE = 10;

// A longer section would be slow to lay out; the search finds the rest of it.
const MAX_SHOWN = 500;

// The buttons of the providers; the one that is pressed selects the models of the table.
function createProviders(model) {
  const group = create("div", { className: "llm-chips", role: "group", "aria-label": "Provider" });
  const detail = create("p", { className: "llm-detail", role: "status" });

  function update() {
    const selected = model.get("provider");
    const providers = [{ name: "all", status: "" }, ...model.get("providers")];
    const focused = group.contains(document.activeElement) && document.activeElement.dataset.name;
    group.replaceChildren(
      ...providers.map((provider) => {
        const mark = create("span", { className: "llm-mark", "aria-hidden": "true" });
        mark.textContent = MARKS[provider.status] ?? "";
        mark.dataset.status = provider.status;
        const words = create("span", { className: "llm-hidden", textContent: `, ${provider.words}` });
        const button = create("button", {
          type: "button",
          className: "llm-button llm-chip",
          title: [provider.words, provider.detail].filter(Boolean).join(": "),
          "aria-pressed": String(provider.name === selected),
        });
        button.append(...(mark.textContent ? [mark] : []), provider.name, ...(provider.words ? [words] : []));
        button.dataset.name = provider.name;
        button.addEventListener("click", () => {
          model.set("provider", provider.name);
          model.save_changes();
        });
        return button;
      }),
    );
    if (focused) [...group.children].find((each) => each.dataset.name === focused)?.focus();
    const shown = providers.find((provider) => provider.name === selected);
    const parts = shown?.words ? [`${shown.name} is ${shown.words}`, shown.detail] : [];
    setText(detail, parts.filter(Boolean).join(": "));
  }
  return { elements: [group, detail], update };
}

// The name that could be pulled if no model matches what is typed, or "".
function pullable(model) {
  const typed = model.get("query").trim();
  const selected = model.get("provider");
  const providers = model.get("providers").filter((provider) => provider.pulls);
  if (!typed || /\s/.test(typed)) return "";
  const named = providers.find((provider) => typed.startsWith(`${provider.name}/`));
  if (named) return typed === `${named.name}/` ? "" : typed;
  return providers.some((provider) => provider.name === selected) ? `${selected}/${typed}` : "";
}

// One row of the table. The first button of a row is reached with the right arrow key or Tab.
function createRow(model, row, use, send) {
  const columns = model.get("columns");
  const cells = row.cells.map((text, number) => {
    const cell = create(number ? "td" : "th", number ? {} : { scope: "row" });
    if (model.get("numbers").includes(columns[number])) cell.className = "llm-number";
    cell.textContent = text;
    cell.title = text;
    return cell;
  });
  const tr = create("tr", { tabIndex: -1 }, ...cells);
  tr.dataset.use = use;
  tr.dataset.name = row.name;
  tr.row = row;
  tr.text = row.cells.join(" ").toLowerCase();
  tr.addEventListener("click", (event) => {
    if (!event.target.closest("button")) send({ kind: "use", use, model: row.name });
  });
  const actions = create("td", { className: "llm-actions" });
  for (const kind of row.actions) actions.append(createAction(kind, row, send));
  tr.append(actions);
  return tr;
}

function createAction(kind, row, send) {
  const label = ACTIONS[kind];
  const button = create("button", {
    type: "button",
    className: "llm-button",
    tabIndex: -1,
    textContent: label,
    "aria-label": `${label} ${row.cells[0]}`,
  });
  if (kind === "pull") button.addEventListener("click", () => send({ kind, model: row.name }));
  if (kind === "embed") {
    button.addEventListener("click", () => send({ kind: "use", use: "embedding", model: row.name }));
  }
  if (kind === "delete") makeCareful(button, row.cells[0], () => send({ kind, model: row.name }));
  return button;
}

// Call `act` on a second press that follows soon, before anything else is touched.
function makeCareful(button, name, act) {
  let timer = null;
  function disarm() {
    clearTimeout(timer);
    timer = null;
    button.textContent = "delete";
    button.setAttribute("aria-label", `delete ${name}`);
    button.classList.remove("llm-danger");
  }
  button.addEventListener("click", () => {
    if (timer !== null) {
      disarm();
      act();
      return;
    }
    timer = setTimeout(disarm, ARMED_MS);
    button.textContent = "really delete?";
    button.setAttribute("aria-label", `Really delete ${name}? Press again to delete it.`);
    button.classList.add("llm-danger");
    button.focus();
  });
  button.addEventListener("blur", disarm);
  button.addEventListener("keydown", (event) => {
    if (event.key === "Escape") disarm();
  });
}

// The table itself: its rows are created when the models change; a search only hides some of them.
function createTable(model, send) {
  const hint = create("p", {
    id: `llm-hint-${Math.random().toString(36).slice(2)}`,
    className: "llm-hint",
    textContent: "Click a row to use its model. Keys: ↑ ↓ move, Enter uses, → goes to the button of a row.",
  });
  const table = create("table", {
    role: "grid",
    "aria-label": "Models",
    "aria-describedby": hint.id,
  });
  const headers = [...model.get("columns"), "action"].map((text) => {
    const header = create("th", { scope: "col" });
    if (text === "action") header.append(create("span", { className: "llm-hidden", textContent: text }));
    else header.textContent = text;
    if (model.get("numbers").includes(text)) header.className = "llm-number";
    return header;
  });
  const head = create("thead", {}, create("tr", {}, ...headers));
  const scroller = create("div", { className: "llm-scroller" }, table);
  const empty = create("div", { className: "llm-empty" });
  let rows = [];
  let current = null;

  const isChosen = (tr) => tr.getAttribute("aria-selected") === "true";
  const visible = () => rows.filter((tr) => !tr.hidden);

  // Only the current row and its button are reached with Tab.
  function makeCurrent(tr) {
    if (current) for (const each of [current, ...current.querySelectorAll("button")]) each.tabIndex = -1;
    current = tr ?? null;
    if (current) for (const each of [current, ...current.querySelectorAll("button")]) each.tabIndex = 0;
  }

  function focus(tr) {
    if (!tr) return;
    makeCurrent(tr);
    tr.focus({ preventScroll: true });
    show(tr);
  }

  // Scroll only the table, not the notebook; the headers cover its top.
  function show(tr) {
    const covered = head.offsetHeight + (tr.parentElement.rows[0]?.offsetHeight ?? 0);
    const top = tr.offsetTop - covered;
    const bottom = tr.offsetTop + tr.offsetHeight - scroller.clientHeight;
    if (scroller.scrollTop > top) scroller.scrollTop = top;
    else if (scroller.scrollTop < bottom) scroller.scrollTop = bottom;
  }

  function moved(key, from) {
    const all = visible();
    const index = all.indexOf(from);
    const targets = {
      ArrowDown: index + 1,
      ArrowUp: index - 1,
      PageDown: index + PAGE,
      PageUp: index - PAGE,
      Home: 0,
      End: all.length - 1,
    };
    return key in targets ? all[Math.min(Math.max(targets[key], 0), all.length - 1)] : null;
  }

  table.addEventListener("keydown", (event) => {
    const tr = event.target.closest("tr");
    if (!tr?.row || event.ctrlKey || event.metaKey || event.altKey) return;
    const isRow = event.target === tr;
    const target = moved(event.key, tr);
    if (target) focus(target);
    else if (event.key === "ArrowRight" && isRow) tr.querySelector("button")?.focus();
    else if (event.key === "ArrowLeft" && !isRow) focus(tr);
    else if (isRow && (event.key === "Enter" || event.key === " ")) tr.click();
    else return;
    event.preventDefault();
  });
  table.addEventListener("focusin", (event) => makeCurrent(event.target.closest("tr")));

  function build() {
    const focused = table.contains(document.activeElement) ? current : null;
    const top = scroller.scrollTop;
    const sections = Object.keys(TITLES).map((use) => {
      const title = create("th", { scope: "rowgroup", colSpan: headers.length });
      const own = model.get("rows").filter((row) => row.uses.includes(use));
      const body = create("tbody", {}, create("tr", { className: "llm-section" }, title));
      body.dataset.use = use;
      body.append(...own.map((row) => createRow(model, row, use, send)));
      return body;
    });
    table.replaceChildren(head, ...sections);
    rows = sections.flatMap((body) => [...body.rows].slice(1));
    current = null;
    mark();
    filter();
    scroller.scrollTop = top;
    if (focused) focus(visible().find((tr) => isSame(tr, focused)) ?? visible()[0]);
  }

  const isSame = (a, b) => a.dataset.name === b.dataset.name && a.dataset.use === b.dataset.use;

  function filter() {
    const words = model.get("query").toLowerCase().split(/\s+/).filter(Boolean);
    const provider = model.get("provider");
    const matches = (tr) =>
      (provider === "all" || tr.row.provider === provider) &&
      words.every((word) => tr.text.includes(word));
    for (const body of table.tBodies) {
      const own = [...body.rows].slice(1);
      const matching = own.filter(matches);
      const shown = new Set(matching.filter((tr, index) => index < MAX_SHOWN || isChosen(tr)));
      for (const tr of own) tr.hidden = !shown.has(tr);
      body.hidden = !shown.size;
      const more = matching.length - shown.size;
      setText(body.rows[0].cells[0], TITLES[body.dataset.use] + (more ? `, ${more} more: search to see them` : ""));
    }
    const shown = visible();
    const count = new Set(rows.filter(matches).map((tr) => tr.dataset.name)).size;
    scroller.hidden = hint.hidden = !count;
    if (!current || current.hidden) {
      makeCurrent(shown.find(isChosen) ?? shown[0]);
    }
    explainEmpty(count);
    return count;
  }

  function mark() {
    const chosen = model.get("chosen");
    for (const tr of rows) {
      const isInUse = chosen[tr.dataset.use]?.name === tr.dataset.name;
      tr.setAttribute("aria-selected", String(isInUse));
    }
  }

  function explainEmpty(count) {
    empty.hidden = count > 0;
    if (count) return;
    const name = model.get("provider");
    const provider = model.get("providers").find((each) => each.name === name);
    const query = model.get("query").trim();
    const reason = query
      ? `No model matches “${query}”.`
      : provider?.status === "asking"
        ? `Waiting for ${name} …`
        : name === "all"
          ? "No provider lists a model."
          : `${name} lists no models.`;
    const pull = pullable(model);
    const button = create("button", { type: "button", className: "llm-button" });
    button.textContent = `pull ${pull}`;
    button.addEventListener("click", () => send({ kind: "pull", model: pull }));
    const pulling = model.get("providers").filter((each) => each.pulls && each.status === "ok");
    const isName = query && !/\s/.test(query) && pulling.length;
    const how = isName ? `To download it, type its provider too, as in ${pulling.at(-1).name}/${query}.` : "";
    if (empty.dataset.text === reason + how + pull) return; // the button may have the focus
    empty.dataset.text = reason + how + pull;
    empty.replaceChildren(create("p", { textContent: reason }), pull ? button : how);
  }

  // The chosen model is in sight when the panel opens.
  function showChosen() {
    const chosen = visible().find(isChosen);
    if (chosen && scroller.clientHeight) show(chosen);
  }

  // Go to the models of a use: to the chosen one, or to the first.
  function focusSection(use) {
    const own = visible().filter((tr) => tr.dataset.use === use);
    focus(own.find(isChosen) ?? own[0]);
  }

  const focusFirst = () => focus(visible()[0]);
  const elements = [scroller, empty, hint];
  return { elements, build, filter, mark, focusFirst, focusSection, showChosen };
}

// The search field, the number of models that match, and the button that asks the providers again.
function createSearch(model, send, focusTable) {
  const input = create("input", {
    type: "search",
    className: "llm-field",
    placeholder: "name, capability, loaded, free …",
    "aria-label": "Search models",
    autocomplete: "off",
    spellcheck: false,
  });
  const count = create("span", { className: "llm-count", role: "status" });
  const refresh = create("button", { type: "button", className: "llm-button", textContent: "refresh" });
  refresh.addEventListener("click", () => send({ kind: "refresh" }));
  input.addEventListener("input", () => {
    model.set("query", input.value);
    model.save_changes();
  });
  input.addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown" || event.key === "Enter") {
      event.preventDefault();
      focusTable();
    } else if (event.key === "Escape" && input.value) {
      event.preventDefault();
      input.value = "";
      input.dispatchEvent(new Event("input"));
    }
  });
  function update(shown) {
    if (input.value !== model.get("query")) input.value = model.get("query");
    const models = new Set(model.get("rows").map((row) => row.name)).size;
    const none = model.get("query").trim() ? "no match" : "no models";
    const some = shown === models ? `${models} models` : `${shown} of ${models} models`;
    setText(count, shown ? some : none);
  }
  const line = create("div", { className: "llm-search" }, input, count, refresh);
  return { elements: [line], update, focus: () => input.focus() };
}

// The models in use, one for chat and one for embeddings, as buttons that lead to them.
function createChosen(model, focusSection) {
  const line = create("div", { className: "llm-chosen", role: "group", "aria-label": "Models in use" });
  const names = {};
  for (const [use, label] of [["chat", "chat"], ["embedding", "embeddings"]]) {
    names[use] = create("b");
    const button = create("button", { type: "button", className: "llm-link" }, `${label} `, names[use]);
    button.title = `Go to the models for ${label}`;
    button.addEventListener("click", () => focusSection(use));
    line.append(button);
  }
  const status = create("span", { className: "llm-hidden", role: "status" });
  function update() {
    const chosen = model.get("chosen");
    for (const [use, element] of Object.entries(names)) setText(element, chosen[use]?.label ?? "");
    setText(status, `Using ${names.chat.textContent} and ${names.embedding.textContent}`);
  }
  return { elements: [line, status], update };
}

// The progress of a pull or delete with a button to cancel it, and the last message.
function createWork(model, send, focusSearch) {
  const bar = create("progress", { max: 1, "aria-label": "Progress" });
  const text = create("span", {});
  const cancel = create("button", { type: "button", className: "llm-button", textContent: "cancel" });
  cancel.addEventListener("click", () => send({ kind: "cancel" }));
  const task = create("div", { className: "llm-task", hidden: true }, bar, text, cancel);
  const message = create("p", { className: "llm-message", role: "status" });
  function update() {
    const running = model.get("task");
    if (!running.text && task.contains(document.activeElement)) focusSearch();
    task.hidden = !running.text;
    setText(text, running.text ?? "");
    if (typeof running.fraction === "number") bar.value = running.fraction;
    else bar.removeAttribute("value");
    const said = model.get("message");
    setText(message, said.text ?? "");
    message.dataset.error = String(Boolean(said.error));
  }
  return { elements: [task, message], update };
}

function render({ model, el }) {
  const send = (content) => model.send(content);
  const providers = createProviders(model);
  const table = createTable(model, send);
  const search = createSearch(model, send, table.focusFirst);
  const chosen = createChosen(model, table.focusSection);
  const work = createWork(model, send, search.focus);
  const parts = [providers, chosen, search, table, work];
  el.classList.add("llm-pick", "mathjax_ignore", "tex2jax_ignore");
  keepKeys(el);
  el.append(...parts.flatMap((part) => part.elements));

  const filter = () => search.update(table.filter());
  const updateProviders = () => {
    providers.update();
    filter();
  };
  const listeners = {
    "change:rows": () => {
      table.build();
      filter();
    },
    "change:provider": updateProviders,
    "change:providers": updateProviders,
    "change:query": filter,
    "change:chosen": () => {
      chosen.update();
      table.mark();
    },
    "change:task": work.update,
    "change:message": work.update,
  };
  for (const update of [providers.update, chosen.update, table.build, filter, work.update]) update();
  for (const [event, listener] of Object.entries(listeners)) model.on(event, listener);
  requestAnimationFrame(table.showChosen);
  return () => {
    for (const [event, listener] of Object.entries(listeners)) model.off(event, listener);
  };
}

export default { render };

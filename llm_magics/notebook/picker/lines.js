// The lines of code with the same effect as the panel, and a button that copies them.

const SHOWN_MS = 1500;

function render({ model, el }) {
  const code = document.createElement("code");
  const button = document.createElement("button");
  button.type = "button";
  button.className = "llm-button";
  button.textContent = "copy";
  button.setAttribute("aria-label", "copy the lines");
  const status = document.createElement("span");
  status.className = "llm-hidden";
  status.setAttribute("role", "status");

  const update = () => {
    code.textContent = model.get("lines").join("\n");
  };
  button.addEventListener("click", async () => {
    const done = (await copied(code)) ? "copied" : "press Ctrl+C";
    button.textContent = done;
    status.textContent = done;
    setTimeout(() => {
      button.textContent = "copy";
      status.textContent = "";
    }, SHOWN_MS);
  });

  el.classList.add("llm-lines", "mathjax_ignore", "tex2jax_ignore");
  button.dataset.lmSuppressShortcuts = "true"; // else "x" cuts the cell
  el.append(code, button, status);
  update();
  model.on("change:lines", update);
  return () => model.off("change:lines", update);
}

// Browsers offer the clipboard only to pages from https or this machine; elsewhere select the text.
async function copied(code) {
  try {
    await navigator.clipboard.writeText(code.textContent);
    return true;
  } catch {
    window.getSelection().selectAllChildren(code);
    return false;
  }
}

export default { render };

// Shared by the widgets: it stands before the script of each.

function create(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in element) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

// Set a text only if it differs: screen readers read each change aloud.
function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// Keep the shortcuts of the notebook from acting: "x" on a widget would cut the cell. JupyterLab
// looks for the attribute on the focused element before it looks at the others.
function keepKeys(el) {
  el.addEventListener("focusin", (event) => {
    event.target.dataset.lmSuppressShortcuts = "true";
  });
  el.addEventListener("keydown", (event) => {
    if (!event.ctrlKey && !event.metaKey) event.stopPropagation();
  });
}

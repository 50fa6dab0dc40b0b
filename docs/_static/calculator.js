// The formulas of qwen_course/memory.py; the factors of each model come with the page.
"use strict";
const GIB = 2 ** 30;
const { models, precisions } = JSON.parse(
  document.getElementById("memory-data").textContent,
);

// In bytes, as qc.memory.estimate(model, precision, context, batch) counts them.
function estimate(model, precision, context, batch) {
  const size = models[model];
  const kind = precisions[precision];
  const weights = Math.ceil(
    (size.tables * kind.tables + size.layers * kind.layers) / 8,
  );
  const cache = batch * (context * size.cache * kind.cache + size.state);
  const activations =
    batch * context * (size.rows * kind.cache + kind.product * size.product);
  return {
    weights,
    "KV cache": cache,
    activations,
    total: weights + cache + activations,
  };
}

const gib = (bytes) =>
  bytes >= GIB / 10
    ? `${(bytes / GIB).toFixed(2)} GiB`
    : `${(bytes / 2 ** 20).toFixed(1)} MiB`;

{
  const form = document.getElementById("calculator");
  const says = document.getElementById("calculator-says");
  const bar = document.getElementById("calculator-bar");
  const rows = document.querySelector("#calculator-parts tbody");

  const row = ([part, bytes]) => {
    const line = document.createElement("tr");
    line.innerHTML = '<th scope="row"></th><td></td><td></td>';
    line.cells[0].textContent = part;
    line.cells[1].textContent = gib(bytes);
    line.cells[2].textContent = bytes.toLocaleString("en");
    return line;
  };

  const piece = ([part, bytes], total) => {
    const block = document.createElement("span");
    block.style.flexGrow = bytes / total;
    block.textContent = bytes / total > 0.12 ? part : "";
    return block;
  };

  const show = () => {
    if (!form.checkValidity()) {
      const wrong = form.querySelector(":invalid");
      const name = wrong.parentElement.firstChild.textContent.trim();
      says.textContent = `${name}: ${wrong.validationMessage}`;
      return;
    }
    const { model, precision, context, batch, memory } = Object.fromEntries(
      new FormData(form),
    );
    const parts = estimate(model, precision, Number(context), Number(batch));
    const left = Number(memory) * GIB - parts.total;
    const { why } = form.elements.precision.selectedOptions[0].dataset;
    says.textContent =
      `${model} in ${precision} (${why}) takes ${gib(parts.total)}. ` +
      (left >= 0 ? `It fits: ${gib(left)} are left.` : `It is ${gib(-left)} too large.`);
    const all = Object.entries(parts);
    rows.replaceChildren(...all.map(row));
    bar.replaceChildren(...all.slice(0, -1).map((part) => piece(part, parts.total)));
  };

  // The catalogue leads here with a name: calculator.html#Qwen3-8B.
  const choose = () => {
    const name = decodeURIComponent(location.hash.slice(1));
    if (name in models) form.elements.model.value = name;
    show();
  };

  form.addEventListener("input", show);
  form.addEventListener("submit", (event) => event.preventDefault());
  addEventListener("hashchange", choose);
  choose();
}

"use strict";
// The cases of a report: a list that is filtered and sorted, and a view of one case. It runs from a
// file on a disk: data are in the page, or handed over by scripts that lie in a folder beside it.
const promptsegCases = (() => {
  const PER_PAGE = 50, PER_FILE = 100, SVG = "http://www.w3.org/2000/svg";
  const root = document.getElementById("case-list");
  const form = root.querySelector("form"), dialog = root.querySelector("dialog");
  const head = root.querySelector("thead"), body = root.querySelector("tbody");
  const folder = root.dataset.folder;
  const OUTCOMES = ["ok", "miss", "failed"];
  const MEASURES = [["dice", "DICE", 3], ["hd95", "HD95", 1], ["nsd", "NSD", 3], ["predicted_iou", "predicted IoU", 3]];
  let data, details = [], pictures = {}, order = [], page = 0, open = null, opener = null;
  const layers = { reference: true, a: true, b: true, prompt: true, "prompt-b": true };
  const waiting = {};

  // elements: text is always text, whatever names the user's files have
  function make(tag, attributes = {}, ...children) {
    const node = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    node.append(...children);
    return node;
  }
  function draw(tag, attributes, ...children) {
    const node = document.createElementNS(SVG, tag);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    node.append(...children);
    return node;
  }
  const shown = (value, digits) => value === null || value === undefined ? "–" : value.toFixed(digits);
  const signed = value => value === null ? "–" : (value < 0 ? "−" : "+") + Math.abs(value).toFixed(3);
  const thin = number => String(number).replace(/\B(?=(\d{3})+$)/g, "\u00a0");
  const plural = (number, noun) => `${thin(number)} ${noun}${number === 1 ? "" : "s"}`;
  const field = name => form.elements.namedItem(name);

  function fill(name, options) {
    field(name).replaceChildren(...options.map(([value, text]) => make("option", { value }, text)));
  }
  function begin(columns) {
    data = columns;
    const answers = data.answers.map((one, i) => [i, one.label + (one.off ? " † off-protocol" : "")]);
    fill("a", answers);
    fill("b", [["", "nothing"], ...answers]);
    fill("task", [["", "all"], ...data.tasks.map((name, i) => [i, name])]);
    fill("dataset", [["", "all"], ...data.datasets.map((name, i) => [i, name])]);
    fill("outcome", [["", "all"], [0, "ok"], [1, "miss: no mask"], [2, "failed: not scored"], ["low", "DICE below 0.5"]]);
    fill("attribute", [["", "any"], ["dice", "DICE"], ["iou", "predicted IoU"], ...data.attributes.map((name, i) => [i, name])]);
    fill("sort", [
      ["worst", "DICE, lowest first"], ["best", "DICE, highest first"],
      ["behind", "difference, furthest behind first"], ["ahead", "difference, furthest ahead first"],
      ["sure", "predicted IoU, highest first"], ["name", "image"],
      ...data.attributes.flatMap((name, i) => [[`up${i}`, `${name}, lowest first`], [`down${i}`, `${name}, highest first`]]),
    ]);
    field("a").value = data.lead;
    root.hidden = false;
    restore();
  }

  // values of a case: null where there is none
  const value = (measure, answer, i) => answer === "" ? null : data[measure][answer][i];
  function difference(i) {
    const a = value("dice", field("a").value, i), b = value("dice", field("b").value, i);
    return a === null || b === null ? null : a - b;
  }
  function attribute(i) {
    const name = field("attribute").value, a = field("a").value;
    if (name === "dice") return value("dice", a, i);
    if (name === "iou") return value("predicted_iou", a, i);
    return name === "" ? null : data.values[name][i];
  }
  function passes(i) {
    const a = field("a").value, text = field("text").value.trim().toLowerCase();
    const outcome = data.outcome[a][i];
    if (outcome < 0) return false;
    for (const name of ["task", "dataset"])
      if (field(name).value !== "" && data[name][i] !== Number(field(name).value)) return false;
    const asked = field("outcome").value;
    if (asked === "low" && !(data.dice[a][i] !== null && data.dice[a][i] < 0.5)) return false;
    if (asked !== "" && asked !== "low" && outcome !== Number(asked)) return false;
    if (text && !`${data.image[i]}\n${data.subject[i] ?? ""}`.toLowerCase().includes(text)) return false;
    if (field("attribute").value !== "") {
      const own = attribute(i), from = field("from").value, to = field("to").value;
      if ((from !== "" || to !== "") && own === null) return false;
      if (from !== "" && own < Number(from)) return false;
      if (to !== "" && own > Number(to)) return false;
    }
    return true;
  }
  function sorting() {
    const how = field("sort").value, a = field("a").value;
    const by = {
      worst: [i => value("dice", a, i), 1], best: [i => value("dice", a, i), -1],
      behind: [difference, 1], ahead: [difference, -1],
      sure: [i => value("predicted_iou", a, i), -1], name: [i => data.image[i], 1],
    }[how] ?? [i => data.values[Number(how.replace(/\D+/, ""))][i], how.startsWith("up") ? 1 : -1];
    const [of, sign] = by;
    return (i, j) => {  // what has no value comes last
      const x = of(i), y = of(j);
      if (x === null || y === null) return (x === null) - (y === null) || i - j;
      return (x < y ? -sign : x > y ? sign : 0) || i - j;
    };
  }
  function list(keepPage) {
    order = data.image.map((_, i) => i).filter(passes).sort(sorting());
    page = keepPage ? Math.min(page, Math.max(0, Math.ceil(order.length / PER_PAGE) - 1)) : 0;
    const subjects = new Set(order.map(i => data.subject[i] === null ? null : `${data.dataset[i]}\n${data.subject[i]}`));
    const unknown = subjects.delete(null);
    const asked = data.outcome[field("a").value].filter(one => one >= 0).length;
    const who = subjects.size ? `, ${unknown ? "at least " : ""}${plural(subjects.size, "subject")}` : "";
    root.querySelector(".found").textContent =
      `${thin(order.length)} of ${plural(asked, "target")}${who}.` + (order.length ? "" : " Nothing passes these filters: Show all takes them away.");
    table();
  }
  function table() {
    const a = field("a").value, b = field("b").value, extra = field("attribute");
    const named = extra.value !== "" && !["dice", "iou"].includes(extra.value);
    const columns = ["Image", "Task", "Subject", "Outcome", "DICE", ...(b === "" ? [] : ["DICE of the other", "Difference"]), "Predicted IoU"];
    if (named) columns.push(extra.selectedOptions[0].text);
    head.replaceChildren(make("tr", {}, ...columns.map((name, k) => make("th", k < 4 ? { scope: "col", class: "left" } : { scope: "col" }, name))));
    const from = page * PER_PAGE, rows = order.slice(from, from + PER_PAGE);
    body.replaceChildren(...rows.map((i, k) => {
      const button = make("button", { type: "button", class: "open" }, data.image[i]);
      const cells = [
        make("th", { scope: "row" }, button),
        make("td", { class: "left" }, data.tasks[data.task[i]]),
        make("td", { class: "left" }, data.subject[i] ?? "unknown"),
        make("td", { class: "left" }, OUTCOMES[data.outcome[a][i]]),
        make("td", {}, shown(data.dice[a][i], 3)),
      ];
      if (b !== "") cells.push(make("td", {}, shown(data.dice[b][i], 3)), make("td", {}, signed(difference(i))));
      cells.push(make("td", {}, shown(data.predicted_iou[a][i], 3)));
      if (named) cells.push(make("td", {}, String(attribute(i) ?? "–")));
      const row = make("tr", { "data-case": i }, ...cells);
      row.addEventListener("click", () => show(from + k, button));
      return row;
    }));
    const pages = Math.max(1, Math.ceil(order.length / PER_PAGE)), bar = root.querySelector(".pages");
    bar.hidden = pages === 1;
    bar.querySelector("span").textContent = `Page ${page + 1} of ${pages}`;
    bar.querySelector("[name=back]").disabled = page === 0;
    bar.querySelector("[name=on]").disabled = page === pages - 1;
  }

  // one case
  function detail(i) {
    if (!folder) return Promise.resolve(details[i]);
    const number = Math.floor(i / PER_FILE);
    waiting[number] ??= new Promise((done, fail) => {
      const script = make("script", { src: `${encodeURIComponent(folder)}/details-${number}.js` });
      script.addEventListener("load", done);
      script.addEventListener("error", () => { delete waiting[number]; fail(); });
      document.head.append(script);
    });
    return waiting[number].then(() => details[i], () => ({ remark: `The folder ${folder} is not beside this page: the pictures are in it.` }));
  }
  const picture = name => folder ? `${encodeURIComponent(folder)}/${name}` : pictures[name];
  function show(position, from) {
    if (from) opener = from;
    open = position;
    const i = order[position];
    root.querySelector(".place").textContent = `${thin(position + 1)} of ${thin(order.length)}`;
    dialog.querySelector("[name=previous]").disabled = position === 0;
    dialog.querySelector("[name=next]").disabled = position === order.length - 1;
    if (!dialog.open) dialog.showModal();
    if (!dialog.contains(document.activeElement)) dialog.querySelector("[name=close]").focus();
    dialog.querySelector("h3").textContent = `${data.tasks[data.task[i]]}: ${data.image[i]}`;
    detail(i).then(one => { if (open === position) paint(i, one ?? {}); });
    remember();
  }
  function paint(i, one) {
    const view = dialog.querySelector(".view");
    const a = Number(field("a").value), b = field("b").value === "" ? null : Number(field("b").value);
    view.replaceChildren();
    if (one.remark || !one.reference) view.append(make("p", { class: "nothing" }, one.remark ?? "There is no picture of this case."));
    else view.append(svg(i, one, a, b));
    paintLayers(i, one, b);
    dialog.querySelector(".told").replaceChildren(...answers(i, one), facts(i));
  }
  function svg(i, one, a, b) {
    const [x0, y0, x1, y1] = one.window, [width, height] = one.size;
    const title = `${data.tasks[data.task[i]]} in ${data.image[i]}, DICE ${shown(data.dice[a][i], 3)}`;
    const image = draw("svg", { viewBox: `${x0} ${y0} ${x1 - x0} ${y1 - y0}`, role: "img", "aria-label": title });
    const box = { x: 0, y: 0, width, height, preserveAspectRatio: "none" };
    if (one.picture) image.append(draw("image", { ...box, href: picture(one.picture) }));
    if (one.crop) image.append(draw("image", { x: x0, y: y0, width: x1 - x0, height: y1 - y0, preserveAspectRatio: "none", href: picture(one.crop) }));
    if (Math.max(x1 - x0, y1 - y0) <= 96) for (const node of image.children) node.classList.add("few-pixels");
    const path = (d, kind) => d && image.append(draw("path", { class: "halo", d }), draw("path", { class: kind, d }));
    if (layers.reference) path(one.reference, "reference");
    for (const [key, answer] of [["b", b], ["a", a]]) {
      const mask = answer === null ? null : one.answers[answer]?.[0];
      if (layers[key] && mask !== null && mask !== undefined) {
        if (key === "a" && one.paths[mask]) image.append(draw("path", { class: "tint", d: one.paths[mask] }));
        path(one.paths[mask], key === "a" ? "prediction" : "other");
      }
    }
    if (one.candidate !== undefined) path(one.paths[one.candidate], "candidate");
    const r = Math.max(x1 - x0, y1 - y0) * 0.016;
    if (layers["prompt-b"] && differs(one, a, b)) paintPrompt(image, promptOf(one, b), r, " of-b");
    if (layers.prompt) paintPrompt(image, promptOf(one, a), r, "");
    return image;
  }
  const promptOf = (one, answer) => answer === null ? undefined : one.prompts?.[one.answers?.[answer]?.[1]];
  function differs(one, a, b) {  // another strategy, or moved: each answer has a prompt of its own
    const other = promptOf(one, b);
    return other !== undefined && JSON.stringify(other) !== JSON.stringify(promptOf(one, a));
  }
  function paintPrompt(image, prompt, r, whose) {
    if (!prompt) return;
    if (prompt.box) {
      const [l, t, right, u] = prompt.box, at = { x: l, y: t, width: right - l, height: u - t };
      image.append(draw("rect", { class: "halo", ...at }), draw("rect", { class: `box${whose}`, ...at }));
    }
    for (const [x, y, positive] of prompt.clicks)
      image.append(draw("g", { class: `click ${positive ? "positive" : "negative"}${whose}`, transform: `translate(${x} ${y}) scale(${r})` },
        draw("circle", { class: "plate", r: 1 }), draw("path", { class: "sign", d: `M-.55 0H.55${positive ? "M0-.55V.55" : ""}` })));
  }
  function paintLayers(i, one, b) {
    const named = [["reference", "reference (solid)"], ["a", `prediction of ${data.answers[field("a").value].label} (dashed)`]];
    if (b !== null) named.push(["b", `prediction of ${data.answers[b].label} (dotted)`]);
    const a = Number(field("a").value);
    if (differs(one, a, b)) named.push(["prompt", `prompt of ${data.answers[a].label}`], ["prompt-b", `prompt of ${data.answers[b].label} (dotted)`]);
    else named.push(["prompt", b === null ? "prompt" : promptOf(one, b) ? "prompt, the same of both" : `prompt of ${data.answers[a].label}`]);
    const boxes = named.map(([key, text]) => {
      const input = make("input", { type: "checkbox", name: `layer-${key}` });
      input.checked = layers[key];
      input.addEventListener("change", () => {
        layers[key] = input.checked;
        dialog.querySelector(".view").replaceChildren(...(one.reference ? [svg(i, one, Number(field("a").value), b)] : []));
      });
      return make("label", { class: `key-${key}` }, input, make("span", {}, text));
    });
    const set = dialog.querySelector(".layers");
    set.replaceChildren(make("legend", {}, "Lines"), ...boxes);
    if (one.others?.length) {
      const choose = make("select", { name: "candidate" }, make("option", { value: "" }, "none"),
        ...one.others.map(([label, mask]) => make("option", { value: mask }, label)));
      choose.addEventListener("change", () => {
        one.candidate = choose.value === "" ? undefined : Number(choose.value);
        dialog.querySelector(".view").replaceChildren(svg(i, one, Number(field("a").value), b));
      });
      one.candidate = undefined;
      set.append(make("label", {}, "another candidate ", choose));
    }
  }
  function answers(i, one) {
    const current = Number(field("a").value), other = field("b").value === "" ? -1 : Number(field("b").value);
    const first = k => k === current ? 0 : k === other ? 1 : 2;  // what is looked at stands first
    const rows = data.answers.map((answer, k) => [answer, k]).filter(([, k]) => data.outcome[k][i] >= 0)
      .sort(([, k], [, l]) => first(k) - first(l) || k - l);
    const lines = rows.map(([answer, k]) => {
      const button = make("button", { type: "button", class: "open", "aria-pressed": k === current }, answer.label + (answer.off ? " †" : ""));
      button.addEventListener("click", () => { choose(k, i); });
      return make("tr", k === current ? { class: "current" } : {}, make("th", { scope: "row" }, button),
        make("td", { class: "left" }, OUTCOMES[data.outcome[k][i]]),
        ...MEASURES.map(([name, , digits]) => make("td", {}, shown(data[name][k][i], digits))));
    });
    const unit = data.unit[i] ? ` (${data.unit[i]})` : "";
    const titles = ["Answered by", "Outcome", ...MEASURES.map(([name, title]) => title + (name === "hd95" ? unit : ""))];
    const made = [make("div", { class: "scroll", role: "region", "aria-label": "All answers to this case", tabindex: "0" },
      make("table", {}, make("thead", {}, make("tr", {}, ...titles.map((title, k) => make("th", { scope: "col", ...(k < 2 ? { class: "left" } : {}) }, title)))),
        make("tbody", {}, ...lines)))];
    for (const k of [other, current]) {
      if (k < 0) continue;
      const why = data.why[k][i], label = data.answers[k].label;
      if (data.outcome[k][i] < 0) made.unshift(make("p", { class: "soft" }, `${label} was not asked here.`));
      else if (why >= 0) made.unshift(make("p", { class: "banner" }, `${label}: ${data.reasons[why]}`));
      else if (one.answers && one.answers[k]?.[0] == null && data.outcome[k][i] === 0)
        made.unshift(make("p", { class: "soft" }, `The mask of ${label} was not saved.`));
    }
    return made;
  }
  function choose(k, i) {
    field("a").value = k;
    list(true);
    const position = order.indexOf(i);
    if (position >= 0) show(position);
    else { open = null; dialog.close(); }
    dialog.querySelector(".told tr.current button")?.focus();
  }
  function facts(i) {
    const told = [["subject", data.subject[i] ?? "unknown"], ["data set", data.datasets[data.dataset[i]]], ["target", data.target[i]],
      ...data.attributes.map((name, k) => [name, data.values[k][i] ?? "–"])];
    return make("dl", { class: "facts" }, ...told.flatMap(([name, text]) => [make("dt", {}, name), make("dd", {}, String(text))]));
  }
  function step(by) {
    const next = open + by;
    if (open === null || next < 0 || next >= order.length) return;
    if (Math.floor(next / PER_PAGE) !== page) { page = Math.floor(next / PER_PAGE); table(); }
    opener = body.querySelector(`[data-case="${order[next]}"] button`);
    show(next);
  }

  // the address keeps the view
  function remember() {
    const kept = new URLSearchParams();
    for (const one of form.elements)
      if (one.name && one.value !== "" && !(one.name === "a" && Number(one.value) === data.lead) && !(one.name === "sort" && one.value === "worst")) kept.set(one.name, one.value);
    if (open !== null) kept.set("case", data.target[order[open]]);
    const words = kept.toString();
    history.replaceState(null, "", words ? `#cases&${words}` : "#cases");
  }
  function restore() {
    const asked = location.hash.startsWith("#cases&") ? new URLSearchParams(location.hash.slice(7)) : null;
    for (const [name, text] of asked ?? []) {
      const one = field(name);
      if (one && (one.tagName !== "SELECT" || [...one.options].some(option => option.value === text))) one.value = text;
    }
    list(false);
    if (!asked) return;
    document.getElementById("cases").scrollIntoView();
    const position = order.findIndex(i => data.target[i] === asked.get("case"));
    if (position < 0) return;
    page = Math.floor(position / PER_PAGE);
    table();
    show(position, body.querySelector(`[data-case="${order[position]}"] button`));
  }

  form.addEventListener("input", () => { list(false); remember(); });
  form.addEventListener("submit", event => event.preventDefault());
  form.addEventListener("reset", event => {
    event.preventDefault();
    for (const one of form.elements) if (one.name) one.value = one.name === "a" ? data.lead : one.name === "sort" ? "worst" : "";
    list(false);
    remember();
  });
  root.querySelector(".pages").addEventListener("click", event => {
    if (event.target.name) { page += event.target.name === "on" ? 1 : -1; table(); body.querySelector("button")?.focus(); }
  });
  body.addEventListener("keydown", event => {
    const by = { ArrowDown: 1, j: 1, ArrowUp: -1, k: -1 }[event.key];
    const row = event.target.closest("tr"), next = by && (by > 0 ? row.nextElementSibling : row.previousElementSibling);
    if (next) { event.preventDefault(); next.querySelector("button").focus(); }
  });
  dialog.addEventListener("click", event => {
    const name = event.target.name;
    if (name === "close" || event.target === dialog) dialog.close();
    if (name === "previous") step(-1);
    if (name === "next") step(1);
  });
  document.addEventListener("keydown", event => {
    if (!dialog.open || event.ctrlKey || event.metaKey || event.altKey) return;
    if (["SELECT", "INPUT"].includes(event.target.tagName) && event.key.startsWith("Arrow")) return;
    const by = { ArrowRight: 1, ArrowDown: 1, j: 1, ArrowLeft: -1, ArrowUp: -1, k: -1 }[event.key];
    if (by) { event.preventDefault(); step(by); }
  });
  dialog.addEventListener("close", () => { open = null; remember(); opener?.isConnected ? opener.focus() : body.querySelector("button")?.focus(); });

  const read = id => JSON.parse(document.getElementById(id).textContent);
  if (!folder) {
    details = read("case-details");
    pictures = read("case-pictures");
    begin(read("case-columns"));
  }
  return { begin, take: (number, some) => some.forEach((one, k) => { details[number * PER_FILE + k] = one; }) };
})();

// Points in time → a small line, as SVG, with its newest value and its scale in words beside it.

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 300, HEIGHT = 100;

export const size = (bytes) => {
  const units = ["bytes", "kB", "MB", "GB", "TB"];
  let value = bytes, unit = 0;
  while (Math.abs(value) >= 1024 && unit < units.length - 1) { value /= 1024; unit += 1; }
  return `${unit && Math.abs(value) < 10 ? value.toFixed(1) : Math.round(value)} ${units[unit]}`;
};

export const span = (seconds) => {
  for (const [length, name] of [[86400, "days"], [3600, "hours"], [60, "minutes"]])
    if (seconds >= 2 * length) return `${Math.round(seconds / length)} ${name}`;
  return Math.round(seconds) === 1 ? "1 second" : `${Math.round(seconds)} seconds`;
};

const made = (name, attributes, parent) => {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return parent.appendChild(element);
};

// How much more there is of a count with each second, from one point to the next.
export const rates = (points) => points.slice(1).flatMap(([at, value], index) => {
  const [before, was] = points[index];
  return at > before ? [[at, Math.max(0, (value - was) / (at - before))]] : [];
});

export const chart = (title, points, words) => {
  const figure = document.createElement("figure");
  figure.className = "card";
  const caption = figure.appendChild(document.createElement("figcaption"));
  caption.append(title);
  const newest = caption.appendChild(document.createElement("b"));
  if (points.length < 2) {
    newest.textContent = points.length ? words(points[0][1]) : "";
    figure.append("Drawn as soon as there is more to tell.");
    return figure;
  }
  const [from, to] = [points[0][0], points.at(-1)[0]];
  const values = points.map(([, value]) => value);
  const most = Math.max(...values), top = most || 1;
  newest.textContent = words(values.at(-1));
  const x = (at) => ((at - from) / (to - from) * WIDTH).toFixed(1);
  const y = (value) => (HEIGHT - 2 - value / top * (HEIGHT - 8)).toFixed(1);
  const line = points.map(([at, value]) => `${x(at)},${y(value)}`).join(" ");
  const told = `${title}: now ${words(values.at(-1))}, at most ${words(most)} in the last ${span(to - from)}`;
  const svg = made("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": told }, figure);
  made("polygon", { class: "area", points: `0,${HEIGHT} ${line} ${WIDTH},${HEIGHT}` }, svg);
  made("line", { class: "base", x1: 0, x2: WIDTH, y1: HEIGHT - 1, y2: HEIGHT - 1 }, svg);
  made("polyline", { class: "stroke", points: line }, svg);
  const scale = figure.appendChild(document.createElement("div"));
  scale.className = "scale";
  for (const text of [`${span(to - from)} ago`, `at most ${words(most)}`, "now"])
    scale.appendChild(document.createElement("span")).textContent = text;
  return figure;
};

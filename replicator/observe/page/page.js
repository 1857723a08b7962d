// What the server says of itself → this page, every two seconds while somebody looks at it.
// Everything is written as text, never as HTML; nothing is asked of any other server.

import { chart, rates, size, span } from "/charts.js";

const EVERY_MS = 2000;
const KEY = "replicator-admin-token";
const $ = (id) => document.getElementById(id);
let token = sessionStorage.getItem(KEY) ?? "";
let timer = 0, last = null;

class Refused extends Error {}

const ask = async (path, body) => {
  const answer = await fetch(path, {
    method: body === undefined ? "GET" : "POST",
    headers: { authorization: `Bearer ${token}`, ...(body === undefined ? {} : { "content-type": "application/json" }) },
    body: body === undefined ? undefined : JSON.stringify(body),
    cache: "no-store",
  });
  const said = await answer.json().catch(() => ({}));
  if (answer.status === 401) throw new Refused();
  if (!answer.ok) throw new Error([said.error?.description, said.error?.details].filter(Boolean).join(": ") || `status ${answer.status}`);
  return said;
};

const element = (name, text, ...classes) => {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  made.className = classes.join(" ");
  return made;
};
const time = (seconds) => new Date(seconds * 1000).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" });
const number = (count) => (count ?? 0).toLocaleString();

// -- who asks -------------------------------------------------------------------------------------

const shut = (says) => {
  clearTimeout(timer);
  token = "";
  sessionStorage.removeItem(KEY);
  $("status").hidden = $("leave").hidden = true;
  $("entrance").hidden = false;
  $("enter-says").textContent = says;
  verdict("", "not signed in");
  $("at").textContent = "";
};

$("enter").addEventListener("submit", (event) => {
  event.preventDefault();
  token = $("token").value.trim();
  $("token").value = "";
  $("enter-says").textContent = "";
  look();
});
$("leave").addEventListener("click", () => { shut(""); $("token").focus(); });

// -- the status -----------------------------------------------------------------------------------

const verdict = (level, text) => {
  $("verdict").dataset.level = level;
  if ($("verdict-text").textContent !== text) $("verdict-text").textContent = text;
};

const look = async () => {
  clearTimeout(timer);
  try {
    show(await ask("/api/admin/v1/status"));
  } catch (error) {
    if (error instanceof Refused) return shut(token ? "The server does not know this token." : "");
    const since = last === null ? "" : `; what follows is of ${time(last)}`;
    verdict("silent", `this server does not answer${since}`);
  }
  if (token && !document.hidden) timer = setTimeout(look, EVERY_MS);
};
document.addEventListener("visibilitychange", () => { if (!document.hidden && token) look(); });

const show = (status) => {
  last = status.at;
  sessionStorage.setItem(KEY, token);
  $("entrance").hidden = true;
  $("status").hidden = $("leave").hidden = false;
  const bad = status.troubles.filter((one) => one.level !== "note").length;
  verdict(status.status, bad ? `${bad} ${bad === 1 ? "thing" : "things"} to look at` : "all is well");
  $("at").textContent = time(status.at);
  showTroubles(status);
  $("cards").replaceChildren(...cards(status));
  showCopies(status.copies ?? []);
  showCharts(status.points);
};

const showTroubles = ({ troubles, at }) => {
  const told = JSON.stringify(troubles.map(({ code, what, since }) => [code, what, since]));
  const lasts = (one) => (one.since === null ? "" : `Since ${time(one.since)}, for ${span(Math.max(0, at - one.since))}.`);
  if ($("troubles").dataset.told === told) { // said once, not every two seconds
    $("troubles").querySelectorAll(".since").forEach((one, index) => { one.textContent = lasts(troubles[index]); });
    return;
  }
  $("troubles").dataset.told = told;
  if (!troubles.length) {
    $("troubles").replaceChildren(element("li", "Nothing.", "fine"));
    return;
  }
  $("troubles").replaceChildren(...troubles.map((one) => {
    const item = element("li", undefined, "trouble");
    item.dataset.level = one.level;
    item.append(element("span", one.level, "level"), element("h3", one.what));
    const since = element("p", lasts(one), "quiet", "since");
    since.setAttribute("aria-live", "off");
    item.append(since, element("p", one.threat), element("p", one.remedy));
    return item;
  }));
};

const card = (title, state, isGood, facts) => {
  const made = element("section", undefined, "card");
  const head = element("h3", title);
  head.append(element("span", state, isGood === null ? "is-quiet" : isGood ? "is-good" : "is-bad"));
  const list = document.createElement("dl");
  for (const [name, value] of facts)
    if (value !== null && value !== undefined) list.append(element("dt", name), element("dd", value));
  made.append(head, list);
  return made;
};

const full = ({ seconds_to_full, limit_bytes, room_bytes }) => {
  if (room_bytes === null || room_bytes === undefined) return "no limit is set";
  const left = seconds_to_full === null ? "" : `, ${span(seconds_to_full)} unread`;
  return `${size(room_bytes)}${limit_bytes === null ? " on its disk" : ""}${left}`;
};

const cards = ({ source, checkpoint, copies = [], rules, running, clients, counted, queue, parts = [], at }) => {
  const found = [card("Source", source.is_reachable ? (source.is_read ? "being read" : "not read") : "silent", source.is_reachable && source.is_read, [
    ["slot", source.slot],
    ["behind", source.lag_bytes === null || source.lag_bytes === undefined ? null : size(source.lag_bytes)],
    ["late", source.lag_seconds === null || source.lag_seconds === undefined ? null : `${source.lag_seconds.toFixed(1)} s`],
    ["log kept for it", source.retained_bytes ? size(source.retained_bytes) : null],
    ["room", source.is_reachable && source.has_slot ? full(source) : null],
  ])];
  if (!checkpoint) return found;
  const up = (part) => {
    const since = parts.filter((one) => one.part === part).map((one) => one.started_at);
    return since.length ? `for ${span(Math.max(0, at - Math.min(...since)))}` : null;
  };
  const again = (part) => parts.filter((one) => one.part === part).reduce((sum, one) => sum + one.restarts, 0) || null;
  const done = copies.filter((one) => one.state === "copied").length;
  found.push(card("Replicating", running.replicate ? "running" : "not running", running.replicate > 0, [
    ["running", up("replicate")],
    ["checkpoint", checkpoint.op_id === null ? "none yet" : `${number(checkpoint.op_id)} at ${checkpoint.lsn}`],
    ["stored", checkpoint.age_seconds === null ? null : `${span(checkpoint.age_seconds)} ago`],
    ["tables copied", `${done} of ${copies.length}`],
    ["rules", rules.version === null ? "none in force" : `version ${rules.version}`],
    ["being deployed", rules.deploying === null ? null : `version ${rules.deploying}`],
    ["row changes", number(counted.rows)],
    ["started again", again("replicate")],
  ]));
  found.push(card("Serving", running.serve ? "running" : "not running", running.serve > 0, [
    ["running", up("serve")],
    ["processes", number(running.serve)],
    ["apps connected", number(clients)],
    ["checkpoints sent", number(counted.sent)],
    ["started again", again("serve")],
  ]));
  const state = queue.is_worked ? (running.work ? "running" : "not running") : "not configured";
  found.push(card("Record system", state, queue.is_worked ? running.work > 0 : null, queue.is_worked ? [
    ["running", up("work")],
    ["to deliver", number(queue.pending_syncs)],
    ["the oldest", queue.oldest_undelivered_s === null ? null : `for ${span(queue.oldest_undelivered_s)}`],
    ["patients parked", number(queue.failed_syncs)],
    ["delivered in the last hour", number(queue.finished_last_hour.done)],
    ["it answers", queue.circuit === "closed" ? "yes" : "no"],
    ["started again", again("work")],
  ] : []));
  return found;
};

const showCopies = (copies) => {
  const underWay = copies.filter((one) => one.state !== "copied");
  $("copying").hidden = !underWay.length;
  $("copies").replaceChildren(...underWay.map((one, index) => {
    const item = element("li", undefined, "card");
    const label = element("label", `${one.table}: ${number(one.rows_copied)} of about ${number(Math.max(one.rows_expected, one.rows_copied))} rows`);
    const bar = document.createElement("progress");
    bar.max = 1;
    bar.value = one.share;
    bar.id = `copy-${index}`;
    label.htmlFor = bar.id;
    item.append(label, bar);
    return item;
  }));
};

const showCharts = (points) => {
  const known = (key) => points.filter((point) => point[key] !== null).map((point) => [point.at, point[key]]);
  $("charts").replaceChildren(
    chart("Throughput", rates(known("op_id")), (value) => `${value < 10 ? value.toFixed(1) : Math.round(value)} ops/s`),
    chart("Behind the source", known("lag_bytes"), size),
    chart("Waiting for the record", known("undelivered"), (value) => `${number(value)} ${value === 1 ? "change" : "changes"}`),
  );
};

// -- the queue ------------------------------------------------------------------------------------

const cell = (row, head, content, ...classes) => {
  const made = element("td", typeof content === "string" ? content : undefined, ...classes);
  made.dataset.head = head;
  if (typeof content !== "string") made.append(content);
  row.append(made);
};

const showJobs = async () => {
  $("queue-says").textContent = "asking…";
  try {
    const state = $("state").value;
    const { jobs, is_all } = await ask(`/api/admin/v1/queue${state ? `?state=${state}` : ""}`);
    $("queue-says").textContent = jobs.length ? `${jobs.length} ${jobs.length === 1 ? "job" : "jobs"}${is_all ? "" : ", and more"}` : "No such job.";
    $("jobs").hidden = !jobs.length;
    $("job-rows").replaceChildren(...jobs.map(jobRow));
  } catch (error) { fail(error, $("queue-says")); }
};

const jobRow = (job) => {
  const row = document.createElement("tr"), decide = element("div", undefined, "row");
  const choices = job.state === "parked" ? ["retry"] : job.state === "waiting" || job.state === "skipping" ? ["park"] : ["retry", "park"];
  for (const action of choices) {
    const button = element("button", action === "retry" ? "Retry" : "Park");
    button.type = "button";
    button.setAttribute("aria-label", `${button.textContent} job ${job.id}`);
    button.addEventListener("click", () => decideOn(job, action));
    decide.append(button);
  }
  cell(row, "Job", element("code", job.id));
  cell(row, "What", `${job.operation} ${job.mapping} ${job.key}`);
  cell(row, "Waits", `${job.state}, ${span(job.age_s)}`);
  cell(row, "Tries", String(job.attempts));
  cell(row, "Why", [job.error_class, job.error_message].filter(Boolean).join(": ") || "its turn has not come");
  cell(row, "Decide", decide);
  return row;
};

const decideOn = (job, action) => {
  const dialog = $("decision");
  $("decision-title").textContent = `${action === "retry" ? "Retry" : "Park"} job ${job.id}?`;
  $("decision-means").textContent = action === "retry"
    ? "It is tried again at once, as if for the first time, and this patient's later changes behind it."
    : "This patient's changes stop here, until somebody retries or skips the job.";
  $("yes").textContent = action === "retry" ? "Retry it" : "Park it";
  dialog.returnValue = "no";
  dialog.onclose = async () => {
    if (dialog.returnValue !== "yes") return;
    try {
      const body = { action, jobs: [job.id], who: $("who").value, why: $("why").value };
      const { jobs } = await ask("/api/admin/v1/queue", body);
      $("why").value = "";
      await showJobs();
      $("queue-says").textContent = jobs.length ? `${action === "retry" ? "Retrying" : "Parked"} ${jobs.join(", ")}.` : "The job has moved on meanwhile.";
    } catch (error) { fail(error, $("queue-says")); }
  };
  dialog.showModal();
};

$("look").addEventListener("click", showJobs);
$("state").addEventListener("change", showJobs);

// -- buckets --------------------------------------------------------------------------------------

$("ask-buckets").addEventListener("submit", async (event) => {
  event.preventDefault();
  $("buckets-say").textContent = "asking…";
  try {
    const { buckets } = await ask("/api/admin/v1/buckets", { user: $("user").value.trim() });
    $("buckets-say").textContent = buckets.length ? `${buckets.length} ${buckets.length === 1 ? "bucket" : "buckets"}` : "The rules give this user no bucket.";
    $("buckets").hidden = !buckets.length;
    $("bucket-rows").replaceChildren(...buckets.map((one) => {
      const row = document.createElement("tr");
      cell(row, "Bucket", element("code", one.bucket));
      cell(row, "Ops", number(one.ops), "number");
      cell(row, "Checksum", one.checksum.toString(16).padStart(8, "0"), "number");
      return row;
    }));
  } catch (error) { fail(error, $("buckets-say")); }
});

const fail = (error, place) => {
  if (error instanceof Refused) return shut("The server does not know this token any more.");
  place.textContent = `That did not work: ${error.message}`;
};

// An address may bring its token along, as that of `replicator demo` does; it does not stay there. One that is
// pasted where the page is open already loads nothing anew.
const enter = () => {
  const brought = new URLSearchParams(location.hash.slice(1)).get("token");
  if (brought) {
    token = brought;
    history.replaceState(null, "", location.pathname);
  }
  if (token) look(); else shut("");
};
addEventListener("hashchange", enter);
enter();

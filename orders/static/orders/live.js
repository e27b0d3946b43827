// The live page of a sale: asks for its numbers every two seconds, shows them, and says what is not known.
import { charts } from "./live_charts.js";
import * as rates from "./live_rates.js";

const EVERY = 2000; // ms from the end of one answer to the next question: a slow site is not asked faster
const PATIENCE = 5000; // ms for an answer
const MINUTE = 60_000;
const MOST = 300; // samples: ten minutes

const page = document.querySelector("[data-numbers-url]");
const spot = (name) => page.querySelector(`[data-show="${name}"]`);
const say = (name, text) => {
  if (spot(name).textContent !== text) spot(name).textContent = text; // what is read aloud is read once
};
const zone = page.dataset.zone; // the site's: the admin shows no other
const time = (milliseconds) => new Date(milliseconds).toLocaleTimeString("en-GB", { timeZone: zone });
const store = `fluxgate-live-${page.dataset.sale}`;
const draw = charts(spot("claims-chart"), spot("verdicts-chart"), zone);

let samples = remembered();
let last = null; // the last answer, whole
let gates = null; // the last one in which the gate was reached
const hosts = new Map(); // the last answer of each host, and its histograms of the last minute
const seen = {}; // when each source was last known, on this browser's clock
let differed = false;
let skew = 0; // ms that the server's clock is ahead of ours
let waiting = false; // the page is hidden, and asks again when it is not

// A step leads away from this page and back: what was drawn stays with the tab.
function remembered() {
  try {
    const kept = JSON.parse(sessionStorage.getItem(store)) ?? [];
    return kept.filter((sample) => Date.now() - sample.at < MOST * EVERY);
  } catch {
    return [];
  }
}

function remember() {
  try {
    sessionStorage.setItem(store, JSON.stringify(samples));
  } catch {
    // a browser that keeps nothing: the charts begin anew after a step
  }
}

// Alarms

let trouble = ""; // why there is no answer
let ended = false;

function alarms(now) {
  const lines = [];
  if (!now.reachable) {
    lines.push(
      "The gate is unreachable: nothing is granted until it is back. What was promised is in the log.",
    );
  } else if (now.gate && !now.sealed && now.gate.state !== "closed") {
    lines.push("The gate is fenced: its Redis was restarted or replaced since arming, and nothing sells.");
  }
  if (now.balance === "differs" && differed)
    lines.push("The books differ and stay so: open the balance below.");
  if (now.parked.sale) lines.push("Records of this sale are parked: fulfillment could not use them.");
  return lines;
}

function complain() {
  const text = (trouble ? [trouble] : last ? alarms(last) : []).join(" ");
  say("alarm", text);
  spot("alarm").hidden = !text;
  spot("sign-in").hidden = !ended;
}

// What is known of what

function know(source, known) {
  if (known) seen[source] = Date.now();
  for (const group of page.querySelectorAll(`[data-source="${source}"]`)) {
    group.classList.toggle("fgl-old", !known);
    const note = group.querySelector("[data-age]");
    if (note) note.dataset.known = String(known);
  }
}

function age() {
  for (const group of page.querySelectorAll("[data-source]")) {
    const note = group.querySelector("[data-age]");
    if (!note) continue;
    const at = seen[group.dataset.source];
    const old = at ? `not known now, ${rates.span(Date.now() - at)} old` : "not known";
    note.textContent = note.dataset.known === "true" ? "" : old;
  }
}

function countdown() {
  if (!last) return;
  const now = Date.now() + skew;
  const toOpen = last.opens_at - now;
  const toClose = last.closes_at - now;
  if (toOpen > 0) say("window", `opens in ${rates.span(toOpen)}`);
  else say("window", toClose > 0 ? `window closes in ${rates.span(toClose)}` : "window is over");
}

// Showing an answer

function showBooks(now) {
  know("books", true);
  say("label", now.label);
  spot("label").className = `fg-state fg-${now.colour}`;
  say("epoch", String(now.epoch || "–"));
  say("sold", rates.units(now.sold));
  say("allotment", rates.units(now.allotment));
  say("parked", rates.units(now.parked.sale));
  say("parked-all", rates.units(now.parked.all));
  spot("parked").classList.toggle("fgl-bad", now.parked.sale > 0);
}

function showGate(now) {
  const known = now.reachable && Boolean(now.gate);
  know("gate", known || (now.reachable && now.epoch === 0));
  say("gate-state", !now.reachable ? "unreachable" : now.gate ? now.gate.state : "holds nothing");
  if (!known) return;
  for (const name of ["remaining", "held", "queued"]) say(name, rates.units(now.gate[name]));
  const shares = { remaining: now.gate.remaining, held: now.gate.held, queued: now.gate.queued };
  shares.settled = now.gate.settled;
  for (const [name, count] of Object.entries(shares)) {
    spot(`share-${name}`).style.flexGrow = count;
    spot(`share-${name}`).hidden = count <= 0;
  }
  spot("shares").setAttribute(
    "aria-label",
    `Of ${now.gate.loaded} units: ` +
      Object.entries(shares).map(([name, count]) => `${count} ${name}`).join(", "),
  );
}

function showBalance(now) {
  const stays = now.balance === "differs" && differed;
  const word = now.balance === "differs" && !stays ? "under way" : now.balance;
  differed = now.balance === "differs"; // a batch between its two books differs for a moment
  know("balance", now.balance !== null || now.epoch === 0);
  if (word === null) return;
  say("balance", word);
  spot("balance").className =
    stays ? "fgl-bad" : word === "balanced" ? "fgl-good" : "";
  const gate = now.gate;
  if (!gate) return say("balance-sum", "The gate holds nothing of this sale");
  const sum = [gate.remaining, gate.held, gate.queued, gate.settled].map(rates.units).join(" + ");
  say("balance-sum", `${rates.units(gate.loaded)} loaded ${now.balanced ? "=" : "≠"} ${sum}`);
}

function showLine(now) {
  if (!now.has_line) {
    say("line-note", "The waiting room is off");
    return know("line", true);
  }
  know("line", now.line !== null);
  if (!now.line) return;
  say("waiting", rates.units(now.line.waiting));
  const pace = now.line.passes ? "everybody passes" : `${rates.rate(now.line.rate)} turns a second`;
  say("turns", pace);
  say("line-note", `${rates.units(now.line.tickets)} tickets; ${now.line.reason}`);
}

function showLog(now) {
  know("log", now.log.records !== null);
  say("partition", String(now.log.partition));
  if (now.log.records === null) return;
  say("unread", rates.units(now.log.records));
  say("behind", rates.duration({ seconds: now.log.seconds, above: false }).replace(/^0 ms$/, "0 s"));
}

function percentiles(name, minute) {
  const [first, newest] = [minute[0]?.[name], minute.at(-1)?.[name]];
  for (const [share, word] of [[0.5, "p50"], [0.99, "p99"]]) {
    const found = newest && minute.length > 1 ? rates.quantile(share, first, newest) : null;
    say(`${name}-${word}`, rates.duration(found));
  }
  let note = "over the last minute";
  if (!newest) note = "nobody measures it";
  else if (spot(`${name}-p50`).textContent === "–") note = "nothing in the last minute";
  say(`${name}-note`, note);
}

// Returns the rates of the verdicts since the last answer of the same processes.
function showHost(now) {
  know("host", true);
  const { host } = now;
  for (const place of page.querySelectorAll("[data-host]")) place.textContent = host.name;
  const key = `${host.name} ${host.master}`;
  const before = hosts.get(key) ?? [];
  const found = rates.verdictsPerSecond(before.at(-1), host);
  const minute = [...before.filter((each) => host.at - each.at <= MINUTE), host];
  hosts.set(key, minute);
  percentiles("gate_seconds", minute);
  percentiles("acknowledgement_seconds", minute);
  found.forEach((rate, at) => say(`rate-${at}`, rates.rate(rate)));
  say("verdicts-rate", rates.rate(rates.sum(found)));
  for (const verdict of page.querySelectorAll("[data-total]")) {
    verdict.textContent = rates.units(host.answers[verdict.dataset.total] ?? 0);
  }
  return found;
}

function showSteps(now) {
  const wanted = JSON.stringify(now.steps);
  const place = spot("steps");
  if (place.dataset.steps === wanted) return; // nobody's finger is on a button that is made anew
  place.dataset.steps = wanted;
  place.replaceChildren(
    ...now.steps.map((step) => {
      const link = document.createElement("a");
      const icon = document.createElement("span");
      link.href = step.url;
      link.className = `fgl-step fgl-${step.variant}`;
      icon.className = "material-symbols-outlined";
      icon.setAttribute("aria-hidden", "true");
      icon.textContent = step.icon;
      link.append(icon, step.name);
      return link;
    }),
  );
}

function show(now) {
  skew = Date.parse(now.at) - Date.now();
  if (now.clock !== null) skew = now.clock - Date.now(); // the clock that counts
  showBooks(now);
  showGate(now);
  showBalance(now);
  showLine(now);
  showLog(now);
  const verdicts = showHost(now);
  const claims = rates.claimsPerSecond(gates, now);
  if (now.reachable) gates = now;
  say("claims-rate", rates.rate(claims));
  say("at", time(now.host.at));
  samples = [...samples, { at: now.host.at, claims, verdicts }].slice(-MOST);
  remember();
  const since = `Since ${time(samples[0].at)}, when this page was opened; ten minutes at most.`;
  for (const place of page.querySelectorAll("[data-since]")) place.textContent = since;
  draw(samples);
  describe(samples);
  showSteps(now);
  last = now;
}

// The charts in words, for those who cannot see them.
function describe(all) {
  const most = (values) => rates.rate(values.length ? Math.max(...values) : null);
  const claims = all.map((sample) => sample.claims).filter((value) => value !== null);
  const verdicts = all.map((sample) => sample.verdicts).filter((values) => rates.sum(values) !== null);
  const sums = verdicts.map(rates.sum);
  spot("claims-chart").setAttribute(
    "aria-label",
    `Chart: claims per second of this sale, ${rates.rate(claims.at(-1))} now, ${most(claims)} at most`,
  );
  spot("verdicts-chart").setAttribute(
    "aria-label",
    `Chart: verdicts per second of this host, ${rates.rate(sums.at(-1))} now, ${most(sums)} at most`,
  );
}

// Asking

const SOURCES = ["books", "gate", "balance", "line", "log", "host"];

async function ask() {
  try {
    const answer = await fetch(page.dataset.numbersUrl, {
      headers: { Accept: "application/json" },
      redirect: "manual", // a redirect leads to the login page
      cache: "no-store",
      signal: AbortSignal.timeout(PATIENCE),
    });
    if (answer.type === "opaqueredirect") return end("You are signed out. These numbers are old.");
    if (answer.status === 403) return end("You may not see this sale any more. These numbers are old.");
    if (answer.status === 404) return end("This sale is gone. These numbers are old.");
    if (!answer.ok) throw new Error(String(answer.status));
    const now = await answer.json();
    trouble = "";
    show(now);
  } catch {
    trouble = "No fresh numbers: the site or PostgreSQL does not answer. Selling does not depend on this page.";
    for (const source of SOURCES) know(source, false);
  }
  complain();
  age();
  setTimeout(next, EVERY);
}

function end(text) {
  trouble = text;
  ended = true;
  for (const source of SOURCES) know(source, false);
  complain();
  age();
}

function next() {
  waiting = document.hidden;
  if (!waiting) ask();
}

document.addEventListener("visibilitychange", () => {
  if (waiting && !document.hidden) next();
});
setInterval(() => {
  age();
  countdown();
}, 1000);

show(JSON.parse(document.getElementById("numbers").textContent));
complain();
age();
countdown();
setTimeout(next, EVERY);

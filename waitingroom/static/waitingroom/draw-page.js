/**
 * The page of a draw: before the opening the promise, after it every step of the proof, calculated here.
 *
 * Each step checks one link of the chain against what is published, so a cross stands at the link that is broken.
 */
import {
  createClock, find, localTime, readLine, readSale, roomPage, saleParameter, show, whenSeenAgain, whileVisible, write,
} from "./fluxgate.js";
import { takeTicket } from "./buying.js";
import { noted, noteDown } from "./commitment.js";
import { canCalculate, commitmentOf, countOf, digestOf, numberOf, placeOf, seedOf } from "./draw.js";

/** A list of a million entries has 33 MB. */
const LIST_TIMEOUT_MS = 60_000;
const STEPS = ["secret", "list", "seed", "entry", "place"];
const MARKS = { ahead: "", now: "Not checked yet. ", skipped: "Not checked. ", done: "Holds. ", failed: "Does not hold. " };

const clock = createClock();
const slug = saleParameter();
const api = slug && `/api/v1/sales/${encodeURIComponent(slug)}`;

let line = null;
let list = null; // the entries as text, once read
let ticket = null; // ours, as the shop last showed it
let checking = false;
let settled = false; // nothing the shop says now would change what is shown

const grouped = (number) => (Number.isInteger(number) ? new Intl.NumberFormat("en").format(number) : String(number));
const step = (name) => find(`check="${name}"`);

function tell(heading, words) {
  write("heading", heading);
  write("words", words);
  document.title = `${heading} · Flux-Gate`;
}

/** `values`: what is shown behind the step, by name. */
function mark(name, state, words, values = null) {
  const item = step(name);
  item.dataset.step = state;
  write("mark", MARKS[state], item);
  write("said", words, item);
  for (const [key, value] of Object.entries(values ?? {})) write(key, String(value ?? ""), item);
  show("values", values !== null, item);
}

function hasTicketHere() {
  try {
    return localStorage.getItem(`fluxgate.ticket.${slug}`) !== null; // where buying.js keeps it
  } catch {
    return false;
  }
}

// The steps -----------------------------------------------------------------------------------------------------

/** What `calculate` gives; "" for something that is not even hex. */
const attempt = (calculate) => calculate().catch(() => "");

async function checkSecret(draw) {
  const calculated = await attempt(() => commitmentOf(draw.secret));
  const note = noted(slug);
  const values = { "commitment-value": draw.commitment, "secret-value": draw.secret, calculated };
  if (note && note.commitment !== draw.commitment) {
    return mark("secret", "failed", `Before the opening, on ${localTime(note.seen)}, the shop had published another commitment: ${note.commitment}`, values);
  }
  if (calculated !== draw.commitment) return mark("secret", "failed", "The fingerprint of this secret is not the commitment. This is not the secret that was promised.", values);
  const seen = note
    ? `This browser saw the same commitment before the opening, on ${localTime(note.seen)}.`
    : "Who noted the commitment before the opening can compare it.";
  return mark("secret", "done", `Its fingerprint is exactly the commitment. ${seen}`, values);
}

async function readList() {
  if (list !== null) return;
  try {
    const response = await fetch(`${api}/entries`, { signal: AbortSignal.timeout(LIST_TIMEOUT_MS), headers: { Accept: "text/plain" } });
    if (response.status === 200) list = await response.text();
  } catch {
    // asked for again with the next look
  }
}

async function checkList(draw) {
  if (list === null) mark("list", "now", "The list is being fetched.");
  await readList();
  if (list === null) return mark("list", "now", "The shop has not handed out the list. For as long as it does not, this cannot be checked; we keep asking.");
  const [calculated, counted] = [await digestOf(list), countOf(list)];
  const values = { "entries-value": draw.entries, counted, "digest-value": draw.digest, calculated };
  if (calculated !== draw.digest) return mark("list", "failed", "The list has another fingerprint than the one published. It is not the list of this draw.", values);
  if (counted !== draw.entries) return mark("list", "failed", `The list has ${grouped(counted)} entries, and ${grouped(draw.entries)} were published.`, values);
  return mark("list", "done", `${grouped(counted)} ${counted === 1 ? "entry" : "entries"}, as published, and the fingerprint of the list is the one published.`, values);
}

async function checkSeed(draw) {
  const calculated = await attempt(() => seedOf(draw.secret, draw.digest, draw.beacon));
  const values = { "beacon-value": draw.beacon, "seed-value": draw.seed, calculated };
  show("beacon-row", draw.beacon !== "", step("seed"));
  if (calculated !== draw.seed) return mark("seed", "failed", "The secret and the list give another seed than the one that was used.", values);
  return mark("seed", "done", "The secret and the fingerprint of the list give exactly the seed that was used.", values);
}

/** Our own entry and place. `why` there is no ticket. */
async function checkOurs(draw, why) {
  if (ticket === null) {
    mark("entry", "skipped", why);
    mark("place", "skipped", "Without a ticket there is no place to compare. You can see the place of any number below.");
    return;
  }
  if (list === null) {
    mark("entry", "now", "This waits for the list.");
  } else {
    const found = numberOf(list, String(ticket.entry));
    const values = { "tag-value": ticket.entry, "number-value": ticket.number, calculated: found ?? "nowhere" };
    if (ticket.number < draw.entries) {
      if (found === ticket.number) mark("entry", "done", `It stands there at number ${grouped(found)}, the number on your ticket.`, values);
      else if (found === null) mark("entry", "failed", `Your ticket has number ${grouped(ticket.number)}, but your tag stands nowhere in the list.`, values);
      else mark("entry", "failed", `Your ticket has number ${grouped(ticket.number)}, but your tag stands at number ${grouped(found)}.`, values);
    } else if (found === null) {
      mark("entry", "skipped", `Your ticket, number ${grouped(ticket.number)}, is from after the opening: it took no part in the draw.`, values);
    } else {
      mark("entry", "done", `You took part with number ${grouped(found)}. That turn went by, and your ticket now is number ${grouped(ticket.number)}.`, values);
    }
  }
  if (ticket.number >= draw.entries) {
    const right = ticket.place === ticket.number;
    mark("place", right ? "done" : "failed", `Behind the draw, people are called in the order of their numbers: yours is ${grouped(ticket.number)}, and the shop gives you place ${grouped(ticket.place)}.`);
    return;
  }
  const place = await attempt(() => placeOf(draw.seed, ticket.number, draw.entries));
  if (place === "") mark("place", "failed", "From what is published no place can be calculated.");
  else if (ticket.place === null) mark("place", "now", `Calculated here: place ${grouped(place)}. The shop has not given you one yet; we keep asking.`);
  else if (place === ticket.place) mark("place", "done", `Calculated here: place ${grouped(place)}. The shop gives you the same.`);
  else mark("place", "failed", `Calculated here: place ${grouped(place)}. The shop gives you place ${grouped(ticket.place)}.`);
}

const NO_TICKET = {
  none: "This browser has no ticket for this sale.",
  "sale-closed": "The sale is closed, so the shop shows no tickets any more. If you know your number, you can see its place below.",
  401: "Sign in at the shop, then come back to check your own ticket.",
  else: "The shop could not show your ticket just now. Reload this page to try again.",
};

/** Reads our ticket; returns why there is none. Only who has one here, or asks, gets one: looking on must not join a line. */
async function readTicket(asked) {
  if (ticket !== null && ticket.place !== null) return "";
  if (line.state === "closed") return NO_TICKET["sale-closed"];
  if (!asked && !hasTicketHere()) return NO_TICKET.none;
  const answer = await takeTicket(slug);
  ticket = answer.ticket ?? ticket;
  return NO_TICKET[answer.problem] ?? NO_TICKET[answer.status] ?? NO_TICKET.else;
}

function verdict() {
  const states = STEPS.map((name) => step(name).dataset.step);
  document.body.dataset.verdict = states.includes("failed") ? "broken" : states.includes("now") ? "open" : "holds";
  if (states.includes("failed")) {
    settled = true;
    return tell("This draw does not hold", "At least one step is wrong: it has a cross below. Keep this page or a picture of it, and ask the shop.");
  }
  settled = !states.includes("now");
  if (!settled) return tell("Not everything is checked yet", "What has a tick holds. The rest follows as soon as the shop hands it out.");
  if (states.includes("skipped")) return tell("Everything holds", "The draw was made exactly as promised before the opening. Your browser has just calculated it.");
  return tell("Everything holds", "The draw was made exactly as promised before the opening, and your place is the one you drew. Your browser has just calculated it.");
}

async function check({ asked = false } = {}) {
  if (checking) return;
  checking = true;
  const { draw } = line;
  try {
    await checkSecret(draw);
    await checkList(draw);
    await checkSeed(draw);
    const why = await readTicket(asked);
    show("look-up-block", ticket === null && line.state !== "closed");
    await checkOurs(draw, why);
    verdict();
  } finally {
    checking = false;
  }
}

// What is shown when ----------------------------------------------------------------------------------------------

const VIEWS = {
  none: ["There is no draw to check", "This sale has no line in which places are drawn: orders are served as they come."],
  before: ["The draw has not been made yet", ""],
  drawing: ["The draw is being made", "The sale has opened, and the list is being frozen. In a few seconds everything can be checked here."],
  never: ["No draw was made", "The sale was closed before its draw."],
  drawn: ["Checking the draw", "Your browser calculates every step."],
  insecure: ["Not checked", "The draw has been made, but this browser cannot check it on this connection."],
};

function viewNow() {
  const { draw } = line;
  if (line.state === "off" || !draw) return "none";
  if (draw.seed) return canCalculate() ? "drawn" : "insecure";
  if (line.state === "closed") return "never";
  return clock.now() < Date.parse(line.opens_at) ? "before" : "drawing";
}

function limits(draw) {
  const none = draw.beacon === "";
  show("limits", Boolean(draw.seed));
  write("limits-name", none ? "What this cannot show." : "And a value from outside.");
  write(
    "limits-words",
    none
      ? "Whether every tag is a real customer. A dishonest shop could slip entries into the list until its own secret suits it. A value from outside that nobody knows before the opening would rule that out; this draw used none."
      : `“${draw.beacon}”, which nobody could know before the opening, is part of the seed. So not even somebody who knew the secret and added entries could aim. What this cannot show is whether every tag is a real customer.`,
  );
}

function render() {
  const view = viewNow();
  const empty = view === "none" || view === "never";
  const promised = view === "before" || view === "drawing";
  if (!settled && document.body.dataset.view !== view) {
    const [heading, words] = VIEWS[view];
    const opens = view === "before" ? `It comes when the sale opens, on ${localTime(line.opens_at)}. Everybody who is in line by then takes part.` : words;
    tell(heading, opens);
    document.body.dataset.view = view;
  }
  show("insecure", !empty && !canCalculate());
  show("promise", promised || view === "insecure");
  show("steps", !empty && view !== "insecure");
  show("any", view === "drawn");
  show("why", !empty);
  show("without-us", view === "drawn" || view === "insecure");
  show("to-room", promised || (view === "drawn" && line.state !== "closed" && hasTicketHere()));
  show("to-sales", empty);
  write("steps-heading", promised ? "What follows at the opening" : "Step by step");
  if (empty) return;
  limits(line.draw);
  write("commitment", line.draw.commitment);
  if (promised) {
    if (view === "before") noteDown(slug, line);
    const note = noted(slug);
    const changed = note !== null && note.commitment !== line.draw.commitment;
    write(
      "noted",
      changed
        ? `On ${localTime(note.seen)} the shop had published another one: ${note.commitment}`
        : `Note it down, or take a picture${note ? ". This browser has noted it as well, and compares it after the opening" : ""}. The shop cannot change its secret any more.`,
    );
  } else write("noted", "");
}

async function refresh() {
  if (settled || checking) return;
  const answer = await readLine(slug, clock);
  if (answer.status === 404) return missing();
  show("stale", answer.line === null);
  if (answer.line === null) {
    if (line === null) write("words", "The shop could not be reached. We keep trying.");
    return;
  }
  line = answer.line;
  render();
  if (viewNow() === "insecure") settled = true;
  if (viewNow() === "drawn") await check();
}

async function nameProduct() {
  const { sale } = await readSale(slug, clock);
  if (sale) write("product-name", `${sale.product.name} · ${sale.name}`);
}

async function showPlace(number) {
  const { seed, entries } = line.draw;
  if (!Number.isInteger(number) || number < 0) return write("any-said", "Please type a whole number, from 0.");
  if (number >= entries) {
    const last = entries === 0 ? "Nobody took part in this draw." : `The numbers in the draw end at ${grouped(entries - 1)}.`;
    return write("any-said", `${last} Who came later is called in the order of the numbers.`);
  }
  const place = await attempt(() => placeOf(seed, number, entries));
  return write("any-said", place === "" ? "From what is published no place can be calculated." : `Number ${grouped(number)} has place ${grouped(place)}.`);
}

function missing() {
  settled = true;
  document.title = "No such sale · Flux-Gate";
  show("stale", false);
  show("panel", false);
  show("missing", true);
}

function seconds() {
  if (line === null || viewNow() !== "before") return 3;
  return Date.parse(line.opens_at) - clock.now() > 60_000 ? 30 : 3;
}

if (slug === null) missing();
else {
  find("line-link").href = `${api}/line`;
  find("list-link").href = `${api}/entries`;
  find("room-link").href = roomPage(slug);
  write("command", `manage.py verify_draw ${slug} --url ${location.origin}`);
  find("any").addEventListener("submit", (event) => {
    event.preventDefault();
    showPlace(event.target.elements.number.valueAsNumber);
  });
  find("look-up").addEventListener("click", () => {
    find("entry-heading").focus(); // the button may go away
    check({ asked: true });
  });
  whenSeenAgain(refresh);
  whileVisible(refresh, seconds);
  nameProduct();
  refresh();
}

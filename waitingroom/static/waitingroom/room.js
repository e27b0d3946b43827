/**
 * The waiting room, of which there are two kinds. A sale with a line: a ticket, a place, and a Buy button when
 * the turn has come; that is here. A sale without one, whose door is just too narrow: door.js.
 */
import {
  createClock, delayMs, drawPage, everySecond, find, localTime, milestone, oneLine, orderPage, pause, phaseNow, quantityParameter, readLine, readSale,
  saleParameter, show, showPills, whenSeenAgain, whileVisible, write,
} from "./fluxgate.js";
import { isAlive, lastOrder, readWish, takeTicket } from "./buying.js";
import { wireBuyForm } from "./buyform.js";
import { noteDown } from "./commitment.js";
import { wireDoor } from "./door.js";
import {
  chance, chanceWords, drawSpread, ETA_LABELS, etaWords, grouped, isPutOff, isTicketDue, people, peopleAhead, PHASES, QUEUED, secondsToNextLook, TURN_GRACE_MS,
  turnAt, viewOf, VIEWS,
} from "./line.js";

const clock = createClock();
const slug = saleParameter();
const named = quantityParameter();
const leaving = new AbortController();

let sale = null;

function tell(heading, words, problem = "") {
  document.body.dataset.problem = problem;
  write("heading", heading);
  write("words", words);
}

function missing() {
  document.title = "No such sale · Flux-Gate";
  show("panel", false);
  show("missing", true);
}

async function refresh() {
  const answer = await readSale(slug, clock);
  show("stale", answer.sale === null && answer.status !== 404);
  if (answer.status === 404) {
    leaving.abort();
    missing();
  }
  if (answer.sale === null) return;
  sale = answer.sale;
  write("product-name", sale.product.name);
  find("quantity").max = String(sale.limit_per_customer);
  if (line) return;
  show("phase-pill", true);
  showPills(phaseNow(sale, clock.now()), sale.units_left);
}

// A sale with a line ------------------------------------------------------------------------------------------

let line = null; // the document of the line, as last read
let ticket = null; // ours, as last answered; its admission lives here and nowhere else
let form = null;
let view = null;
let missed = false;
let signedOut = false;
let refused = false; // our admission is of no more use: ask for another
let failures = 0; // tickets asked for in vain since the last one that helped
let lastTurn = null;
let lastLeft = null;
let lastHope = null;
let nap = new AbortController();

const hasPlace = () => ticket !== null && ticket.place !== null;
const ourTurn = () => (hasPlace() ? turnAt(line.segments, ticket.place) : null);

/** ms until what is waited for: the end of our turn, the opening, our turn; null where nothing can be known. */
function leftNow(now) {
  if (view === "your_turn") return Date.parse(ticket.turn_ends_at) - now;
  if (line.state === "prequeue") return Date.parse(line.opens_at) - now;
  return view === "paused" || ourTurn() === null ? null : ourTurn() - now;
}

function fact(name, words) {
  write(name, words);
  show(`${name}-row`, words !== "");
}

function enter(next) {
  const [heading, words, problem] = VIEWS[next];
  view = next;
  lastLeft = null;
  document.body.dataset.view = next;
  tell(heading, words, problem);
  document.title = `${heading} · Flux-Gate`;
  const isTurn = next === "your_turn";
  if (isTurn) form ??= wireBuyForm(find("turn"), clock, () => sale, { admission: () => ticket.admission, refused: askForAnother });
  form?.redraw();
  show("turn", isTurn);
  show("draw", Boolean(line.draw) && !isTurn); // nothing leads away from a turn
  show("over", next === "closed" || next === "sold_out");
  show("leave", next !== "closed");
  write("eta-label", ETA_LABELS[next] ?? "");
  if (isTurn) find("heading").focus();
}

function drawFigures(now) {
  const left = leftNow(now);
  const queued = QUEUED.includes(view) && hasPlace();
  const timed = view === "prequeue" || view === "your_turn";
  const stands = queued && left === null;
  show("eta-block", timed || (queued && view !== "paused"));
  show("eta-label", !stands);
  write("eta", stands ? "The line stands still" : queued ? etaWords(left) : timed ? oneLine(left) : "");
  const ahead = queued ? peopleAhead(line.segments, ticket.place, now) : null;
  fact("ahead", ahead === null ? "" : people(ahead));
  fact("number", (queued || view === "prequeue") && ticket ? grouped(ticket.number) : "");
  // The document may be older than one's own ticket.
  fact("tickets", view === "prequeue" ? people(Math.max(line.tickets, (ticket?.number ?? -1) + 1)) : "");
  fact("opens", view === "prequeue" ? localTime(line.opens_at) : "");
  show("numbers", queued || view === "prequeue");
  form?.allow(view === "your_turn" && !refused && left > 0);
  if (!(queued || timed) || left === null) return;
  document.title = `${find("eta").textContent} · ${VIEWS[view][0]}`;
  const words = lastLeft === null ? null : milestone(lastLeft, left);
  if (words) write("spoken", words);
  lastLeft = left;
}

/** What is shown of the line; called every second, so it writes only what has changed. */
function drawLine(now) {
  if (line.state === "off") return;
  const next = viewOf({ line, ticket, now, missed, signedOut, ready: sale !== null, trying: form?.isTrying() });
  if (next !== view) enter(next);
  drawFigures(now);
  const hope = QUEUED.includes(view) ? chance(line.odds, ticket?.place ?? null) : null;
  find("hope").dataset.hope = hope ?? "";
  write("hope", view in ETA_LABELS ? chanceWords(hope, line.units_about) : "");
  if (lastHope !== null && hope !== null && hope !== lastHope) write("spoken", chanceWords(hope, null));
  lastHope = hope;
}

function adoptLine(facts) {
  if (line?.state === "paused" && facts.state === "waiting" && ticket?.state === "your_turn") refused = true; // a pause prolongs our turn
  line = facts;
  const now = clock.now();
  show("phase-pill", true);
  showPills(PHASES[line.state] ?? line.state, line.units_left);
  write("message", line.message ?? "");
  show("message-box", Boolean(line.message));
  const turn = ourTurn();
  if (isPutOff(lastTurn, turn, now)) write("reason", "The line moves more slowly than before, so your turn comes later than we said.");
  else if (turn !== null && lastTurn !== null && turn < lastTurn - 1000) write("reason", "");
  lastTurn = turn ?? lastTurn;
  if (line.draw && !line.draw.seed && line.state === "prequeue" && now < Date.parse(line.opens_at)) noteDown(slug, line);
}

const isDue = (now) => !signedOut && isTicketDue(line, refused ? null : ticket, now);

async function askForTicket() {
  if (ticket !== null && !hasPlace()) await pause(1000 * drawSpread(line.tickets) * Math.random(), nap.signal);
  form?.abandon(); // what it had sent is still heard; it only does not send the old admission again
  const answer = await takeTicket(slug);
  if (answer.ticket) {
    const turned = answer.ticket.state === "your_turn";
    const news = ticket === null || turned || answer.ticket.missed || answer.ticket.place !== ticket.place;
    if (answer.ticket.place !== ticket?.place) lastTurn = null;
    missed = !turned && (missed || answer.ticket.missed === true);
    refused = false;
    ticket = answer.ticket;
    failures = news ? 0 : failures + 1;
    return null;
  }
  failures += 1;
  signedOut = answer.status === 401;
  show("stale", answer.status === 0 || answer.status >= 500);
  return answer.retryAfter ?? null;
}

function askForAnother() {
  refused = true;
  nap.abort();
}

/** The life in the line: look, ask for the ticket when that tells something, sleep; until the shop has no line. */
async function stand() {
  show("ask", false);
  show("wait", false);
  show("line", true);
  for (let retryAfter = null; !leaving.signal.aborted && (line.state !== "off" || form?.isTrying()); ) {
    if (sale === null) await refresh();
    drawLine(clock.now());
    if (isDue(clock.now())) {
      retryAfter = await askForTicket();
      adoptLine(line);
      drawLine(clock.now());
    }
    const now = clock.now();
    let ms = 1000 * secondsToNextLook(view === "your_turn" ? view : line.state, leftNow(now));
    if (document.visibilityState === "hidden") ms = Math.max(ms, 10_000);
    const next = leftNow(now) + (view === "your_turn" ? TURN_GRACE_MS : 0);
    if (next > 0) ms = Math.min(ms, next + 300 * Math.random());
    if (isDue(now)) ms = Math.min(ms, delayMs(failures, retryAfter));
    await pause(ms, nap.signal);
    nap = new AbortController();
    const answer = await readLine(slug, clock);
    show("stale", answer.line === null && answer.status !== 404);
    if (answer.line) adoptLine(answer.line);
  }
  if (line.state === "off") location.reload();
}

// Which of the two rooms this is ------------------------------------------------------------------------------

/** The shop asks for an admission: since we came, a line may have been formed. */
async function lineFormed() {
  const answer = await readLine(slug, clock);
  if (answer.line === null || answer.line.state === "off" || !door.isWaiting()) return;
  door.leave();
  adoptLine(answer.line);
  stand();
}

const door = wireDoor({ slug, clock, tell, lineFormed });

async function choose() {
  for (let attempt = 0; !leaving.signal.aborted; attempt += 1) {
    const answer = await readLine(slug, clock);
    if (answer.line && answer.line.state !== "off") {
      adoptLine(answer.line);
      return stand();
    }
    if (answer.line || (answer.status >= 400 && answer.status < 500)) break;
    show("stale", true);
    await pause(delayMs(attempt, null), leaving.signal);
  }
  if (named !== null && isAlive(readWish(slug, named))) door.wait(named);
  else door.askFirst();
}

function start() {
  write("words", "One moment…");
  find("draw-link").href = drawPage(slug);
  const order = lastOrder(slug);
  show("bought", order !== null);
  if (order !== null) find("bought-link").href = orderPage(order, slug);
  if (named !== null) for (const field of document.querySelectorAll("[name=quantity]")) field.value = String(named);
  everySecond(clock, (now) => (line ? drawLine(now) : door.draw()));
  whenSeenAgain(() => {
    signedOut = false;
    nap.abort();
    refresh();
  });
  whileVisible(refresh, () => (line ? 60 : 6));
  refresh();
  find("leave").addEventListener("click", () => {
    door.leave({ forGood: true });
    leaving.abort();
  });
  window.addEventListener("pageshow", (event) => event.persisted && location.reload());
  choose();
}

if (slug === null) missing();
else start();

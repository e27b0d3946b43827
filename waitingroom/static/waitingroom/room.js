/** The waiting room: asks again for whoever waits, with the key of their click, and lets them out again. */
import {
  countdownPage, createClock, everySecond, find, oneLine, orderPage, phaseNow, quantityParameter, readSale, roomPage, saleParameter, show, showPills, whenSeenAgain,
  whileVisible, write,
} from "./fluxgate.js";
import { isAlive, leaveWish, pursue, readWish, wishFor } from "./buying.js";

const clock = createClock();
const slug = saleParameter();
const leaving = new AbortController();

let sale = null;
let waiting = false;
let nextTryAt = null; // on performance.now()

const BUSY = "More people want this right now than the door lets through.";

const wanted = () => Math.max(1, Number(find("quantity").value) || 1);

function tell(heading, words, problem = "") {
  document.body.dataset.problem = problem;
  write("heading", heading);
  write("words", words);
}

function drawWait() {
  if (!waiting) return;
  const wish = readWish(slug, wanted());
  if (wish) write("waited", oneLine(Math.max(0, Date.now() - wish.since)));
  const left = nextTryAt === null ? 0 : Math.ceil((nextTryAt - performance.now()) / 1000);
  write("next", left > 0 ? `in ${left} s` : "now");
}

function end(outcome) {
  waiting = false;
  show("wait", false);
  show("over", true);
  show("leave", false);
  tell(outcome.heading, outcome.text, outcome.problem || "refused");
  document.title = `${outcome.heading} · Flux-Gate`;
  const link = find("order-link");
  link.hidden = !outcome.orderId;
  if (outcome.orderId) link.href = orderPage(outcome.orderId, slug);
  find("heading").focus();
}

async function wait(quantity) {
  waiting = true;
  wishFor(slug, quantity);
  history.replaceState(null, "", roomPage(slug, quantity)); // a reload finds the same wish
  write("wanted", String(quantity));
  show("ask", false);
  show("wait", true);
  show("leave", true);
  tell("You are in the waiting room", BUSY, "too-busy");
  drawWait();
  const onWait = (outcome, ms) => {
    nextTryAt = performance.now() + ms;
    if (outcome.kind === "busy") tell("You are in the waiting room", BUSY, "too-busy");
    else if (outcome.problem === "sale-paused") tell("The shop has paused this sale", "We keep asking, and go on by ourselves when it does.", outcome.problem);
    else tell("You are in the waiting room", outcome.text, outcome.problem || "offline");
    drawWait();
  };
  const outcome = await pursue({ slug, quantity, clock, signal: leaving.signal, onWait, patient: true });
  if (outcome === null) return;
  if (outcome.kind === "accepted") location.replace(orderPage(outcome.orderId, slug));
  else if (outcome.kind === "not-open") location.replace(countdownPage(slug));
  else end(outcome);
}

/** Came by a bare link, or long after: an order is placed for people, never for an address. */
function askFirst() {
  show("ask", true);
  show("leave", true);
  tell("The waiting room", "Shall we ask the shop for you until it lets you through?", "ask");
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
  write("sale-name", sale.name);
  find("quantity").max = String(sale.limit_per_customer);
  show("phase-pill", true);
  showPills(phaseNow(sale, clock.now()), sale.units_left);
}

function start() {
  const named = quantityParameter();
  if (named !== null) find("quantity").value = String(named);
  everySecond(clock, drawWait);
  whenSeenAgain(refresh);
  whileVisible(refresh, () => 6);
  refresh();
  find("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    if (!waiting) wait(wanted());
  });
  find("leave").addEventListener("click", () => {
    leaveWish(slug, wanted());
    leaving.abort();
  });
  window.addEventListener("pageshow", (event) => event.persisted && location.reload());
  if (named !== null && isAlive(readWish(slug, named))) wait(named);
  else askFirst();
}

if (slug === null) missing();
else start();

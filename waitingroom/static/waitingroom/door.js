/**
 * The waiting room of a sale without a line, whose door is just too narrow: the page asks again and again with the
 * key of the click, and lets people out again.
 */
import { countdownPage, find, oneLine, orderPage, roomPage, show, write } from "./fluxgate.js";
import { leaveWish, pursue, readWish, wishFor } from "./buying.js";

const BUSY = "More people want this right now than the door lets through.";

/**
 * `tell(heading, words, problem)` writes what stands on top; `lineFormed()` is called when the shop asks for an
 * admission. Returns {askFirst(), wait(quantity), draw(), isWaiting(), leave({forGood: the wish is over as well})}.
 */
export function wireDoor({ slug, clock, tell, lineFormed }) {
  const asking = new AbortController();
  let waiting = false;
  let nextTryAt = null; // on performance.now()

  const wanted = () => Math.max(1, Number(find("quantity").value) || 1);

  function draw() {
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
    draw();
    const onWait = (outcome, ms) => {
      nextTryAt = performance.now() + ms;
      if (outcome.problem === "admission-required") lineFormed();
      if (outcome.kind === "busy") tell("You are in the waiting room", BUSY, "too-busy");
      else if (outcome.problem === "sale-paused") tell("The shop has paused this sale", "We keep asking, and go on by ourselves when it does.", outcome.problem);
      else tell("You are in the waiting room", outcome.text, outcome.problem || "offline");
      draw();
    };
    const outcome = await pursue({ slug, quantity, clock, signal: asking.signal, onWait, patient: true });
    if (outcome === null) return;
    if (outcome.kind === "accepted") location.replace(orderPage(outcome.orderId, slug));
    else if (outcome.kind === "not-open") location.replace(countdownPage(slug));
    else end(outcome);
  }

  find("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    if (!waiting) wait(wanted());
  });

  return {
    wait,
    draw,
    isWaiting: () => waiting,
    /** Came by a bare link, or long after: an order is placed for people, never for an address. */
    askFirst() {
      show("ask", true);
      show("leave", true);
      tell("The waiting room", "Shall we ask the shop for you until it lets you through?", "ask");
    },
    leave({ forGood = false } = {}) {
      if (forGood) leaveWish(slug, wanted());
      waiting = false;
      asking.abort();
    },
  };
}

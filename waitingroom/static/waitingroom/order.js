/** An order's journey: set aside, written down, confirmed; or refused, or given back. */
import { createClock, delayMs, localTime, money, orderParameter, pause, readSale, saleParameter, show, write } from "./fluxgate.js";
import { askAsBuyer } from "./buying.js";

const clock = createClock();
const order = orderParameter();
/** After this long (ms) without a final answer the page says that it takes longer than usual. */
const LONG_MS = 20_000;

/** state: [steps done, heading, words] */
const STATES = {
  held: [1, "Set aside for you", "Your order is being written down. You can leave this page; the order stays."],
  queued: [2, "Written down", "Your order stands in the shop's log. The last step is its confirmation."],
  confirmed: [3, "Confirmed", "It is yours. Thank you."],
  refused: [2, "Not accepted", "You owe nothing for this order."],
  cancelled: [2, "Cancelled", "You owe nothing for this order."],
};

/** The order book's reasons as people say them; one that is not here is shown as it is. */
const REASONS = {
  sold_out: "There were more orders than units.",
  buyer: "You gave it back.",
  operator: "The shop gave it back.",
};

function drawSteps(state, done) {
  const failed = state === "refused" || state === "cancelled";
  document.querySelectorAll("[data-step]").forEach((step, index) => {
    const is = index < done ? "done" : index > done ? "ahead" : failed ? "failed" : "now";
    step.dataset.step = is;
    if (is === "now") step.setAttribute("aria-current", "step");
    else step.removeAttribute("aria-current");
  });
  if (failed) write("last-step", state === "refused" ? "Not accepted" : "Given back");
}

let facts = null;

function draw(answer) {
  const { state, reason } = answer;
  const [done, heading, words] = STATES[state] ?? [0, "Your order", ""];
  show("loading", false);
  show("panel", true);
  document.body.dataset.state = state;
  document.title = `${heading} · Flux-Gate`;
  drawSteps(state, done);
  write("heading", heading);
  write("words", reason ? `${words} ${REASONS[reason] ?? `Reason: ${reason}.`}` : words);
  write("order-id", answer.order_id);
  write("quantity", String(answer.quantity));
  write("price", money(answer.unit_price, answer.currency));
  write("total", money(answer.unit_price, answer.currency, answer.quantity));
  write("claimed-at", localTime(answer.claimed_at));
  write("sale-name", facts ? `${facts.product.name} · ${facts.name}` : answer.sale);
}

async function nameTheSale(slug) {
  const { sale } = await readSale(slug, clock);
  if (!sale) return;
  facts = sale;
  write("sale-name", `${sale.product.name} · ${sale.name}`);
}

function fail(heading, words) {
  show("loading", false);
  show("panel", false);
  show("missing", true);
  document.title = `${heading} · Flux-Gate`;
  write("missing-heading", heading);
  write("missing-words", words);
}

async function follow() {
  const began = performance.now();
  let named = saleParameter();
  if (named) nameTheSale(named);
  for (let attempt = 0; ; attempt += 1) {
    const answer = await askAsBuyer(`/api/v1/orders/${encodeURIComponent(order)}`);
    const known = answer.status === 200 && answer.body.order_id;
    if (answer.status === 404) return fail("We do not know this order", "It may belong to somebody else, or have been placed in another browser.");
    if (answer.status === 401) return fail("Please sign in", "Sign in at the shop, then come back to this address: the order is safe.");
    show("stale", !known);
    if (known) {
      draw(answer.body);
      if (!named) nameTheSale((named = answer.body.sale));
      if (answer.body.final) return show("slow", false);
    } else write("loading-words", "The shop could not be reached. Your order is safe; we keep asking.");
    show("slow", Boolean(known) && performance.now() - began > LONG_MS);
    // Early on the answer is near: the back-off starts only after some tries.
    await pause(delayMs(Math.max(0, attempt - 4), answer.retryAfter));
  }
}

if (order === null) fail("No order named", "This address names no order. Your orders are reached from the page that followed the purchase.");
else follow();

/**
 * Buying: who buys (the token), which click it was (the Idempotency-Key), and what the shop answered.
 *
 * One wish to buy has one key, kept in localStorage per sale and quantity until a final answer. So a
 * double click, a reload, a lost network and every retry ask for the same order, and get the same one.
 */
import { ask, delayMs, pause } from "./fluxgate.js";

/** A wish that was not pursued for this long (ms) is not taken up again without a click. */
const WISH_LIFE_MS = 15 * 60 * 1000;
/** An opening this near (ms) is waited for on the spot; a later one on the countdown page. */
export const NEARLY_OPEN_MS = 5000;
const TOKEN = "fluxgate.token";

/** localStorage, or memory for as long as the page lives where the browser refuses it. */
const storage = (() => {
  try {
    localStorage.setItem("fluxgate.probe", "1");
    localStorage.removeItem("fluxgate.probe");
    return localStorage;
  } catch {
    const memory = new Map();
    return {
      getItem: (name) => memory.get(name) ?? null,
      setItem: (name, value) => memory.set(name, value),
      removeItem: (name) => memory.delete(name),
    };
  }
})();

/** A random UUID; crypto.randomUUID exists only in secure contexts, so not on http://192.168.… */
export function newKey() {
  if (typeof crypto.randomUUID === "function") return crypto.randomUUID();
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-");
}

const wishName = (slug, quantity) => `fluxgate.wish.${slug}.${quantity}`;

/**
 * The wish to buy `quantity` of a sale: {key, since, touched, wanted, unsure}, or null. Times are ms of
 * this device and only ever compared with this device. `wanted`: somebody pressed Buy and has not left.
 * `unsure`: a request went out and its answer never came.
 */
export function readWish(slug, quantity) {
  try {
    const wish = JSON.parse(storage.getItem(wishName(slug, quantity)));
    return typeof wish?.key === "string" && wish.key ? wish : null;
  } catch {
    return null;
  }
}

function keepWish(slug, quantity, wish) {
  storage.setItem(wishName(slug, quantity), JSON.stringify(wish));
  return wish;
}

/** Somebody pressed Buy. An earlier wish without a final answer keeps its key. */
export function wishFor(slug, quantity) {
  const now = Date.now();
  const old = readWish(slug, quantity);
  const since = old && isAlive(old) ? old.since : now;
  return keepWish(slug, quantity, { key: old?.key ?? newKey(), since, touched: now, wanted: true, unsure: old?.unsure ?? false });
}

export function isAlive(wish) {
  return wish !== null && wish.wanted === true && Math.abs(Date.now() - wish.touched) < WISH_LIFE_MS;
}

/** Stop wanting. The key stays: should a lost answer have been a yes, buying again finds that order. */
export function leaveWish(slug, quantity) {
  const wish = readWish(slug, quantity);
  if (wish) keepWish(slug, quantity, { ...wish, wanted: false });
}

function forgetWish(slug, quantity) {
  storage.removeItem(wishName(slug, quantity));
}

/**
 * The buyer's token: the shop's, or a demo buyer's where the site offers that (never in production).
 * Returns {token} or {status} of the answer that gave none.
 */
async function buyerToken() {
  const kept = storage.getItem(TOKEN);
  if (kept) return { token: kept };
  const answer = await ask("/demo/token", { method: "POST" });
  if (answer.status !== 200 || typeof answer.body.token !== "string") return { status: answer.status };
  storage.setItem(TOKEN, answer.body.token);
  return { token: answer.body.token };
}

/** Ask as the buyer; a token that is refused is replaced once. Without a token: {status: 401 | 0 | 5xx}. */
export async function askAsBuyer(path, { headers = {}, ...options } = {}) {
  for (let fresh = false; ; fresh = true) {
    const { token, status } = await buyerToken();
    if (!token) return { status: status === 0 || status >= 500 ? status : 401, body: {}, retryAfter: null };
    const answer = await ask(path, { headers: { ...headers, Authorization: `Bearer ${token}` }, ...options });
    if (answer.status !== 401 || fresh) return answer;
    storage.removeItem(TOKEN);
  }
}

/** The problem's name: the fragment of its type URI (RFC 9457). */
function problemOf(body) {
  return typeof body.type === "string" ? body.type.split("#").pop() : "";
}

function lastSegment(url) {
  return typeof url === "string" ? url.replace(/\/+$/, "").split(/[/=]/).pop() : null;
}

/** What a refusal means for a person: [heading, words]. Nothing was charged or set aside, and that is said. */
const OVER = {
  "sold-out": ["Sold out", "Every unit has been bought. Nothing was ordered for you."],
  "sale-closed": ["This sale is closed", "Nothing was ordered for you."],
  "limit-reached": ["You have yours already", "One customer may not buy more than that in this sale."],
  "idempotency-key-reused": ["Please press Buy again", "This browser used the same order key for something else, so nothing was bought this time."],
  "admission-invalid": ["Your place could not be recognised", "Please press Buy on the store front again."],
  "sale-not-found": ["There is no such sale", "It may have been taken down."],
};
const NOT_ACCEPTED = "The shop did not accept this";
const SIGN_IN = ["Please sign in", "Sign in at the shop, then come back to this page."];
const AGAIN = {
  "all-units-held": "All remaining units are in other people's hands just now. Some may come back.",
  "sale-paused": "The shop has paused this sale. Nobody is being served in the meantime.",
  "temporarily-unavailable": "The shop cannot take orders at this moment. Nothing is lost.",
};
const OPENING = "The sale opens any moment.";
const OFFLINE = "The shop could not be reached.";

/**
 * An answer as a person meets it:
 *   accepted (orderId) | busy | not-open (opensAt) | again (text: will be tried again) |
 *   over (heading, text, problem, orderId?: trying again does not help)
 * `decided`: the gate has looked at this key, so no order hides behind a lost answer.
 */
function outcomeOf({ status, body, retryAfter }) {
  const problem = problemOf(body);
  const over = ([heading, text], more = {}) => ({ kind: "over", problem, heading, text, final: true, ...more });
  const again = (text, decided) => ({ kind: "again", problem, text, retryAfter, decided });
  if (status === 202 && typeof body.order_id === "string") return { kind: "accepted", orderId: body.order_id };
  if (status === 0) return again(OFFLINE, false);
  if (status === 302 || status === 429 || problem === "admission-required") return { kind: "busy", problem, retryAfter, decided: true };
  if (problem === "sale-not-open") return { kind: "not-open", problem, text: OPENING, opensAt: Date.parse(body.opens_at), retryAfter, decided: true };
  if (problem in AGAIN) return again(AGAIN[problem], problem !== "temporarily-unavailable");
  if (status === 401) return over(SIGN_IN, { final: false }); // says nothing about an order under this key
  if (problem === "limit-reached") return over(OVER[problem], { orderId: body.order_id ?? lastSegment(body.order_url) });
  if (problem in OVER) return over(OVER[problem]);
  if (status === 404) return over(OVER["sale-not-found"]);
  if (status === 202 || status === 408 || status === 425 || status >= 500) return again(AGAIN["temporarily-unavailable"], false);
  return over([NOT_ACCEPTED, String(body.detail || body.title || `It answered with ${status}.`)]);
}

/**
 * Take the buyer's ticket to the line before a sale, or show it again: there is one per customer and sale.
 * The signed ticket is kept here as well, so that it outlives what the shop remembers.
 * Returns {ticket} or {problem, status, retryAfter}.
 */
export async function takeTicket(slug) {
  const name = `fluxgate.ticket.${slug}`;
  const kept = storage.getItem(name);
  const { status, body, retryAfter } = await askAsBuyer(`/api/v1/sales/${encodeURIComponent(slug)}/tickets`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(kept ? { ticket: kept } : {}),
  });
  if (status === 200 && typeof body.ticket === "string") {
    storage.setItem(name, body.ticket);
    return { ticket: body };
  }
  // A kept ticket that is refused as such (another customer's, an old key's) must not be in the way of a new one.
  if ([400, 403, 422].includes(status)) storage.removeItem(name);
  return { problem: problemOf(body), status, retryAfter };
}

const orderName = (slug) => `fluxgate.order.${slug}`;

/** The latest order that this browser placed in a sale, or null. */
export const lastOrder = (slug) => storage.getItem(orderName(slug));

/** Send the order once, under the key of its wish. */
async function placeOrder(slug, quantity, key, admission) {
  return outcomeOf(
    await askAsBuyer(`/api/v1/sales/${encodeURIComponent(slug)}/orders`, {
      method: "POST",
      headers: { "Content-Type": "application/json", "Idempotency-Key": key, ...(admission && { "Fluxgate-Admission": admission }) },
      body: JSON.stringify({ quantity }),
    }),
  );
}

/**
 * Try to buy until the answer is one that waiting does not change. `patient`: also wait while the shop is
 * busy. `admission`: the proof that the buyer's turn has come; without its being accepted waiting is no use.
 * Before each wait, onWait(outcome, ms). Returns the last outcome, or null when `signal` aborted.
 */
export async function pursue({ slug, quantity, clock, signal, onWait, patient = false, admission = null }) {
  for (let attempt = 0; ; attempt += 1) {
    const wish = readWish(slug, quantity) ?? wishFor(slug, quantity);
    // Written before the request leaves: a reload in the middle must find that its answer never came.
    keepWish(slug, quantity, { ...wish, touched: Date.now(), unsure: true });
    const outcome = await placeOrder(slug, quantity, wish.key, admission);
    if (outcome.kind === "accepted" || (outcome.kind === "over" && outcome.final)) {
      forgetWish(slug, quantity);
      if (outcome.orderId) storage.setItem(orderName(slug), outcome.orderId);
      return outcome;
    }
    const current = readWish(slug, quantity);
    if (current) keepWish(slug, quantity, { ...current, unsure: !outcome.decided });
    if (signal.aborted) return null;
    const untilOpen = outcome.kind === "not-open" ? outcome.opensAt - clock.now() : 0;
    const onTheSpot = outcome.kind === "not-open" && untilOpen < NEARLY_OPEN_MS;
    const outOfTurn = admission !== null && outcome.problem === "admission-required";
    const worthWaiting = outcome.kind === "again" || onTheSpot || (patient && outcome.kind === "busy" && !outOfTurn);
    if (!worthWaiting) return outcome;
    // opens_at is more exact than Retry-After; the jitter keeps the crowd from arriving in one millisecond.
    const ms = untilOpen > 0 ? untilOpen + 1000 * Math.random() : delayMs(attempt, outcome.retryAfter);
    onWait(outcome, ms);
    await pause(ms, signal);
    if (signal.aborted) return null;
  }
}

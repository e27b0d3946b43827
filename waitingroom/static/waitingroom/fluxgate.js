/**
 * What every page shares: the server's clock, asking the server, and writing into the page.
 *
 * Nothing here sets HTML: every word reaches the page through textContent, and the pages'
 * content security policy (require-trusted-types-for 'script') makes the browser keep it so.
 */

/** The clock believes the best of this many answers: enough to outvote a stale one, few enough to follow a drift. */
const SAMPLES = 8;
const ASK_TIMEOUT_MS = 10_000;
const BACKOFF_TOP_S = 10;

/**
 * The server's clock, counted on performance.now() so that the phone's own clock, and its owner
 * moving it, do not matter.
 *
 * A server_time was written before we received it, so each answer gives a lower bound; the highest
 * of the last ones is the best estimate and is never early: nobody is shown an open door that is shut.
 */
export function createClock() {
  const samples = []; // server's ms since 1970, minus performance.now()
  let offset = null;
  return {
    known: () => offset !== null,
    now: () => (offset === null ? Date.now() : offset + performance.now()),
    /** `receivedAt`: the reading of performance.now() when `serverTime` (ISO) had arrived. */
    sync(serverTime, receivedAt) {
      const sample = Date.parse(serverTime) - receivedAt;
      if (Number.isNaN(sample)) return;
      samples.push(sample);
      if (samples.length > SAMPLES) samples.shift();
      offset = Math.max(...samples);
    },
  };
}

/** Call `draw(now)` at each full second of the server's clock, for as long as the page lives. */
export function everySecond(clock, draw) {
  const tick = () => {
    const now = clock.now();
    draw(now);
    setTimeout(tick, 1000 - (((now % 1000) + 1000) % 1000) + 8);
  };
  tick();
}

/** Call `refresh()` when somebody looks at the page again: timers sleep with the phone. */
export function whenSeenAgain(refresh) {
  let last = performance.now();
  const seen = () => {
    if (document.visibilityState !== "visible" || performance.now() - last < 1000) return;
    last = performance.now();
    refresh();
  };
  document.addEventListener("visibilitychange", seen);
  window.addEventListener("focus", seen);
  window.addEventListener("pageshow", (event) => event.persisted && seen());
  window.addEventListener("online", seen);
}

/** Call `ask()` again and again, `seconds()` apart with jitter, only while somebody looks. */
export function whileVisible(ask, seconds) {
  const again = async () => {
    if (document.visibilityState === "visible") await ask();
    setTimeout(again, seconds() * 1000 * (0.8 + 0.4 * Math.random()));
  };
  setTimeout(again, seconds() * 1000 * (0.8 + 0.4 * Math.random()));
}

/** Milliseconds as [[number, "days"], ...], without the leading units that are zero; at least minutes and seconds. */
export function parts(ms) {
  const total = Math.max(0, Math.ceil(ms / 1000));
  const all = [
    [Math.floor(total / 86400), "days"],
    [Math.floor(total / 3600) % 24, "hours"],
    [Math.floor(total / 60) % 60, "minutes"],
    [total % 60, "seconds"],
  ];
  while (all.length > 2 && all[0][0] === 0) all.shift();
  return all;
}

export function twoDigits(number) {
  return String(number).padStart(2, "0");
}

/** Milliseconds as one line: "3 d 04:05:06", "04:05:06" or "05:06". */
export function oneLine(ms) {
  const [first, ...rest] = parts(ms);
  if (first[1] === "days") return `${first[0]} d ${rest.map(([n]) => twoDigits(n)).join(":")}`;
  return [first, ...rest].map(([n]) => twoDigits(n)).join(":");
}

/** The moments of a countdown worth saying aloud, in seconds. A timer that speaks every second helps nobody. */
const MILESTONES = [
  [3600, "One hour to go."], [1800, "30 minutes to go."], [600, "10 minutes to go."], [300, "5 minutes to go."],
  [60, "One minute to go."], [30, "30 seconds to go."], [10, "10 seconds to go."],
];

/** The milestone that was passed between two readings of the time left (ms), or null. */
export function milestone(beforeMs, leftMs) {
  const passed = MILESTONES.filter(([at]) => beforeMs > at * 1000 && leftMs <= at * 1000 && leftMs > 0);
  return passed.length ? passed[passed.length - 1][1] : null;
}

/** Seconds of a Retry-After header (a number or a date, RFC 9110 section 10.2.3), or null. */
export function retryAfterSeconds(header) {
  if (!header) return null;
  const seconds = /^\d+$/.test(header) ? Number(header) : (Date.parse(header) - Date.now()) / 1000;
  return Number.isFinite(seconds) ? Math.max(0, seconds) : null;
}

/**
 * Ask the server for JSON. Never throws: a lost network is `status: 0`, a redirect is `status: 302`.
 * `receivedAt` is a reading of performance.now(), for the clock.
 */
export async function ask(path, { headers = {}, ...options } = {}) {
  const stop = new AbortController();
  const timer = setTimeout(() => stop.abort(), ASK_TIMEOUT_MS);
  try {
    const response = await fetch(path, {
      redirect: "manual",
      cache: "no-store", // a browser that revalidates with an ETag would give us an old server_time
      signal: stop.signal,
      headers: { Accept: "application/json", ...headers },
      ...options,
    });
    const receivedAt = performance.now();
    const retryAfter = retryAfterSeconds(response.headers.get("Retry-After"));
    const status = response.type === "opaqueredirect" ? 302 : response.status;
    const read = status === 302 ? null : await response.json().catch(() => null);
    const body = read !== null && typeof read === "object" ? read : {};
    return { status, body, retryAfter, receivedAt };
  } catch {
    return { status: 0, body: {}, retryAfter: null, receivedAt: performance.now() };
  } finally {
    clearTimeout(timer);
  }
}

/** The facts of one sale: {status, sale}, `sale` null unless the status is 200. The clock learns from the answer. */
export async function readSale(slug, clock) {
  const answer = await ask(`/api/v1/sales/${encodeURIComponent(slug)}`);
  if (answer.status !== 200) return { status: answer.status, sale: null };
  clock.sync(answer.body.server_time, answer.receivedAt);
  return { status: 200, sale: answer.body };
}

/** The line before one sale: {status, line}, `line` null unless the status is 200. The clock learns from the answer. */
export async function readLine(slug, clock) {
  const answer = await ask(`/api/v1/sales/${encodeURIComponent(slug)}/line`);
  if (answer.status !== 200) return { status: answer.status, line: null };
  clock.sync(answer.body.server_time, answer.receivedAt);
  return { status: 200, line: answer.body };
}

/**
 * How long to wait (ms) before try number `attempt` + 1: from 1 s, growing to 10 s, never before the
 * server's Retry-After, and never the same for two people.
 */
export function delayMs(attempt, retryAfter) {
  const least = Math.max(1, retryAfter ?? 1);
  const grown = Math.min(BACKOFF_TOP_S, 1.5 ** Math.min(attempt, 20));
  const from = Math.max(least, grown * 0.6);
  const to = Math.max(least * 1.25, grown);
  return 1000 * (from + Math.random() * (to - from));
}

/** Wait; ends early when `signal` aborts or when a lost network is back. */
export function pause(ms, signal) {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      window.removeEventListener("online", back);
      signal?.removeEventListener("abort", done);
      resolve();
    };
    const back = () => setTimeout(done, 500 * Math.random());
    const timer = setTimeout(done, ms);
    window.addEventListener("online", back);
    signal?.addEventListener("abort", done);
  });
}

const SALE_SLUG = /^[A-Za-z0-9_-]{1,100}$/;
const ORDER_ID = /^[A-Za-z0-9_-]{1,64}$/;

/** A parameter of this page's address if it has the right form, else null. */
function parameter(name, form) {
  const value = new URLSearchParams(location.search).get(name);
  return value !== null && form.test(value) ? value : null;
}
export const saleParameter = () => parameter("sale", SALE_SLUG);
export const orderParameter = () => parameter("order", ORDER_ID);
export const quantityParameter = () => Number(parameter("quantity", /^[1-9]\d{0,5}$/)) || null;

// The pages lie beside this module, wherever the site serves its static files from.
const page = (name, query) => `${new URL(`${name}.html`, import.meta.url).pathname}?${new URLSearchParams(query)}`;
export const countdownPage = (slug) => page("countdown", { sale: slug });
export const roomPage = (slug, quantity = null) => page("room", quantity === null ? { sale: slug } : { sale: slug, quantity });
export const drawPage = (slug) => page("draw", { sale: slug });
export const orderPage = (order, slug) => page("order", slug ? { order, sale: slug } : { order });

export const find = (name, inside = document) => inside.querySelector(`[data-${name}]`);

/** Write a word into [data-name]; writes only changes, so that a live region speaks only news. */
export function write(name, words, inside = document) {
  const place = find(name, inside);
  if (place && place.textContent !== words) place.textContent = words;
}

export function show(name, visible, inside = document) {
  const place = find(name, inside);
  if (place) place.hidden = !visible;
}

/** A price: decimal string and ISO 4217 code, times a quantity. */
export function money(unitPrice, currency, quantity = 1) {
  const amount = Number(unitPrice) * quantity;
  if (!Number.isFinite(amount)) return "";
  try {
    return new Intl.NumberFormat("en", { style: "currency", currency, currencyDisplay: "narrowSymbol" }).format(amount);
  } catch {
    return `${currency ?? ""} ${amount.toFixed(2)}`.trim();
  }
}

/** A moment (ISO) in the reader's own time zone, which is named; seconds only where there are some. */
export function localTime(iso) {
  const moment = new Date(iso);
  if (Number.isNaN(moment.getTime())) return "";
  return new Intl.DateTimeFormat("en-GB", {
    weekday: "short",
    day: "numeric",
    month: "short",
    year: "numeric",
    hour: "2-digit",
    minute: "2-digit",
    second: moment.getSeconds() ? "2-digit" : undefined,
    timeZoneName: "short",
  }).format(moment);
}

const PHASES = { upcoming: "Upcoming", opening: "Any moment now", selling: "On sale now", sold_out: "Sold out", paused: "Paused", closed: "Closed" };
const BANDS = { many: "Plenty left", few: "Only a few left", none: "None left" };
export const phaseWords = (phase) => PHASES[phase] ?? "";
export const bandWords = (band) => BANDS[band] ?? "";

/** Show state and band of a sale in the pills [data-phase-pill] and [data-band]. */
export function showPills(phase, band, inside = document) {
  const pill = find("phase-pill", inside);
  if (pill) pill.dataset.phasePill = phase;
  write("phase-pill", phaseWords(phase), inside);
  const words = phase === "selling" || phase === "paused" ? bandWords(band) : "";
  const place = find("band", inside);
  if (place) place.dataset.band = band ?? "unknown";
  write("band", words, inside);
  show("band", words !== "", inside);
}

/**
 * The phase as it stands now: what the server last said, moved on by the clock. Between two answers
 * a sale opens and closes on time, because the clock is the server's. A sale that the operator has not
 * opened does not open by the clock: it is "opening" until the server says more.
 */
export function phaseNow(sale, now) {
  if (sale.phase === "upcoming" && now >= Date.parse(sale.opens_at)) {
    return sale.state === "open" ? "selling" : "opening";
  }
  if ((sale.phase === "selling" || sale.phase === "paused") && now >= Date.parse(sale.closes_at)) return "closed";
  return sale.phase;
}

const LINED_UP = ["armed", "open", "paused"];

/** Whether the way to buy leads through the line now: the same rule as `leads_into_line` in sales/phases.py. */
export function leadsIntoLine(sale, phase) {
  return sale.waiting_room === true && LINED_UP.includes(sale.state) && ["upcoming", "opening", "selling", "paused"].includes(phase);
}

/**
 * The line is arithmetic: whose turn it is follows from the published schedule, on every page as on the server.
 *
 * Only calculation and the words for its results: no page, no clock, no network. Moments are ms since 1970,
 * `segments` are those of the line document, ascending: {from_time: ISO 8601, from_number, rate: places a second}.
 *
 * @typedef {{from_time: string, from_number: number, rate: number}} Segment
 */

const MINUTE = 60_000;
/** The share by which a turn may come earlier or later than calculated, when it is said to people. */
const MARGIN = 0.2;
/** A turn is over for the server before the page asks what came of it, in ms. */
export const TURN_GRACE_MS = 600;
/** Float noise: 301 - 300.99999999999994 is nobody. */
const NOISE = 1e-6;

/** Every view of the line: heading, words, and what is said to the style sheet. */
export const VIEWS = {
  joining: ["The waiting room", "One moment: we are taking a place in the line for you.", ""],
  prequeue: ["You are here in time", "When the sale opens, a draw gives everybody who is here before the opening a place in the line. Clicking fastest gains nothing.", ""],
  drawing: ["The draw is being made", "The sale has opened. You have your place as soon as the draw is made; the line waits for it.", ""],
  waiting: ["You are in line", "This page lets you in when it is your turn. Reloading it does not help and does not hurt: your place is kept.", ""],
  missed: ["Your turn went by", "That happens, and nothing is lost but time: you have a new place, at the end of the line.", ""],
  your_turn: ["It is your turn", "Press Buy before your time runs out. No unit is set aside: one is yours as soon as you have bought it.", ""],
  paused: ["The shop has paused this sale", "The line stands still, and you keep your place. It goes on by itself when the shop does.", "sale-paused"],
  sold_out: ["Sold out", "Every unit has been bought. Should some come back, this page goes on by itself.", "sold-out"],
  closed: ["This sale is closed", "Orders are no longer taken. What you may have ordered stands.", "sale-closed"],
  signed_out: ["Please sign in", "A place in the line belongs to a person. Sign in at the shop, then come back to this page.", "unauthorized"],
};
/** What a view counts down to. */
export const ETA_LABELS = { prequeue: "The sale opens in", waiting: "Your turn comes", missed: "Your turn comes", paused: "", your_turn: "Time left to buy" };
/** Views of people who have a place, or will. */
export const QUEUED = ["waiting", "missed", "paused"];
/** States of the line as phases of a sale, where the two words differ. */
export const PHASES = { prequeue: "upcoming", waiting: "selling" };

/**
 * What a person is shown. `ready`: the sale's facts are known; `trying`: their order is under way.
 * @returns {string} a key of VIEWS
 */
export function viewOf({ line, ticket, now, missed, signedOut, ready, trying }) {
  const turn = ticket?.state === "your_turn";
  if (turn && trying && now < Date.parse(ticket.turn_ends_at)) return "your_turn"; // its answer is worth more than a document
  if (line.state === "closed" || line.state === "sold_out") return line.state;
  if (signedOut) return "signed_out";
  if (line.state === "paused") return "paused";
  if (ticket === null) return "joining";
  if (line.state === "prequeue" && now < Date.parse(line.opens_at)) return "prequeue";
  if (ticket.place === null) return "drawing";
  if (turn) return ready ? "your_turn" : "joining";
  return missed ? "missed" : "waiting";
}

/**
 * Whether asking for the ticket would tell something new.
 * @returns {boolean}
 */
export function isTicketDue(line, ticket, now) {
  if (line.state === "closed") return false;
  if (ticket === null) return true; // while it is paused or sold out as well: units that come back go to the line
  if (line.state !== "waiting") return false;
  if (ticket.place === null) return Boolean(line.draw?.seed);
  if (ticket.state === "your_turn") return now >= Date.parse(ticket.turn_ends_at) + TURN_GRACE_MS;
  const turn = turnAt(line.segments, ticket.place);
  return turn !== null && now >= turn;
}

/**
 * How many places have been called.
 * @param {Segment[]} segments
 * @param {number} at
 * @returns {number} 0 before the first segment
 */
export function numberAt(segments, at) {
  const current = segments.filter((segment) => Date.parse(segment.from_time) <= at).at(-1);
  return current ? current.from_number + ((at - Date.parse(current.from_time)) / 1000) * current.rate : 0;
}

/**
 * When the turn of a place comes; exactly what the server computes in waitingroom/schedule.py. Segments that are
 * over may be missing at the front: their places have had their turn.
 * @param {Segment[]} segments
 * @param {number} place
 * @returns {number | null} null: unknown, there is no schedule yet or the line stands still
 */
export function turnAt(segments, place) {
  if (segments.length === 0) return null;
  if (place < segments[0].from_number) return Date.parse(segments[0].from_time);
  const until = segments.findIndex((segment, index) => index > 0 && place < segment.from_number);
  const { from_time, from_number, rate } = segments.at(until === -1 ? -1 : until - 1);
  return rate === 0 ? null : Date.parse(from_time) + Math.ceil(((place - from_number) * 1000) / rate);
}

/**
 * People who are called before this place.
 * @param {Segment[]} segments
 * @param {number} place
 * @param {number} now
 * @returns {number}
 */
export function peopleAhead(segments, place, now) {
  return Math.max(0, Math.ceil(place - numberAt(segments, now) - NOISE));
}

/**
 * What a place may hope for.
 * @param {{likely_below: number, possible_below: number} | null} odds
 * @param {number | null} place
 * @returns {"likely" | "unlikely" | "none" | null} null: nothing can be said
 */
export function chance(odds, place) {
  if (!odds || place === null) return null;
  if (place < odds.likely_below) return "likely";
  return place < odds.possible_below ? "unlikely" : "none";
}

/** A number nobody should count on: exact up to 10, then rounded to two digits; with its thousands parted. */
export function roughly(number) {
  if (number <= 10) return String(number);
  const step = 10 ** Math.max(0, Math.floor(Math.log10(number)) - 1);
  const rounded = Math.round(number / step) * step;
  return `about ${grouped(rounded)}`;
}

export function people(number) {
  if (number === 0) return "nobody";
  return `${roughly(number)} ${number === 1 ? "person" : "people"}`;
}

export function grouped(number) {
  return new Intl.NumberFormat("en").format(number);
}

function halves(number) {
  const whole = Math.floor(number);
  return number === whole ? String(whole) : `${whole || ""}½`;
}

/**
 * The time until a turn as a range, never a promise; above 2 minutes at least one minute wide.
 * @param {number | null} left ms, null when unknown
 * @returns {string}
 */
export function etaWords(left) {
  if (left === null) return "not known now";
  if (left <= 5000) return "any moment now";
  if (left < MINUTE) return "in less than a minute";
  const [from, to] = [(left * (1 - MARGIN)) / MINUTE, (left * (1 + MARGIN)) / MINUTE];
  if (from < 90) {
    const least = Math.max(1, Math.round(from));
    return `in ${least} to ${Math.max(least + 1, Math.round(to))} minutes`;
  }
  const least = Math.floor(from / 30) / 2;
  return `in ${halves(least)} to ${halves(Math.max(least + 0.5, Math.ceil(to / 30) / 2))} hours`;
}

const CHANCES = {
  likely: "There will likely be a unit for you.",
  unlikely: "It is unlikely that a unit is left when your turn comes.",
  none: "Honestly: unless units come back, none will be left when your turn comes.",
};

/**
 * The chance of a place, said honestly, with about how many units are left.
 * @param {"likely" | "unlikely" | "none" | null} hope
 * @param {number | null} units
 * @returns {string}
 */
export function chanceWords(hope, units) {
  const left = units === 0 ? "no unit is left just now" : `${roughly(units ?? 0)} ${units === 1 ? "unit is" : "units are"} left`;
  return [CHANCES[hope], units !== null && `${left[0].toUpperCase()}${left.slice(1)}.`].filter(Boolean).join(" ");
}

/** Whether a turn was put off by so much that a person deserves the reason. */
export function isPutOff(before, turn, now) {
  return before !== null && turn !== null && turn - before > Math.max(MINUTE, MARGIN * (before - now));
}

/**
 * Seconds until the line document is worth another look: seldom far from what is waited for, often near it,
 * and never the same for two people.
 * @param {string} state of the line, or "your_turn"
 * @param {number | null} left ms until what is waited for; null when unknown
 * @param {number} random from 0 to 1
 * @returns {number}
 */
export function secondsToNextLook(state, left, random = Math.random()) {
  const between = (least, most) => least + (most - least) * random;
  if (state === "closed") return between(30, 60);
  if (state === "your_turn") return between(2, 2.5);
  if (state === "paused" || state === "sold_out" || left === null) return between(4.5, 5.5);
  if (left > 10 * MINUTE) return between(30, 60);
  if (left > 2 * MINUTE) return between(10, 15);
  return left > MINUTE / 2 ? between(3, 5) : between(2, 2.5);
}

/** Seconds over which the places of a draw are asked for, so that a big crowd does not ask in one instant. */
export function drawSpread(tickets) {
  return Math.min(10, 0.5 + tickets / 2000);
}

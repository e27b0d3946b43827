/**
 * The draw, calculated once more: the same arithmetic as waitingroom/draw.py, with the SHA-256 of the browser.
 *
 * Only calculation: no page, no network. Bytes are written in hex, numbers and places are counted from 0. The
 * permutation is a Feistel network with cycle walking (Black and Rogaway, "Ciphers with Arbitrary Finite Domains",
 * 2002). Without a secure context (https://, or localhost) browsers keep SHA-256 from pages:
 * https://w3c.github.io/webcrypto/#crypto-interface. Every function with a promise then rejects with TypeError.
 */

/** More than the 4 of Luby and Rackoff (1988): with a few entries the halves have a few bits. */
export const ROUNDS = 10;
/** Of each half, however few the entries. */
const LEAST_BITS = 4;
const MOST_ENTRIES = 2 ** 32;

/** Whether this browser lets this page calculate. */
export const canCalculate = () => Boolean(globalThis.crypto?.subtle);

/**
 * What the shop publishes before the draw.
 * @param {string} secretHex
 * @returns {Promise<string>} SHA-256 of the secret, 64 hex digits
 */
export async function commitmentOf(secretHex) {
  return toHex(await sha256(fromHex(secretHex)));
}

/**
 * @param {string} entriesText the frozen list: a tag a line, each line ended by \n
 * @returns {Promise<string>} SHA-256 of its UTF-8, 64 hex digits
 */
export async function digestOf(entriesText) {
  return toHex(await sha256(new TextEncoder().encode(entriesText)));
}

/**
 * @param {string} secretHex
 * @param {string} digestHex of the list of entries
 * @param {string} [beacon] any text, or none
 * @returns {Promise<string>} SHA-256 of the three one after the other, 64 hex digits: it fixes every place
 */
export async function seedOf(secretHex, digestHex, beacon = "") {
  const parts = [fromHex(secretHex), fromHex(digestHex), new TextEncoder().encode(beacon)];
  const joined = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  let at = 0;
  for (const part of parts) {
    joined.set(part, at);
    at += part.length;
  }
  return toHex(await sha256(joined));
}

/**
 * The place in line of an entry. Costs the same for ten entries as for a million: from five entries on, less than four passes on average.
 * @param {string} seedHex
 * @param {number} number of the entry, 0 to entries - 1
 * @param {number} entries how many took part, up to 2^32
 * @returns {Promise<number>} 0 to entries - 1; 0 is called first
 * @throws {RangeError} the number took no part
 */
export async function placeOf(seedHex, number, entries) {
  if (!Number.isInteger(number) || !Number.isInteger(entries) || entries > MOST_ENTRIES || number < 0 || number >= entries) {
    throw new RangeError(`number ${number} is not among ${entries} entries`);
  }
  const seed = fromHex(seedHex);
  const half = Math.max(LEAST_BITS, Math.ceil((32 - Math.clz32(entries - 1)) / 2)); // bits
  let place = number;
  do place = await permuted(seed, place, half);
  while (place >= entries);
  return place;
}

/**
 * Where a tag stands in the list.
 * @param {string} entriesText
 * @param {string} tag
 * @returns {number | null} null: nowhere
 */
export function numberOf(entriesText, tag) {
  if (!/^\w+$/.test(tag)) return null;
  const lines = `\n${entriesText}`;
  const at = lines.indexOf(`\n${tag}\n`);
  return at === -1 ? null : countOf(lines.slice(0, at + 1)) - 1;
}

/**
 * @param {string} entriesText
 * @returns {number} of lines
 */
export function countOf(entriesText) {
  let count = 0;
  for (let at = entriesText.indexOf("\n"); at !== -1; at = entriesText.indexOf("\n", at + 1)) count += 1;
  return count;
}

/** One pass over 0 .. 4^half - 1. With 2^32 entries the halves have 16 bits, so no half meets the sign bit. */
async function permuted(seed, number, half) {
  const size = 2 ** half;
  let [left, right] = [Math.floor(number / size), number % size];
  const message = new Uint8Array(seed.length + 5);
  message.set(seed);
  const view = new DataView(message.buffer);
  for (let round = 0; round < ROUNDS; round += 1) {
    view.setUint8(seed.length, round);
    view.setUint32(seed.length + 1, right); // big-endian
    const mixed = new DataView((await sha256(message)).buffer).getUint32(0);
    [left, right] = [right, left ^ (mixed & (size - 1))];
  }
  return left * size + right;
}

async function sha256(bytes) {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
}

function fromHex(text) {
  if (!/^([0-9a-f]{2})*$/.test(text)) throw new TypeError("not hex");
  return Uint8Array.from(text.match(/../g) ?? [], (pair) => parseInt(pair, 16));
}

function toHex(bytes) {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

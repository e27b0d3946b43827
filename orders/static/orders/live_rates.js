// What follows from two answers in a row: rates and percentiles. Nothing here remembers or draws.

// The verdicts as the page groups them; what it does not know counts as refused.
export const GROUPS = [
  { name: "claimed", verdicts: ["claimed"] },
  { name: "replayed", verdicts: ["replayed"] },
  { name: "asked to come back", verdicts: ["busy", "admission_required", "not_open", "paused"] },
  { name: "refused", verdicts: null },
  { name: "unavailable", verdicts: ["unavailable"] },
];

const LONGEST = 10_000; // ms between two answers; further apart an average hides what happened

// Per second; null where two counts say nothing: a counter that began anew, or a long silence.
export function perSecond(before, after, milliseconds) {
  if (before == null || after == null || after < before) return null;
  if (!(milliseconds > 0 && milliseconds <= LONGEST)) return null;
  return ((after - before) * 1000) / milliseconds;
}

export function claimsPerSecond(before, after) {
  if (!before || before.epoch !== after.epoch) return null; // armed again: counted anew
  return perSecond(before.claims, after.claims, after.clock - before.clock);
}

const total = (answers, verdicts) => verdicts.reduce((sum, verdict) => sum + (answers[verdict] ?? 0), 0);

// One rate for each of GROUPS. Only counts of the same processes may be compared.
export function verdictsPerSecond(before, after) {
  if (!sameProcesses(before, after)) return GROUPS.map(() => null);
  const known = new Set(GROUPS.flatMap((group) => group.verdicts ?? []));
  return GROUPS.map(({ verdicts }) => {
    const names = verdicts ?? Object.keys(after.answers).filter((name) => !known.has(name));
    return perSecond(total(before.answers, names), total(after.answers, names), after.at - before.at);
  });
}

// null where one of them is not known.
export const sum = (numbers) => (numbers.includes(null) ? null : numbers.reduce((all, each) => all + each, 0));

export function sameProcesses(before, after) {
  return Boolean(before) && before.name === after.name && before.master === after.master;
}

// As Prometheus' histogram_quantile: seconds, linear within a bucket. `after` may have begun at `before`.
// null: nothing was observed in between. Above the last bound: that bound, with `above`.
export function quantile(share, before, after) {
  const counts = after.map(([, count], at) => count - (before?.[at]?.[1] ?? 0));
  const all = counts.at(-1);
  if (!(all > 0)) return null;
  const rank = share * all;
  const at = counts.findIndex((count) => count >= rank);
  const [bound] = after[at];
  const below = at ? after[at - 1][0] : 0;
  if (bound === null) return { seconds: below, above: true };
  const under = at ? counts[at - 1] : 0;
  return { seconds: below + ((bound - below) * (rank - under)) / (counts[at] - under), above: false };
}

export const units = (number) => (number == null ? "–" : number.toLocaleString("en-GB"));

export function rate(number) {
  if (number == null) return "–";
  return number.toLocaleString("en-GB", { maximumFractionDigits: number < 10 ? 1 : 0 });
}

export function duration(found) {
  if (!found) return "–";
  const [number, unit] = found.seconds < 1 ? [found.seconds * 1000, "ms"] : [found.seconds, "s"];
  return `${found.above ? "> " : ""}${number.toLocaleString("en-GB", { maximumSignificantDigits: 2 })} ${unit}`;
}

// A span of time as people read it: 42 s, 12:05, 3:00:00, 2 d 4 h.
export function span(milliseconds) {
  const seconds = Math.max(0, Math.ceil(milliseconds / 1000));
  const [hours, minutes, rest] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, seconds % 60];
  const two = (number) => String(number).padStart(2, "0");
  if (hours >= 48) return `${Math.floor(hours / 24)} d ${hours % 24} h`;
  if (hours) return `${hours}:${two(minutes)}:${two(rest)}`;
  return seconds < 60 ? `${seconds} s` : `${minutes}:${two(rest)}`;
}

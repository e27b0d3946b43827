/**
 * The commitment to a draw as this browser saw it before the opening: the one thing a shop could not take back.
 * The waiting room notes it, and so does the page of the draw, which compares.
 */

const nameOf = (slug) => `fluxgate.commitment.${slug}`;

/** What was noted: {commitment, seen: the server's time}, or null. */
export function noted(slug) {
  try {
    const note = JSON.parse(localStorage.getItem(nameOf(slug)));
    return typeof note?.commitment === "string" ? note : null;
  } catch {
    return null;
  }
}

/** Note the commitment of a line document that speaks of a draw to come. The first one counts. */
export function noteDown(slug, line) {
  if (noted(slug) !== null) return;
  try {
    localStorage.setItem(nameOf(slug), JSON.stringify({ commitment: line.draw.commitment, seen: line.server_time }));
  } catch {
    // a browser that keeps nothing: its owner may
  }
}

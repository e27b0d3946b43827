/** The buy form of the store front and of the countdown: how many, one button, and what came of it. */
import { countdownPage, find, money, orderPage, roomPage, show, write } from "./fluxgate.js";
import { leaveWish, pursue, readWish, wishFor } from "./buying.js";

const LEAVING_KINDS = {
  accepted: (slug, quantity, outcome) => orderPage(outcome.orderId, slug),
  busy: (slug, quantity) => roomPage(slug, quantity),
  "not-open": (slug) => countdownPage(slug),
};

/** Refusals that a fresh admission may heal. */
const OUT_OF_TURN = ["admission-required", "admission-invalid"];

/**
 * Wire the form [data-buy] inside `place`. `sale()` gives the sale's facts as last known. In the waiting room,
 * `turn` is {admission(): the proof that it is the buyer's turn, refused(): it was not accepted}.
 * Returns {allow(open): whether buying makes sense now, isTrying(), abandon(): stop trying, without a word}.
 */
export function wireBuyForm(place, clock, sale, turn = null) {
  const form = find("buy", place);
  const field = form.elements.quantity;
  const button = find("buy-button", form);
  let trying = null; // the AbortController of the one attempt under way
  let open = false;
  let abandoned = false;

  const limit = () => Math.max(1, sale().limit_per_customer);
  const quantity = () => Math.min(limit(), Math.max(1, Math.trunc(Number(field.value)) || 1));

  function draw() {
    const wanted = quantity();
    field.max = String(limit());
    find("less", form).disabled = trying !== null || wanted <= 1;
    find("more", form).disabled = trying !== null || wanted >= limit();
    field.readOnly = trying !== null;
    find("stepper", form).hidden = limit() === 1;
    // aria-disabled, not disabled: a disabled button drops the focus of whoever has just pressed it.
    button.setAttribute("aria-disabled", String(!open || trying !== null));
    const price = money(sale().unit_price, sale().currency, wanted);
    write("buy-words", trying ? "Asking the shop…" : open ? `Buy for ${price}` : "Not on sale now", button);
    show("stop", false, place);
  }

  function say(text, { link = null, linkWords = "", problem = "" } = {}) {
    const words = find("say", place);
    words.dataset.problem = problem;
    write("say-words", text, place);
    const anchor = find("say-link", place);
    anchor.hidden = link === null;
    if (link !== null) anchor.href = link;
    anchor.textContent = linkWords;
    words.hidden = text === "";
  }

  function noteUnanswered() {
    const wish = readWish(sale().slug, quantity());
    if (wish?.unsure) say("Your last try got no answer. Press Buy to find out: it cannot buy twice.");
    else if (find("say", place).dataset.problem === "") say("");
  }

  async function buy() {
    if (trying !== null || !open) return;
    const controller = new AbortController();
    const { slug } = sale();
    const wanted = quantity();
    trying = controller;
    abandoned = false;
    wishFor(slug, wanted);
    draw();
    say("");
    let nextTryAt = 0; // on performance.now()
    const onWait = (outcome, ms) => {
      nextTryAt = performance.now() + ms;
      show("stop", true, place);
      const why = outcome.text ?? "More people want this right now than the door lets through.";
      say(`${why} We keep trying by ourselves.`, { problem: outcome.problem || "offline" });
    };
    // The seconds tick on the button, which is no live region: a screen reader hears the reason once.
    const ticker = setInterval(() => {
      const left = Math.ceil((nextTryAt - performance.now()) / 1000);
      write("buy-words", left > 0 ? `Trying again in ${left} s` : "Asking the shop…", button);
    }, 250);
    const admission = turn?.admission() ?? null;
    const outcome = await pursue({ slug, quantity: wanted, clock, signal: controller.signal, onWait, patient: turn !== null, admission });
    clearInterval(ticker);
    if (turn && OUT_OF_TURN.includes(outcome?.problem)) {
      trying = null;
      draw();
      say("");
      turn.refused();
      return;
    }
    const target = outcome && LEAVING_KINDS[outcome.kind]?.(slug, wanted, outcome);
    if (target) {
      // Stays locked: until the next page is there, another press must not start another order.
      location.assign(target);
      return;
    }
    trying = null;
    draw();
    if (outcome === null) say(abandoned ? "" : "Stopped.");
    else if (outcome.orderId) say(`${outcome.heading}. ${outcome.text}`, { link: orderPage(outcome.orderId, slug), linkWords: "See your order", problem: outcome.problem });
    else say(`${outcome.heading}. ${outcome.text}`, { problem: outcome.problem || "refused" });
  }

  const step = (by) => {
    field.value = String(Math.min(limit(), Math.max(1, quantity() + by)));
    draw();
    noteUnanswered();
  };
  find("less", form).addEventListener("click", () => step(-1));
  find("more", form).addEventListener("click", () => step(1));
  field.addEventListener("input", draw);
  field.addEventListener("change", () => step(0));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    buy();
  });
  find("stop", place).addEventListener("click", () => {
    leaveWish(sale().slug, quantity());
    trying?.abort();
    button.focus();
  });
  window.addEventListener("pageshow", (event) => {
    if (!event.persisted) return; // back from the next page: this one was kept frozen, lock and all
    trying?.abort();
    trying = null;
    draw();
  });

  form.hidden = false;
  draw();
  noteUnanswered();
  return {
    allow(yes) {
      if (open === yes) return;
      open = yes;
      if (trying === null) draw();
    },
    redraw: () => trying === null && draw(),
    isTrying: () => trying !== null,
    abandon() {
      abandoned = true;
      trying?.abort();
    },
  };
}

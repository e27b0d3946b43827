/** The store front: the server drew the cards; this keeps their clocks, states and buttons true. */
import {
  ask, createClock, everySecond, find, leadsIntoLine, localTime, oneLine, phaseNow, show, showPills, whenSeenAgain, whileVisible, write,
} from "./fluxgate.js";
import { wireBuyForm } from "./buyform.js";

const clock = createClock();

function adoptClockOfThePage() {
  const [arrival] = performance.getEntriesByType("navigation");
  if (!arrival || arrival.type === "back_forward") return; // a kept copy of the page has an old time in it
  clock.sync(document.body.dataset.serverTime, arrival.responseStart);
}

/** The facts that the server wrote on the card, in the API's words. */
function factsOf(card) {
  const { slug, state, phase, opensAt, closesAt, unitPrice, currency, limit, waitingRoom } = card.dataset;
  return {
    slug, state, phase, opens_at: opensAt, closes_at: closesAt, unit_price: unitPrice, currency, limit_per_customer: Number(limit), units_left: "unknown",
    waiting_room: waitingRoom === "true",
  };
}

function wireCard(card) {
  let sale = factsOf(card);
  const form = wireBuyForm(card, clock, () => sale);

  function draw(now) {
    if (!clock.known()) return;
    const phase = phaseNow(sale, now);
    const opening = phase === "upcoming" || phase === "opening";
    card.dataset.phase = phase;
    showPills(phase, sale.units_left, card);
    const lined = leadsIntoLine(sale, phase);
    const buyable = !lined && (phase === "selling" || phase === "paused");
    form.allow(buyable);
    show("clock-block", opening || phase === "selling" || phase === "paused", card);
    show("buy", buyable || form.isTrying(), card);
    show("line-link", lined && !form.isTrying(), card);
    show("countdown-link", opening, card);
    write("clock-label", opening ? "Opens in" : "Closes in", card);
    const moment = opening ? sale.opens_at : sale.closes_at;
    write("clock", phase === "opening" ? "now" : oneLine(Date.parse(moment) - now), card);
    write("when", localTime(moment), card);
    find("when", card).dateTime = moment;
  }

  return {
    slug: sale.slug,
    draw,
    adopt(facts) {
      sale = facts;
      form.redraw();
      draw(clock.now());
    },
    // Near its opening or while it sells, a sale is asked after more often.
    isLively: (now) => ["selling", "opening", "paused"].includes(phaseNow(sale, now)) || Math.abs(Date.parse(sale.opens_at) - now) < 60_000,
  };
}

adoptClockOfThePage();
const cards = Array.from(document.querySelectorAll("[data-sale-card]"), wireCard);

async function refresh() {
  const answer = await ask("/api/v1/sales");
  const stale = answer.status !== 200 || !Array.isArray(answer.body.sales);
  show("stale", stale);
  if (stale) return;
  clock.sync(answer.body.server_time, answer.receivedAt);
  const facts = new Map(answer.body.sales.map((sale) => [sale.slug, sale]));
  for (const card of cards) {
    if (facts.has(card.slug)) card.adopt(facts.get(card.slug));
  }
  const known = new Set(cards.map((card) => card.slug));
  show("more-sales", answer.body.sales.some((sale) => !known.has(sale.slug)));
}

everySecond(clock, (now) => cards.forEach((card) => card.draw(now)));
find("reload")?.addEventListener("click", () => location.reload());
whenSeenAgain(refresh);
whileVisible(refresh, () => (cards.some((card) => card.isLively(clock.now())) ? 5 : 30));
refresh();

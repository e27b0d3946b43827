/** The countdown: big, on the server's clock, and at zero the buy button is here. */
import {
  createClock, everySecond, find, leadsIntoLine, localTime, milestone, money, parts, phaseNow, readSale, roomPage, saleParameter, show, showPills, twoDigits,
  whenSeenAgain, whileVisible, write,
} from "./fluxgate.js";
import { wireBuyForm } from "./buyform.js";

const clock = createClock();
const slug = saleParameter();
/** Each visitor sees the door open up to a second late, so that a crowd does not press in one millisecond. */
const spreadMs = 1000 * Math.random();

const HEADINGS = {
  upcoming: "Opens in",
  opening: "Opening any moment now",
  selling: "It is open",
  paused: "The shop has paused this sale",
  sold_out: "Sold out",
  closed: "This sale is closed",
};
const EXPLANATIONS = {
  upcoming: "You can leave this page open. The buy button appears here by itself.",
  opening: "The shop is about to open the door. Nothing to do but stay here.",
  selling: "",
  paused: "You can press Buy; we then keep asking until the shop goes on.",
  sold_out: "Every unit has been bought.",
  closed: "Orders are no longer taken.",
};
/** The same for a sale with a line, from the moment at which it can be joined. */
const LINE_EXPLANATIONS = {
  upcoming: "You can join the line now. Everybody who is in it by the opening takes part in a draw for the places, so there is no hurry.",
  opening: "The shop is about to open the door. The line can be joined already.",
  selling: "People buy in turns here. Join the line, and the page lets you in when it is yours.",
  paused: "You can join the line meanwhile. It goes on when the shop does.",
};

let sale = null;
let form = null;
let shown = null;
let lastLeft = null;

function drawDigits(ms) {
  const groups = parts(ms);
  const line = find("digits");
  line.dataset.groups = String(groups.length);
  while (line.children.length > groups.length) line.lastElementChild.remove();
  while (line.children.length < groups.length) {
    const group = document.createElement("span");
    group.className = "digit-group";
    group.append(document.createElement("b"), document.createElement("small"));
    line.append(group);
  }
  groups.forEach(([number, unit], index) => {
    const [digits, words] = line.children[index].children;
    digits.textContent = twoDigits(number);
    words.textContent = number === 1 ? unit.slice(0, -1) : unit;
  });
}

function draw(now) {
  if (sale === null) return;
  const phase = phaseNow(sale, now - (sale.phase === "upcoming" ? spreadMs : 0));
  const left = Date.parse(sale.opens_at) - now;
  const lined = leadsIntoLine(sale, phase);
  const buyable = !lined && (phase === "selling" || phase === "paused");
  if (phase === "upcoming") {
    drawDigits(left);
    const words = lastLeft === null ? null : milestone(lastLeft, left);
    if (words) write("spoken", words);
    lastLeft = left;
    document.title = `${parts(left).map(([n]) => twoDigits(n)).join(":")} · ${sale.product.name}`;
  }
  form.allow(buyable);
  show("line", lined && !form.isTrying());
  show("buy", buyable || form.isTrying());
  write("explanation", (lined ? LINE_EXPLANATIONS : EXPLANATIONS)[phase] ?? "");
  if (phase === shown) return;
  shown = phase;
  if (phase === "opening") setTimeout(refresh, spreadMs); // what we know may be older than the arming
  document.body.dataset.phase = phase;
  write("heading", HEADINGS[phase] ?? "");
  showPills(phase, sale.units_left);
  show("digits", phase === "upcoming");
  show("other-sales", phase === "sold_out" || phase === "closed");
  if (phase !== "upcoming") {
    document.title = `${HEADINGS[phase] ?? "Sale"} · ${sale.product.name}`;
    write("spoken", HEADINGS[phase] ?? "");
  }
}

function adopt(facts) {
  sale = facts;
  write("sale-name", sale.name);
  write("product-name", sale.product.name);
  write("description", sale.product.description ?? "");
  write("price", money(sale.unit_price, sale.currency));
  write("limit", sale.limit_per_customer === 1 ? "one per customer" : `${sale.limit_per_customer} per customer`);
  write("when", localTime(sale.opens_at));
  find("line-link").href = roomPage(slug);
  show("loading", false);
  show("panel", true);
  form ??= wireBuyForm(document, clock, () => sale);
  form.redraw();
  showPills(phaseNow(sale, clock.now()), sale.units_left);
  draw(clock.now());
}

async function refresh() {
  const answer = await readSale(slug, clock);
  if (answer.sale) adopt(answer.sale);
  show("stale", answer.sale === null && answer.status !== 404 && sale !== null);
  if (answer.status === 404) return missing();
  if (sale === null) write("loading-words", "The shop could not be reached. We keep trying.");
}

function missing() {
  sale = null;
  document.title = "No such sale · Flux-Gate";
  show("loading", false);
  show("panel", false);
  show("missing", true);
}

function seconds() {
  if (sale === null) return 3;
  if (shown === "opening") return 3;
  return Date.parse(sale.opens_at) - clock.now() > 60_000 ? 30 : 10;
}

if (slug === null) missing();
else {
  everySecond(clock, (now) => {
    draw(now);
    // The spread opening falls between two ticks.
    if (sale?.phase === "upcoming" && now >= Date.parse(sale.opens_at) && shown === "upcoming") setTimeout(() => draw(clock.now()), spreadMs + 10);
  });
  whenSeenAgain(refresh);
  whileVisible(refresh, seconds);
  refresh();
}

/** The merchant's brand on a page: at once as it was last seen, then as it is. */
import { ask } from "./fluxgate.js";

const KEPT = "fluxgate.brand";
const OURS = "Flux-Gate";
const dark = matchMedia("(prefers-color-scheme: dark)");

/** @param {{name: string, accent: string, accent_dark: string, logo_url: string|null}} brand as GET /api/v1/brand tells it */
function wear(brand) {
  for (const place of document.querySelectorAll(".brand span")) place.textContent = brand.name;
  if (brand.logo_url) for (const image of document.querySelectorAll(".brand img")) image.src = brand.logo_url;
  const accent = dark.matches ? brand.accent_dark : brand.accent;
  const style = document.documentElement.style;
  style.setProperty("--accent", accent);
  style.setProperty("--accent-deep", `color-mix(in srgb, ${accent} 82%, ${dark.matches ? "white" : "black"})`);
  title(brand.name);
}

/** Pages write their own titles, each with our name at its end. */
function title(name) {
  const end = ` · ${OURS}`;
  if (!name.endsWith(end) && name !== OURS && document.title.endsWith(end)) document.title = document.title.slice(0, -OURS.length) + name;
}

function kept() {
  try {
    return JSON.parse(localStorage.getItem(KEPT));
  } catch {
    return null; // no storage, or something else in it
  }
}

function keep(brand) {
  try {
    localStorage.setItem(KEPT, JSON.stringify(brand));
  } catch {
    // The page asks again next time.
  }
}

let brand = kept();
if (brand?.name) wear(brand);
dark.addEventListener("change", () => brand?.name && wear(brand));
new MutationObserver(() => brand?.name && title(brand.name)).observe(document.querySelector("title"), { childList: true });
const answer = await ask("/api/v1/brand");
if (answer.status === 200) {
  brand = answer.body;
  keep(brand);
  wear(brand);
}

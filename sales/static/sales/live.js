// The live panel of a sale's page: asks for its numbers every two seconds while the page is visible.
"use strict";
(() => {
  const panel = document.querySelector("[data-live-url]");
  if (!panel) return;
  const EVERY = 2000; // ms
  const spot = (name) => panel.querySelector(`[data-live="${name}"]`);
  const say = (name, text) => {
    spot(name).textContent = text;
  };
  const alarm = (text) => {
    say("alarm", text);
    spot("alarm").hidden = !text;
  };

  function show(live) {
    const gate = live.gate;
    say("epoch", live.epoch || "–");
    say("sold", live.sold);
    for (const name of ["remaining", "held", "queued"]) say(name, gate ? gate[name] : "–");
    say("gate-state", !live.reachable ? "unreachable" : gate ? gate.state : "holds nothing");
    say(
      "balance",
      gate
        ? `Loaded ${gate.loaded} · settled ${gate.settled} · released ${gate.released}` +
            (live.balanced ? "" : " · does not add up")
        : "",
    );
    spot("progress").value = live.sold;
    const at = spot("at");
    at.dateTime = live.at;
    at.textContent = `${live.at.slice(11, 19)} UTC`;
    if (!live.reachable) {
      alarm(
        "The gate is unreachable: nothing is granted until it is back. What was promised is in the log.",
      );
    } else if (!live.sealed && gate.state !== "closed") {
      alarm("The gate is fenced: its Redis was restarted or replaced since arming, and nothing sells.");
    } else if (live.state !== panel.dataset.state) {
      alarm(`This sale is ${live.label.toLowerCase()} now: reload the page for its next steps.`);
    } else {
      alarm("");
    }
  }

  async function refresh() {
    if (!document.hidden) {
      try {
        const answer = await fetch(panel.dataset.liveUrl, {
          headers: { Accept: "application/json" },
          redirect: "error", // a redirect leads to the login page
          cache: "no-store",
        });
        if (!answer.ok) throw new Error(answer.statusText);
        show(await answer.json());
      } catch {
        alarm("No fresh numbers: the site does not answer, or you are signed out. The numbers below are old.");
      }
    }
    // From the end of one answer to the next question: a slow site is not asked faster.
    setTimeout(refresh, EVERY);
  }
  setTimeout(refresh, EVERY);
})();

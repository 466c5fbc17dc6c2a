/** The line itself: how much flows, how far behind, how fresh, how fast. */

import { html, useEffect, useState } from "/console/vendor/htm-preact.js";
import * as api from "/console/api.js";
import { Series } from "/console/plot.js";

const EVERY_MS = 1000;
const KEEP = 180;

/** @param {number|null|undefined} value @param {number} [digits] */
const number = (value, digits = 0) =>
  value === null || value === undefined ? "–" : Number(value).toLocaleString("en", { maximumFractionDigits: digits });

/** Follow the line while the page is open. @returns {{now: any, past: any[], error: string|null}} */
export function useLine() {
  const [seen, setSeen] = useState({ now: null, past: [], error: null });
  useEffect(() => {
    let open = true;
    const look = async () => {
      try {
        const now = await api.line();
        if (open) setSeen((old) => ({ now, past: [...old.past, { at: Date.now() / 1000, ...now }].slice(-KEEP), error: null }));
      } catch (error) {
        if (open) setSeen((old) => ({ ...old, error: "The service does not answer: " + error.message }));
      }
      if (open) setTimeout(look, EVERY_MS);
    };
    look();
    return () => { open = false; };
  }, []);
  return seen;
}

const Figure = ({ name, value, unit = "", note = "" }) => html`
  <div class="figure"><dt>${name}</dt><dd>${value}${value !== "–" && unit && html`<span> ${unit}</span>`}<small>${note}</small></dd></div>`;

/** The few figures that every page shows at its top. @param {{now: any}} of */
export function Strip({ now }) {
  const l = now || {};
  const fresh = l.freshness_ms || {}, took = l.recommend_ms || {};
  return html`<dl class="strip" aria-label="The line">
    <${Figure} name="Events" value=${number(l.events_per_s)} unit="/s" note=${`${number(l.applied)} folded so far`} />
    <${Figure} name="Lag" value=${number(l.lag)} note="events not folded yet" />
    <${Figure} name="Freshness, event to store" value=${number(fresh.p50)} unit="ms" note=${fresh.p99 ? `p99 ${number(fresh.p99)} ms, last 10 s` : "nothing came in the last 10 s"} />
    <${Figure} name="Answer" value=${number(took.p50, 1)} unit="ms" note=${took.p99 ? `p99 ${number(took.p99, 1)} ms, newest 2,000` : "none given yet"} />
    <${Figure} name="Model" value=${l.bundle ? "v" + l.bundle : now ? "none" : "–"} note=${l.bundle ? "champion" : now ? "run freshet train" : ""} />
  </dl>`;
}

export function Line() {
  const { now, past, error } = useLine();
  const times = past.map((p) => p.at);
  const of = (get) => past.map((p) => get(p) ?? null);
  return html`
    <h1>The line</h1>
    ${error && html`<p role="alert" class="problem">${error}</p>`}
    <${Strip} now=${now} />
    <section class="plots">
      <${Series} label="Events folded" unit="/s" times=${times} values=${of((p) => p.events_per_s)} />
      <${Series} label="Lag" unit="events" times=${times} values=${of((p) => p.lag)} />
      <${Series} label="Freshness p99, event to store" unit="ms" times=${times} values=${of((p) => p.freshness_ms && p.freshness_ms.p99)} />
      <${Series} label="Answer p99, in the service" unit="ms" times=${times} values=${of((p) => p.recommend_ms.p99)} />
    </section>
    ${now && html`<p class="quiet">${number(now.users)} users and ${number(now.items)} items have a state. ${number(now.duplicates)} duplicates were
      left out, ${number(now.rejected)} records were rejected. ${number(now.answers_per_s, 1)} answers a second now.
      ${now.applied === null && " The worker does not answer: see freshet status."}</p>`}`;
}

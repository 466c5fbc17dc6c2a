/** The line itself: how much flows, how far behind, how fresh, how fast. */

import { html, useEffect, useState } from "/console/vendor/htm-preact.js";
import * as api from "/console/api.js";
import { Series } from "/console/plot.js";

const EVERY_MS = 1000;
const KEEP = 180;

const number = (value, digits = 0) => value === null || value === undefined ? "–" : Number(value).toLocaleString("en", { maximumFractionDigits: digits });

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
        if (open) setSeen((old) => ({ ...old, error: error.message }));
      }
      if (open) setTimeout(look, EVERY_MS);
    };
    look();
    return () => { open = false; };
  }, []);
  return seen;
}

const Figure = ({ name, value, unit = "", note = "" }) => html`
  <article class="figure"><small>${name}</small><strong>${value}<span>${unit}</span></strong><small class="quiet">${note}</small></article>`;

/** The few figures that every page shows at its top. */
export function Strip({ now }) {
  const l = now || {};
  const fresh = l.freshness_ms || {}, took = l.recommend_ms || {};
  return html`<section class="strip" aria-label="The line">
    <${Figure} name="Events" value=${number(l.events_per_s)} unit=" /s" note=${`${number(l.applied)} applied`} />
    <${Figure} name="Lag" value=${number(l.lag)} unit="" note="events not folded yet" />
    <${Figure} name="Freshness p50" value=${number(fresh.p50)} unit=" ms" note=${`p99 ${number(fresh.p99)} ms, event to Redis`} />
    <${Figure} name="Recommend p50" value=${number(took.p50, 1)} unit=" ms" note=${`p99 ${number(took.p99, 1)} ms, in the service`} />
    <${Figure} name="Bundle" value=${l.bundle ? "v" + l.bundle : "none"} note=${l.bundle ? "champion" : "run freshet train"} />
  </section>`;
}

export function Line() {
  const { now, past, error } = useLine();
  const times = past.map((p) => p.at);
  const of = (get) => past.map((p) => get(p) ?? null);
  return html`
    <h1>The line</h1>
    ${error && html`<p role="alert" class="problem">${error}</p>`}
    <${Strip} now=${now} />
    <section class="grid two">
      <${Series} label="Events folded per second" times=${times} values=${of((p) => p.events_per_s)} />
      <${Series} label="Lag, events" times=${times} values=${of((p) => p.lag)} />
      <${Series} label="Freshness p99, ms: event to Redis" times=${times} values=${of((p) => p.freshness_ms.p99)} />
      <${Series} label="/recommend p99, ms" times=${times} values=${of((p) => p.recommend_ms.p99)} />
    </section>
    ${now && html`<p class="quiet">${number(now.users)} users and ${number(now.items)} items have a state. ${number(now.duplicates)} duplicates were
      left out, ${number(now.rejected)} records were rejected. ${number(now.answers_per_s, 1)} answers a second.</p>`}`;
}

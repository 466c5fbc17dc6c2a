/** What is known of a user at this instant: interest, newest events, every value. */

import { html } from "/console/vendor/htm-preact.js";
import { Bars } from "/console/plot.js";

const EVENTS = 10;
const ago = (/** @type {number} */ s) => s < 60 ? `${Math.round(s)} s` : s < 3600 ? `${Math.round(s / 60)} min` : s < 86400 ? `${Math.round(s / 3600)} h` : `${Math.round(s / 86400)} d`;

/** The newest likes and purchases, newest first: a purchase is a like too, and is shown as what it was. */
function newest(v) {
  const bought = v.bought.map((id, n) => ({ id, age: v.bought_age_s[n], what: "bought" }));
  const same = (a, b) => a.id === b.id && Math.abs(a.age - b.age) < 1e-3;
  const liked = v.history.map((id, n) => ({ id, age: v.history_age_s[n], what: "liked" })).filter((a) => !bought.some((b) => same(a, b)));
  return [...bought, ...liked].sort((a, b) => a.age - b.age).slice(0, EVENTS);
}

/** @param {{who: any, before: any}} of the user now, and before the newest click */
export function Known({ who, before }) {
  const v = who.values, old = before ? before.values : null;
  const weights = old ? Object.fromEntries(old.interest.map((name, n) => [name, old.interest_weight[n]])) : null;
  const events = newest(v), plain = Object.entries(v).filter(([, x]) => typeof x === "number");
  return html`<aside aria-label="What is known">
    <section class="card"><h2>Interest</h2>
      <${Bars} names=${v.interest} weights=${v.interest_weight} before=${weights} label="Interest by category" /></section>
    <section class="card"><h2>Newest events</h2>
      ${events.length ? html`<ol class="past">${events.map((e, n) => html`<li key=${e.id + e.what + n}>
        <span>${who.titles[e.id] || e.id}</span><small class="quiet">${e.what} ${ago(e.age)} ago</small></li>`)}</ol>`
        : html`<p class="quiet">None yet.</p>`}</section>
    <section class="card"><details><summary>${plain.length} values at this instant</summary>
      <table><tbody>${plain.map(([name, x]) => html`<tr key=${name} class=${old && old[name] !== x && !name.endsWith("_s") ? "grew" : ""}>
        <td>${name}</td><td>${Number(x.toFixed(3)).toLocaleString("en")}</td></tr>`)}</tbody></table>
      <p class="quiet">${who.version < 0 ? "No state is stored." : `From state version ${who.version}.`}</p></details></section>
  </aside>`;
}

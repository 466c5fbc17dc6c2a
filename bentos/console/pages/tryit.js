/** Try it: be a user, click an item, watch what is known of you and your list change. */

import { html, useEffect, useRef, useState } from "/console/vendor/htm-preact.js";
import * as api from "/console/api.js";
import { Strip, useLine } from "/console/pages/line.js";
import { Bars } from "/console/plot.js";

const K = 12;
const POLL_MS = 40;
const PATIENCE_MS = 10000;

const hue = (text) => [...text].reduce((h, c) => (h * 31 + c.charCodeAt(0)) % 360, 7);
const ago = (s) => s < 60 ? `${Math.round(s)} s` : s < 3600 ? `${Math.round(s / 60)} min` : s < 86400 ? `${Math.round(s / 3600)} h` : `${Math.round(s / 86400)} d`;

/** A cover drawn from the title. */
function Cover({ title, categories }) {
  const base = hue((categories[0] || "") + "x"), words = title.split(/\s+/).slice(0, 3);
  return html`<svg class="cover" viewBox="0 0 120 80" aria-hidden="true">
    <rect width="120" height="80" fill=${`hsl(${base} 45% 32%)`}></rect>
    <circle cx=${20 + (hue(title) % 80)} cy=${10 + (hue(title + "y") % 60)} r=${18 + (hue(title + "r") % 22)} fill=${`hsl(${(base + 40) % 360} 55% 52%)`} opacity=".75"></circle>
    ${words.map((word, n) => html`<text x="8" y=${22 + n * 14} fill="#fff" font-size="11" font-weight="600">${word.slice(0, 16)}</text>`)}
  </svg>`;
}

function Item({ item, rank, moved, busy, onClick }) {
  const sign = moved === null ? "new" : moved > 0 ? `▲ ${moved}` : moved < 0 ? `▼ ${-moved}` : "";
  return html`<li class=${"item" + (sign ? " moved" : "")}>
    <button class="pick" disabled=${busy} onClick=${onClick} aria-label=${`Click ${item.title}`}>
      <${Cover} title=${item.title} categories=${item.categories} />
      <span class="rank">${rank}${sign && html`<em class=${moved === null || moved > 0 ? "up" : "down"}>${sign}</em>`}</span>
      <b>${item.title}</b>
      <small class="quiet">${item.categories.join(" · ")}</small>
      <small class="why">${item.because ? item.because.text : ""}</small>
    </button>
  </li>`;
}

export function TryIt() {
  const line = useLine();
  const [name, setName] = useState(new URLSearchParams(location.search).get("user") || "");
  const [user, setUser] = useState(null);
  const [answer, setAnswer] = useState(null);
  const [before, setBefore] = useState([]);
  const [status, setStatus] = useState("");
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState(null);
  const field = useRef(null);

  const open = async (id, previous = []) => {
    const [who, list] = await Promise.all([api.user(id), api.recommend(id, K)]);
    setUser(who);
    setAnswer(list);
    setBefore(previous);
    return list;
  };
  const attempt = async (work) => {
    setBusy(true);
    setError(null);
    try { await work(); } catch (problem) { setError(problem.message); }
    setBusy(false);
  };
  const choose = (id) => attempt(async () => {
    const chosen = id || `guest-${Math.random().toString(36).slice(2, 7)}`;
    setName(chosen);
    setStatus("");
    history.replaceState(null, "", `?user=${encodeURIComponent(chosen)}${location.hash}`);
    await open(chosen);
  });
  useEffect(() => { choose(name); }, []);

  const click = (item) => attempt(async () => {
    const old = answer.items.map((i) => i.item_id), start = performance.now();
    await api.send({ user_id: user.user_id, item_id: item.item_id, type: "click", request_id: answer.request_id });
    setStatus("folding the click …");
    for (;;) {
      const list = await api.recommend(user.user_id, K);
      if (list.user_version > answer.user_version) break;
      if (performance.now() - start > PATIENCE_MS) throw new Error("the click was accepted, but the feature has not changed in 10 s: is the worker up? See freshet status");
      await new Promise((wake) => setTimeout(wake, POLL_MS));
    }
    const took = Math.round(performance.now() - start);
    await open(user.user_id, old);
    setStatus(`“${item.title}” counted; the list changed after ${took} ms`);
  });

  const v = user && user.values;
  return html`
    <${Strip} now=${line.now} />
    <form class="who" onSubmit=${(e) => { e.preventDefault(); choose(field.current.value.trim()); }}>
      <label for="who">User</label>
      <input id="who" ref=${field} value=${name} onInput=${(e) => setName(e.target.value)} placeholder="a user id" autocomplete="off" maxlength="256" />
      <button type="submit" disabled=${busy}>Open</button>
      <button type="button" class="secondary" disabled=${busy} onClick=${() => choose("")}>New user</button>
    </form>
    <p class="status" role="status" aria-live="polite">${status}</p>
    ${error && html`<p role="alert" class="problem">${error}</p>`}
    ${user && answer && html`<div class="desk" data-ready="true">
      <section aria-label="Recommendations">
        <h2>For ${user.user_id}${answer.fallback.length ? html` <small class="quiet">(${answer.fallback.join(", ").replaceAll("_", " ")})</small>` : ""}</h2>
        ${answer.items.length ? html`<ol class="items">
          ${answer.items.map((item, n) => html`<${Item} key=${item.item_id} item=${item} rank=${n + 1} busy=${busy}
            moved=${before.length ? (before.includes(item.item_id) ? before.indexOf(item.item_id) - n : null) : 0}
            onClick=${() => click(item)} />`)}
        </ol>` : html`<p>No item is known yet. Send some: <code>freshet simulate</code> or <code>freshet replay movielens</code>.</p>`}
      </section>
      <aside aria-label="What is known">
        <h2>Interest</h2>
        <${Bars} names=${v.interest} weights=${v.interest_weight} label="Interest by category" />
        <h2>Liked lately</h2>
        ${v.history.length ? html`<ol class="past">${v.history.slice(0, 10).map((id, n) => html`<li key=${id + n}>
          <span>${user.titles[id] || id}</span><small class="quiet">${ago(v.history_age_s[n])}</small></li>`)}</ol>` : html`<p class="quiet">Nothing yet.</p>`}
        <h2>Features</h2>
        <details><summary>${Object.keys(v).length} values, version ${user.version}</summary>
          <table><tbody>${Object.entries(v).filter(([, x]) => typeof x === "number").map(([key, x]) => html`<tr key=${key}><td>${key}</td><td>${Number(x.toFixed(3))}</td></tr>`)}</tbody></table>
        </details>
      </aside>
    </div>`}`;
}

/** Try it: be a user, click an item, watch what is known of you and your list change. */

import { html, useEffect, useRef, useState } from "/console/vendor/htm-preact.js";
import * as api from "/console/api.js";
import { Known } from "/console/known.js";
import { List } from "/console/list.js";
import { Strip, useLine } from "/console/pages/line.js";

const K = 12;
const POLL_MS = 40;
const PATIENCE_MS = 10000;
const TYPING_MS = 150;
const FALLBACKS = {
  new_user: "new user: popular and new items",
  model_missing: "no model yet: popular items",
  model_failed: "the model failed: popular items",
  features_unavailable: "the online store is away: as for a new user",
  no_item_features: "no events yet: the newest items",
};

/** Chooses a user: a field that suggests ids as one types, and a way to be somebody new. */
function Who({ name, busy, onChoose }) {
  const [text, setText] = useState(name);
  const [found, setFound] = useState([]);
  useEffect(() => setText(name), [name]);
  useEffect(() => {
    const timer = setTimeout(() => api.users(text === name ? "" : text).then((a) => setFound(a.users), () => setFound([])), TYPING_MS);
    return () => clearTimeout(timer);
  }, [text, name]);
  return html`<form class="who" onSubmit=${(e) => { e.preventDefault(); if (text.trim()) onChoose(text.trim()); }}>
    <label for="who">User</label>
    <input id="who" value=${text} list="users" onInput=${(e) => setText(e.target.value)} placeholder="a user id" autocomplete="off" maxlength="256" />
    <datalist id="users">${found.map((id) => html`<option key=${id} value=${id}></option>`)}</datalist>
    <button type="submit" disabled=${busy}>Open</button>
    <button type="button" class="secondary" disabled=${busy} onClick=${() => onChoose("")}>New user</button>
    <p class="chips">${found.filter((id) => id !== name).slice(0, 6).map((id) => html`<button key=${id} type="button" class="chip" disabled=${busy} onClick=${() => onChoose(id)}>${id}</button>`)}</p>
  </form>`;
}

/** @param {string} user_id @returns {Promise<{who: any, list: any}>} what is known, and the list it leads to */
async function read(user_id) {
  const [who, list] = await Promise.all([api.user(user_id), api.recommend(user_id, K)]);
  return { who, list };
}

/** Ask until an answer knows of a newer event than `version`. @param {string} user_id @param {number} version */
async function changed(user_id, version) {
  const give_up = performance.now() + PATIENCE_MS;
  for (;;) {
    const list = await api.recommend(user_id, K);
    if (list.user_version > version) return list;
    if (performance.now() > give_up) throw new Error("the click was accepted, but nothing has changed in 10 s: is the worker up? See freshet status");
    await new Promise((wake) => setTimeout(wake, POLL_MS));
  }
}

export function TryIt() {
  const line = useLine();
  const [name, setName] = useState(new URLSearchParams(location.search).get("user") || "");
  const [now, setNow] = useState(null);
  const [before, setBefore] = useState(null);
  const [status, setStatus] = useState("");
  const [busy, setBusy] = useState("");
  const [error, setError] = useState(null);
  const turn = useRef(0);

  const attempt = async (what, work) => {
    const mine = ++turn.current;
    setBusy(what);
    setError(null);
    try { await work(); } catch (problem) { if (mine === turn.current) { setError(problem.message); setStatus(""); } }
    if (mine === turn.current) setBusy("");
  };
  const choose = (id) => attempt("user", async () => {
    const chosen = id || `guest-${Math.random().toString(36).slice(2, 7)}`;
    setStatus("");
    history.replaceState(null, "", `?user=${encodeURIComponent(chosen)}${location.hash}`);
    const read_now = await read(chosen);
    setName(chosen);
    setBefore(null);
    setNow(read_now);
  });
  useEffect(() => {
    if (name) choose(name);
    else api.users("").then((a) => choose(a.users[0] || ""), () => choose(""));
  }, []);

  const click = (item) => attempt(item.item_id, async () => {
    const start = performance.now(), { who, list } = now;
    setStatus(`“${item.title}” goes in …`);
    await api.send({ user_id: who.user_id, item_id: item.item_id, type: "click", request_id: list.request_id });
    const newer = await changed(who.user_id, list.user_version);
    const took = Math.round(performance.now() - start);
    setBefore(now);
    setNow({ who: await api.user(who.user_id), list: newer });
    setStatus(`Changed in ${took} ms: “${item.title}” is counted, and the list knows it.`);
  });

  return html`
    <${Strip} now=${line.now} />
    <${Who} name=${name} busy=${busy !== ""} onChoose=${choose} />
    <p class=${"status" + (busy && busy !== "user" ? " going" : status ? "" : " hint")} role="status" aria-live="polite">${status || (now ? "Click an item: the click goes through the whole line, and the list answers." : "")}</p>
    ${(error || line.error) && html`<p role="alert" class="problem">${error || line.error}</p>`}
    ${now ? html`<div class="desk" data-ready="true">
      <section aria-label="Recommendations">
        <h2>For ${now.who.user_id} ${now.list.fallback.map((f) => html`<span class="chip still" key=${f}>${FALLBACKS[f] || f.replaceAll("_", " ")}</span>`)}</h2>
        <${List} items=${now.list.items} before=${before && before.list.items} busy=${busy} onClick=${click} />
      </section>
      <${Known} who=${now.who} before=${before && before.who} />
    </div>` : !error && html`<p aria-busy="true">Asking</p>`}`;
}

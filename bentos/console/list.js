/** A list of recommended items that shows how it moved: what is new, what rose, what fell. */

import { html, useLayoutEffect, useRef } from "/console/vendor/htm-preact.js";
import * as api from "/console/api.js";

const MOVE_MS = 450;
const SOURCES = {
  item_to_item: "history", item_to_item_last: "last like", item_to_item_session: "session",
  lightgcn: "graph", trending: "trending", new: "new", fill: "filled up", pinned: "pinned",
};

/** @param {number|null|undefined} moved places up, null for new, undefined for no list before */
function Moved({ moved }) {
  if (moved === undefined || moved === 0) return null;
  if (moved === null) return html`<em class="up">new</em>`;
  return html`<em class=${moved > 0 ? "up" : "down"} aria-label=${moved > 0 ? `up ${moved}` : `down ${-moved}`}>${moved > 0 ? "▲" : "▼"} ${Math.abs(moved)}</em>`;
}

function Item({ item, rank, moved, busy, onClick }) {
  const sources = item.sources.map((s) => SOURCES[s] || s);
  return html`<li class=${"item" + (moved === null ? " fresh" : "")} data-id=${item.item_id}>
    <button class="pick" disabled=${busy !== ""} aria-busy=${busy === item.item_id ? "true" : undefined} onClick=${onClick} aria-label=${`Click ${item.title}`}>
      <img class="cover" src=${api.cover(item.item_id)} alt="" width="240" height="360" loading="lazy" />
      <span class="rank">${rank}<${Moved} moved=${moved} /></span>
      <b>${item.title}</b>
      <small class="why">${item.because ? item.because.text : ""}</small>
      <small class="quiet from" title=${`recalled by ${item.sources.join(", ")}; score ${item.score.toFixed(4)}`}>${sources.join(" · ")}</small>
    </button>
  </li>`;
}

/**
 * Items glide from their old places to the new ones (First, Last, Invert, Play).
 * @param {{items: any[], before: any[]|null, busy: string, onClick: (item: any) => void}} of
 */
export function List({ items, before, busy, onClick }) {
  const list = useRef(null);
  const places = useRef(new Map());
  useLayoutEffect(() => {
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    const seen = new Map();
    for (const child of list.current ? list.current.children : []) {
      const id = child.dataset.id, place = { x: child.offsetLeft, y: child.offsetTop }, old = places.current.get(id);
      seen.set(id, place);
      if (still || !before) continue;
      if (!old) child.animate([{ opacity: 0, transform: "scale(.94)" }, { opacity: 1, transform: "none" }], { duration: MOVE_MS, easing: "ease-out" });
      else if (old.x !== place.x || old.y !== place.y) child.animate([{ transform: `translate(${old.x - place.x}px, ${old.y - place.y}px)` }, { transform: "none" }], { duration: MOVE_MS, easing: "ease-in-out" });
    }
    places.current = seen;
  }, [items]);
  if (!items.length) return html`<p>No item is known yet. Send some: <code>freshet simulate</code> or <code>freshet replay movielens</code>.</p>`;
  const was = before && before.map((i) => i.item_id);
  const moved = (id, n) => !was ? undefined : was.includes(id) ? was.indexOf(id) - n : null;
  return html`<ol class="items" ref=${list}>
    ${items.map((item, n) => html`<${Item} key=${item.item_id} item=${item} rank=${n + 1} busy=${busy} moved=${moved(item.item_id, n)} onClick=${() => onClick(item)} />`)}
  </ol>`;
}

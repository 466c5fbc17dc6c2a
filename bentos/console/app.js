/** The console's frame: which page is open, the navigation, and the key where one is wanted. A page is a module in
 * pages/ and a line in PAGES. */

import { html, render, useEffect, useState } from "/console/vendor/htm-preact.js";
import * as api from "/console/api.js";
import { Line } from "/console/pages/line.js";
import { TryIt } from "/console/pages/tryit.js";

/** Every page: its address, its name, its component. */
const PAGES = [
  { hash: "", name: "Try it", page: TryIt },
  { hash: "line", name: "Line", page: Line },
];

const current = () => PAGES.find((p) => p.hash === location.hash.slice(1)) || PAGES[0];

/** Asks for the key of the deployment. @param {{onGiven: () => void}} of */
function Key({ onGiven }) {
  const [problem, setProblem] = useState("");
  const give = async (/** @type {any} */ event) => {
    event.preventDefault();
    try {
      await api.session(new FormData(event.target).get("key")?.toString() || "");
      onGiven();
    } catch (error) {
      setProblem(error.message);
    }
  };
  return html`<form class="key" onSubmit=${give}>
    <h1>This deployment has a key</h1>
    <label>Key <input name="key" type="password" autocomplete="current-password" required autofocus /></label>
    ${problem && html`<p role="alert" class="problem">${problem}</p>`}
    <button type="submit">Open the console</button>
    <p class="quiet">It is <code>FRESHET_API_KEY</code> of the service. This browser then keeps a cookie that stands for it.</p>
  </form>`;
}

function App() {
  const [open, setOpen] = useState(current());
  const [locked, setLocked] = useState(/** @type {boolean|null} */ (null));
  const look = () => api.line().then(() => setLocked(false), (error) => setLocked(error instanceof api.KeyWanted));
  useEffect(() => {
    look();
    const follow = () => setOpen(current());
    addEventListener("hashchange", follow);
    return () => removeEventListener("hashchange", follow);
  }, []);
  return html`
    <header class="container bar">
      <a class="brand" href="#"><img src="/console/icon.svg" alt="" width="26" height="26" /> Freshet</a>
      <nav aria-label="Pages">
        ${PAGES.map((p) => html`<a key=${p.hash} href=${"#" + p.hash} aria-current=${p === open ? "page" : undefined}>${p.name}</a>`)}
        <a href="/docs">API</a>
      </nav>
    </header>
    <main class="container">
      ${locked === null ? html`<p aria-busy="true">Opening the console</p>` : locked ? html`<${Key} onGiven=${look} />` : html`<${open.page} />`}
    </main>`;
}

const place = /** @type {Element} */ (document.getElementById("app"));
place.replaceChildren();
render(html`<${App} />`, place);

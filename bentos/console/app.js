/** The console's frame: which page is open, and the navigation. A page is a module in pages/ and a line in PAGES. */

import { html, render, useEffect, useState } from "/console/vendor/htm-preact.js";
import { Line } from "/console/pages/line.js";
import { TryIt } from "/console/pages/tryit.js";

/** Every page: its address, its name, its component. */
const PAGES = [
  { hash: "", name: "Try it", page: TryIt },
  { hash: "line", name: "Line", page: Line },
];

const current = () => PAGES.find((p) => p.hash === location.hash.slice(1)) || PAGES[0];

function App() {
  const [open, setOpen] = useState(current());
  useEffect(() => {
    const follow = () => setOpen(current());
    addEventListener("hashchange", follow);
    return () => removeEventListener("hashchange", follow);
  }, []);
  return html`
    <header class="container bar">
      <a class="brand" href="#"><img src="/console/icon.svg" alt="" width="28" height="28" /> Freshet</a>
      <nav aria-label="Pages">
        <ul>
          ${PAGES.map((p) => html`<li key=${p.hash}>
            <a href=${"#" + p.hash} aria-current=${p === open ? "page" : undefined}>${p.name}</a>
          </li>`)}
          <li><a href="/docs">API</a></li>
        </ul>
      </nav>
    </header>
    <main class="container"><${open.page} /></main>`;
}

document.getElementById("app").replaceChildren();
render(html`<${App} />`, document.getElementById("app"));

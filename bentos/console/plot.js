/** Plots: time series with uPlot, and bars of weights as plain SVG. */

import { html, useEffect, useRef } from "/console/vendor/htm-preact.js";
import UPlot from "/console/vendor/uplot.js";

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/**
 * A small time series that follows its data.
 * @param {{times: number[], values: (number|null)[], label: string, unit?: string}} of seconds, values, and what they are
 */
export function Series({ times, values, label, unit = "" }) {
  const place = useRef(null);
  const plot = useRef(null);
  useEffect(() => {
    const axis = { stroke: colour("--pico-muted-color"), grid: { stroke: colour("--pico-muted-border-color"), width: 1 } };
    plot.current = new UPlot({
      width: place.current.clientWidth, height: 160, legend: { show: false }, cursor: { show: false },
      scales: { y: { range: (_, low, high) => [0, Math.max(high || 1, 1) * 1.15] } },
      axes: [{ ...axis, space: 80 }, { ...axis, size: 56, values: (_, ticks) => ticks.map((v) => v + unit) }],
      series: [{}, { label, stroke: colour("--flow"), width: 2, fill: colour("--flow-soft"), spanGaps: true, points: { show: false } }],
    }, [times, values], place.current);
    const fit = () => plot.current.setSize({ width: place.current.clientWidth, height: 160 });
    addEventListener("resize", fit);
    return () => { removeEventListener("resize", fit); plot.current.destroy(); };
  }, []);
  useEffect(() => { if (plot.current) plot.current.setData([times, values]); }, [times, values]);
  return html`<figure><figcaption>${label}</figcaption><div ref=${place} class="series"></div></figure>`;
}

/**
 * Horizontal bars, heaviest first.
 * @param {{names: string[], weights: number[], most?: number, label: string}} of
 */
export function Bars({ names, weights, most = 10, label }) {
  const rows = names.map((name, n) => ({ name, weight: weights[n] })).sort((a, b) => b.weight - a.weight).slice(0, most);
  if (!rows.length) return html`<p class="quiet">Nothing yet. Click an item and it begins here.</p>`;
  const top = rows[0].weight || 1;
  const high = 26;
  return html`<svg class="bars" viewBox=${`0 0 320 ${rows.length * high}`} role="img" aria-label=${label}>
    ${rows.map((row, n) => html`<g key=${row.name} transform=${`translate(0 ${n * high})`}>
      <text x="0" y="17">${row.name}</text>
      <rect x="112" y="6" rx="3" height="14" width=${Math.max(2, (row.weight / top) * 160)}></rect>
      <text class="quiet" x=${112 + Math.max(2, (row.weight / top) * 160) + 6} y="17">${row.weight.toFixed(2)}</text>
    </g>`)}
  </svg>`;
}

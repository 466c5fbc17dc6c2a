/** Plots: time series with uPlot, and bars of weights as plain SVG. */

import { html, useEffect, useRef } from "/console/vendor/htm-preact.js";
import UPlot from "/console/vendor/uplot.js";

const HIGH = 170;
const colour = (/** @type {string} */ name) => () => getComputedStyle(document.body).getPropertyValue(name).trim();
const clock = (/** @type {number} */ s) => new Date(s * 1000).toLocaleTimeString("en-GB");
const short = (/** @type {number} */ v) => v.toLocaleString("en", { notation: v >= 10000 ? "compact" : "standard", maximumFractionDigits: 1 });

/**
 * A small time series that follows its data. Colours are read at each drawing, so light and dark both fit.
 * @param {{times: number[], values: (number|null)[], label: string, unit: string}} of seconds, values, what they are
 */
export function Series({ times, values, label, unit }) {
  const place = useRef(null);
  const plot = useRef(null);
  useEffect(() => {
    const axis = { stroke: colour("--quiet"), grid: { stroke: colour("--rule"), width: 1 }, ticks: { show: false }, font: "11px system-ui" };
    plot.current = new UPlot({
      width: place.current.clientWidth, height: HIGH, legend: { show: false }, cursor: { show: false }, padding: [8, 8, 0, 0],
      scales: { x: { range: (_, low, high) => [Math.min(low, high - 30), high] }, y: { range: (_, low, high) => [0, Math.max(high || 1, 1) * 1.15] } },
      axes: [{ ...axis, space: 90, size: 26, values: (_, ticks) => ticks.map(clock) }, { ...axis, size: 52, values: (_, ticks) => ticks.map(short) }],
      series: [{}, { stroke: colour("--flow"), width: 2, fill: colour("--flow-soft"), spanGaps: true, points: { show: false } }],
    }, [times, values], place.current);
    const fit = new ResizeObserver(() => plot.current.setSize({ width: place.current.clientWidth, height: HIGH }));
    fit.observe(place.current);
    return () => { fit.disconnect(); plot.current.destroy(); };
  }, []);
  useEffect(() => { if (plot.current) plot.current.setData([times, values]); }, [times, values]);
  const last = values.findLast((v) => v !== null);
  return html`<figure class="card"><figcaption>${label} <b>${last === undefined ? "–" : short(last)} ${unit}</b></figcaption>
    <div ref=${place} class="series" role="img" aria-label=${`${label} over the last minutes`}></div></figure>`;
}

/**
 * Horizontal bars, heaviest first; what grew is marked.
 * @param {{names: string[], weights: number[], before: Object<string, number>, most?: number, label: string}} of
 */
export function Bars({ names, weights, before, most = 8, label }) {
  const rows = names.map((name, n) => ({ name, weight: weights[n] })).sort((a, b) => b.weight - a.weight).slice(0, most);
  if (!rows.length) return html`<p class="quiet">Nothing yet. Click an item and it begins here.</p>`;
  const top = rows[0].weight || 1;
  return html`<ul class="bars" aria-label=${label}>
    ${rows.map((row) => {
      const grew = before && row.weight > (before[row.name] || 0) + 1e-3;
      return html`<li key=${row.name} class=${grew ? "grew" : ""}>
        <span>${row.name}</span>
        <svg viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true"><rect width=${Math.max(1, (row.weight / top) * 100)} height="10" rx="1"></rect></svg>
        <span class="weight">${row.weight.toFixed(2)}</span>
      </li>`;
    })}
  </ul>`;
}

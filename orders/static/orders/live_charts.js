// The two charts of the live page, drawn by uPlot: the same samples for both, colours from the style sheet.
import { GROUPS } from "./live_rates.js";

const LEAST = 120; // s on the time axis, so that the first samples do not fill it
const DASHES = [[], [2, 4], [10, 5], [], [4, 4]]; // colour is never the only difference
const WIDTHS = [2.5, 2, 2, 1.5, 3];

const colour = (element, name) => getComputedStyle(element).getPropertyValue(name).trim();

// A single sample makes no line.
const isLone = (plot, series) => plot.data[series].filter((value) => value !== null).length < 2;

function options(element, lines, zone) {
  const axis = {
    stroke: colour(element, "--fgl-quiet"),
    grid: { stroke: colour(element, "--fgl-grid"), width: 1 },
    ticks: { show: false },
    font: `13px ${getComputedStyle(element).fontFamily}`,
  };
  return {
    width: element.clientWidth,
    height: element.clientHeight,
    tzDate: (seconds) => window.uPlot.tzDate(new Date(seconds * 1000), zone),
    padding: [8, 34, 0, 0], // room for half a time on the right
    legend: { show: false },
    cursor: { show: false },
    scales: {
      x: { range: (_, least, most) => [Math.min(least ?? 0, (most ?? 0) - LEAST), most ?? 0] },
      y: { range: (_, __, most) => [0, Math.max(1, (most ?? 0) * 1.15)] },
    },
    axes: [
      { ...axis, grid: { show: false }, values: "{HH}:{mm}:{ss}", space: 90, size: 28 },
      { ...axis, size: 52, space: 32 },
    ],
    series: [
      {},
      ...lines.map((line, at) => ({
        stroke: colour(element, `--fgl-${line}`),
        fill: lines.length === 1 ? colour(element, `--fgl-${line}-fill`) : undefined,
        width: lines.length === 1 ? 2.5 : WIDTHS[at],
        dash: lines.length === 1 ? [] : DASHES[at],
        points: { show: isLone, size: 6 },
      })),
    ],
  };
}

// Samples are { at (Unix ms), claims, verdicts }, oldest first; null is a gap.
export function charts(claims, verdicts, zone) {
  const drawn = [
    { element: claims, lines: ["claimed"], values: (sample) => [sample.claims] },
    { element: verdicts, lines: GROUPS.map((_, at) => `line-${at}`), values: (sample) => sample.verdicts },
  ];
  let samples = [];

  const data = ({ lines, values }) => [
    samples.map((sample) => sample.at / 1000),
    ...lines.map((_, at) => {
      const line = samples.map((sample) => values(sample)[at]);
      return lines.length > 1 && !line.some(Boolean) ? line.fill(null) : line; // not five lines on the axis
    }),
  ];

  function build() {
    for (const each of drawn) {
      each.plot?.destroy();
      each.plot = new window.uPlot(options(each.element, each.lines, zone), data(each), each.element);
    }
  }

  for (const each of drawn) {
    new ResizeObserver(() => {
      each.plot?.setSize({ width: each.element.clientWidth, height: each.element.clientHeight });
    }).observe(each.element);
  }
  // Unfold switches between light and dark on the root element.
  new MutationObserver(build).observe(document.documentElement, { attributeFilter: ["class"] });
  build();

  return (shown) => {
    samples = shown;
    for (const each of drawn) each.plot.setData(data(each));
  };
}

// What GET /status told over the last minute and a half, as points to draw. Owns the arithmetic: rates and percentiles
// from differences of counters. Knows nothing of charts.

export const WINDOW_S = 90;
const SPAN = 5; // polls over which percentiles are taken: fewer, and a quiet server's would be all gaps

const HISTOGRAMS = ["answered", "failed", "queue", "compute", "batch_rows"];

/** The value below which `share` of what was counted between two readings lies; null where nothing was. */
export const percentile = (counts, bounds, share) => {
  const total = counts.reduce((sum, one) => sum + one, 0);
  if (total <= 0) return null;
  let left = share * total;
  for (const [index, one] of counts.entries()) {
    if (one > 0 && left <= one) {
      const low = index === 0 ? 0 : bounds[index - 1];
      const high = bounds[index] ?? low;
      return low + (high - low) * (left / one);
    }
    left -= one;
  }
  return bounds.at(-1);
};

/** A memory of answers of GET /status. */
export const makeHistory = () => {
  let kept = []; // {now, models: [...], workers: [...], queue}

  const add = (status) => {
    const last = kept.at(-1);
    if (last && (status.now <= last.now || counted(status) < counted(last))) kept = []; // another server stands there
    kept.push({
      now: status.now,
      bounds: status.bounds,
      models: status.models.map(({ name, version, queued_rows, ...more }) => ({
        name,
        version,
        queued_rows,
        ...Object.fromEntries(HISTOGRAMS.map((kind) => [kind, more[kind]])),
      })),
      workers: status.workers,
    });
    kept = kept.filter((one) => one.now > status.now - WINDOW_S - SPAN);
  };
  /** A point for each reading, of one model or of all (""). */
  const points = (model) =>
    kept.slice(1).map((one, index) => pointOf(one, kept[index], kept[Math.max(0, index + 1 - SPAN)], model));
  return { add, points, latest: () => kept.at(-1)?.now ?? null };
};

const counted = ({ models }) => models.reduce((sum, one) => sum + total(one.answered) + total(one.failed), 0);
const total = (histogram) => histogram.counts.reduce((sum, one) => sum + one, 0);

const pointOf = (one, before, longBefore, model) => {
  const seconds = one.now - before.now;
  const gone = (kind, since) => difference(one, since, kind, model);
  const bounds = one.bounds;
  const took = merged(gone("answered", longBefore).counts, gone("failed", longBefore).counts);
  const rows = gone("batch_rows", longBefore);
  const batches = total(rows);
  const ms = (share) => {
    const found = percentile(took, bounds.seconds, share);
    return found === null ? null : found * 1000;
  };
  const queued = new Map(
    one.models.filter((entry) => !model || entry.name === model).map((entry) => [entry.name, entry.queued_rows]),
  );
  const ages = one.workers.map((worker) => worker.oldest_queued_ms ?? 0);
  return {
    at: one.now,
    answered: total(gone("answered", before)) / seconds,
    failed: total(gone("failed", before)) / seconds,
    p50: ms(0.5),
    p90: ms(0.9),
    p99: ms(0.99),
    batchMean: batches ? rows.sum / batches : null,
    batchMost: batches ? Math.max(1, Math.round(percentile(rows.counts, bounds.rows, 0.99))) : null,
    queued: [...queued.values()].reduce((sum, rows) => sum + rows, 0),
    age: ages.length ? Math.max(...ages) : 0,
    busy: (difference(one, before, "compute", "").sum / seconds / Math.max(1, one.workers.length)) * 100,
    workers: one.workers,
  };
};

const merged = (some, others) => some.map((one, index) => one + (others[index] ?? 0));

/** What a histogram grew by between two readings, over the versions of one model or of all. */
const difference = (one, since, kind, model) => {
  const old = new Map(since.models.map((entry) => [`${entry.name}\n${entry.version}`, entry[kind]]));
  const grown = { sum: 0, counts: one.bounds[kind === "batch_rows" ? "rows" : "seconds"].map(() => 0).concat(0) };
  for (const entry of one.models) {
    if (model && entry.name !== model) continue;
    const before = old.get(`${entry.name}\n${entry.version}`);
    grown.sum += entry[kind].sum - (before?.sum ?? 0);
    grown.counts = grown.counts.map(
      (sum, index) => sum + Math.max(0, (entry[kind].counts[index] ?? 0) - (before?.counts[index] ?? 0)),
    );
  }
  return { sum: Math.max(0, grown.sum), counts: grown.counts };
};

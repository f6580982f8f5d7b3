"""The figures, each a function of (server, scratch folder, scale): what part 1 promises, on real PostgreSQL."""

from bench.cases.copying import peak_memory_mib, snapshot
from bench.cases.folding import batch_at_100x
from bench.cases.marts import mart_refresh_ms
from bench.cases.reading import now_over_plain, open_old_table
from bench.cases.source import source_cpu, source_impact
from bench.cases.streaming import backlog_to_cut, cut_ms_by_tables, decode, latency

CASES = {
    f.__name__: f
    for f in (
        cut_ms_by_tables,
        latency,
        backlog_to_cut,
        decode,
        source_cpu,
        source_impact,
        snapshot,
        now_over_plain,
        batch_at_100x,
        peak_memory_mib,
        open_old_table,
        mart_refresh_ms,
    )
}

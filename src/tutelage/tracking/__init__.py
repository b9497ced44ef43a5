"""What a run leaves behind: stage folders, metrics, samples, progress, report.

    trainers ──MetricWriter, SampleWriter──> metrics.jsonl, samples.jsonl ─┐
             ──Progress──> ProgressDisplay                                 │
    pipeline ──StageFolder──> manifest.json ───────────────────────────────┼─> report.html
    evaluation ──> evaluation.json ────────────────────────────────────────┘   summary.json

Everything is a file that a person can read; `docs/run-folder.md` describes each.
"""

__all__: list[str] = []

"""What `evaluate` gives back: a run of the store as tables, shown by a notebook."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pytest_vlmeval.errors import VlmEvalError

if TYPE_CHECKING:
    import pandas as pd

    from pytest_vlmeval.records import Score
    from pytest_vlmeval.reports.record import RunReport


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """The scores and samples of a call, of the datasets that were asked for.

    `report` is the whole record, `unscored` says why datasets have no score.
    `remarks` say what was told on the way.
    """

    report: RunReport = field(repr=False)
    unscored: Mapping[str, str]
    remarks: tuple[str, ...] = field(repr=False, default=())

    @property
    def model(self) -> str:
        """The model that was asked."""
        return self.report.model

    @property
    def run_id(self) -> str:
        """The run in the store, as `pytest --vlm-runs` lists it."""
        return self.report.run_id

    def score(self, dataset: str) -> Score:
        """Return the score of a dataset; `VlmEvalError` where there is none."""
        for each in self.report.datasets:
            if each.dataset == dataset and each.score is not None:
                return each.score
        known = ", ".join(each.dataset for each in self.report.datasets)
        reason = self.unscored.get(dataset, "it was not asked")
        raise VlmEvalError(
            f"{dataset} has no score: {reason.rstrip('.')}. "
            f"The datasets here are: {known}."
        )

    @property
    def scores(self) -> pd.DataFrame:
        """A row for each dataset: its main metric, and how complete it is.

        `value` and `best` count from 0 to `scale`; `best` is what it would be if all
        that the judge left open were right. `unread` counts the answers of which
        no reader could tell what they say, `verdicts_by_defect` the verdicts that rest
        on a known defect of ms-vlmeval's scoring.
        """
        import pandas as pd

        return pd.DataFrame(
            [
                {
                    "dataset": each.dataset,
                    "metric": each.score.main_metric if each.score else None,
                    "value": each.score.value if each.score else None,
                    "best": each.score.best if each.score else None,
                    "scale": each.score.scale if each.score else None,
                    "standard_error": each.score.standard_error if each.score else None,
                    "samples": len(each.samples),
                    "answered": sum(
                        sample.answer is not None and sample.answer.is_usable
                        for sample in each.samples
                    ),
                    "cut_off": sum(sample.is_cut_off for sample in each.samples),
                    "correct": sum(s.outcome == "correct" for s in each.samples),
                    "unread": each.score.unread if each.score else None,
                    "verdicts_by_defect": _defects(each.score),
                    "score_without_defects": each.score.sound.value
                    if each.score and each.score.sound
                    else None,
                    "scoring": each.score.scoring if each.score else None,
                    "judge": each.score.judge if each.score else None,
                    "modified_data": each.modified,
                    "data_version": each.version,
                    "unscored": self.unscored.get(each.dataset, ""),
                }
                for each in self.report.datasets
            ]
        )

    @property
    def metrics(self) -> pd.DataFrame:
        """A row for each metric of each dataset, as in scores.parquet of an export."""
        import pandas as pd

        from pytest_vlmeval.reports.export import score_rows

        return pd.DataFrame(list(score_rows(self.report)))

    @property
    def samples(self) -> pd.DataFrame:
        """A row for each sample, as in samples.parquet of an export."""
        import pandas as pd

        from pytest_vlmeval.reports.export import sample_rows

        return pd.DataFrame(list(sample_rows(self.report)))

    def __str__(self) -> str:
        """Show the scores as a table of text."""
        shown = self.scores[["dataset", "metric", "value", "samples", "answered"]]
        return f"{self.model}, run {self.run_id}\n{shown.to_string(index=False)}"

    def _repr_html_(self) -> str:
        """Show the scores in a notebook."""
        table = self.scores.drop(columns=["best", "scale", "standard_error"])
        marks = [remark for remark in self.remarks if remark]
        notes = "".join(f"<li>{html.escape(remark)}</li>" for remark in marks)
        head = f"{html.escape(self.model)}, run {html.escape(self.run_id)}"
        body = table.to_html(
            index=False, na_rep="", float_format=lambda value: f"{value:.2f}"
        )
        return f"<p><b>{head}</b></p>{body}{f'<ul>{notes}</ul>' if notes else ''}"


def _defects(score: Score | None) -> int | None:
    if score is None:
        return None
    return score.sound.defects if score.sound else 0

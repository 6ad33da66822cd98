"""Fit scorers to frozen estimators: `fit_results` from nothing but results, `fit_heatmaps` from their heatmaps."""

from oaks.fit.report import Fitted
from oaks.fit.results import fit_results

__all__ = ["Fitted", "fit_results"]

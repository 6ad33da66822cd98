"""Fits scorers to frozen estimators: `fit_results` from results alone, `fit_heatmaps` from heatmaps."""

from oaks.fit.boosting import Settings
from oaks.fit.heatmaps import fit_heatmaps
from oaks.fit.networks import PRESETS, Preset, import_network
from oaks.fit.report import Fitted
from oaks.fit.results import fit_results

__all__ = ["PRESETS", "Fitted", "Preset", "Settings", "fit_heatmaps", "fit_results", "import_network"]

"""Retrievers and rankers by their registered names. A new tower is one file here and one line in a registry."""

from tfcorr.settings import InputError
from tfcorr.towers.bsarec import BSARec
from tfcorr.towers.bst import BST
from tfcorr.towers.caser import Caser
from tfcorr.towers.contextual import ContextualRanker, ContextualRetriever
from tfcorr.towers.counts import CountingRanker
from tfcorr.towers.deepfm import DeepFM
from tfcorr.towers.dien import DIEN
from tfcorr.towers.din import DIN
from tfcorr.towers.fpmc import FPMC
from tfcorr.towers.gru4rec import GRU4Rec
from tfcorr.towers.hrm import HRM
from tfcorr.towers.layers import Domain, Ranker, Retriever, Tower, TowerSettings
from tfcorr.towers.mf import MF
from tfcorr.towers.narm import NARM
from tfcorr.towers.npe import NPE
from tfcorr.towers.sasrec import SASRec
from tfcorr.towers.transrec import TransRec

__all__ = [
    "RANKERS",
    "RETRIEVERS",
    "Domain",
    "Ranker",
    "Retriever",
    "Tower",
    "TowerSettings",
    "ranker_of",
    "retriever_of",
    "tower_of",
]

RETRIEVERS: dict[str, type[Retriever]] = {
    "bsarec": BSARec,
    "caser": Caser,
    "fpmc": FPMC,
    "gru4rec": GRU4Rec,
    "hrm": HRM,
    "mf": MF,
    "narm": NARM,
    "npe": NPE,
    "sasrec": SASRec,
    "transrec": TransRec,
}
RANKERS: dict[str, type[Ranker]] = {"bst": BST, "deepfm": DeepFM, "dien": DIEN, "din": DIN}


def retriever_of(settings: TowerSettings, domain: Domain) -> Retriever:
    """A retriever by its settings, which sees the features that they name. Raises: InputError if there is no such
    feature."""
    if settings.counts is not None:
        raise InputError(
            f"counts of {settings.name}: a retriever's score is an inner product, which counts are not; give them "
            "to a ranker"
        )
    domain = domain.chosen(settings)
    tower = RETRIEVERS[settings.name](settings, domain)
    return ContextualRetriever(tower, settings, domain) if domain.has_context else tower


def ranker_of(settings: TowerSettings, domain: Domain) -> Ranker:
    """A ranker by its settings, which sees the features that they name. Raises: InputError if there is no such
    feature."""
    domain = domain.chosen(settings)
    tower = RANKERS[settings.name](settings, domain)
    if domain.has_context:
        tower = ContextualRanker(tower, settings, domain)
    return tower if settings.counts is None else CountingRanker(tower, settings.counts, domain)


def tower_of(settings: TowerSettings, domain: Domain) -> Tower:
    """A tower of either kind, by its settings."""
    return (retriever_of if settings.name in RETRIEVERS else ranker_of)(settings, domain)

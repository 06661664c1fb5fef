"""Retrievers and rankers by their registered names. A new tower is one file here and one line in a registry."""

from tfcorr.towers.din import DIN
from tfcorr.towers.layers import Ranker, Retriever, TowerSettings
from tfcorr.towers.sasrec import SASRec

__all__ = ["RANKERS", "RETRIEVERS", "Ranker", "Retriever", "TowerSettings"]

RETRIEVERS: dict[str, type[Retriever]] = {"sasrec": SASRec}
RANKERS: dict[str, type[Ranker]] = {"din": DIN}

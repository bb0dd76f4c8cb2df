"""The rules: from K gradients to one direction, in one registry."""

from mtopt.combiners._base import (
    TRAITS,
    Combiner,
    GramianCombiner,
    JacobianCombiner,
    LossCombiner,
    NormCombiner,
)
from mtopt.combiners._draws import DrawsCombiner, FollowingDraws
from mtopt.combiners._exchange import Context, Outcome
from mtopt.combiners._matrix_free import Following
from mtopt.combiners._registry import combiner_class, create_combiner, list_combiners, register_combiner
from mtopt.combiners.achievement import ASF
from mtopt.combiners.aligned_mtl import AlignedMTL
from mtopt.combiners.blur import BLUR
from mtopt.combiners.cagrad import CAGrad
from mtopt.combiners.clipped import Clipped
from mtopt.combiners.config import ConFIG
from mtopt.combiners.conicgrad import ConicGrad
from mtopt.combiners.cosmos import COSMOS
from mtopt.combiners.db_mtl import DBMTL
from mtopt.combiners.dualproj import DualProj
from mtopt.combiners.dwa import DWA
from mtopt.combiners.epo import EPO
from mtopt.combiners.every import Every
from mtopt.combiners.excess_mtl import ExcessMTL
from mtopt.combiners.fairgrad import FairGrad
from mtopt.combiners.famo import FAMO
from mtopt.combiners.ferero import FERERO
from mtopt.combiners.gem import GEM
from mtopt.combiners.geometric_mean import GLS
from mtopt.combiners.go4align import GO4Align
from mtopt.combiners.graddrop import GradDrop
from mtopt.combiners.gradient_history import GradientHistory
from mtopt.combiners.gradnorm import GradNorm
from mtopt.combiners.gradops import GradOPS
from mtopt.combiners.gradvac import GradVac
from mtopt.combiners.gru import GRU
from mtopt.combiners.hamu import HAMU
from mtopt.combiners.imtl_g import IMTLG
from mtopt.combiners.imtl_l import IMTLL
from mtopt.combiners.krum import Krum
from mtopt.combiners.ldc_mtl import LDCMTL
from mtopt.combiners.linear import Linear
from mtopt.combiners.loss_ngdiff import LossNGDiff
from mtopt.combiners.mgda import MGDA
from mtopt.combiners.mgda_ub import MGDAUB
from mtopt.combiners.mmpareto import MMPareto
from mtopt.combiners.moco import MoCo
from mtopt.combiners.moco_plus import MoCoPlus
from mtopt.combiners.modo import MoDo
from mtopt.combiners.mstgd_style import MSTGDStyle
from mtopt.combiners.munba import MUNBa
from mtopt.combiners.nash_mtl import NashMTL
from mtopt.combiners.ngdiff import NGDiff
from mtopt.combiners.normalized import Normalized
from mtopt.combiners.pareto_mtl import ParetoMTL
from mtopt.combiners.pbi import PBI
from mtopt.combiners.pcd import PCD
from mtopt.combiners.pcgrad import PCGrad
from mtopt.combiners.per_group import PerGroup
from mtopt.combiners.pmgda import PMGDA
from mtopt.combiners.raco import RACO
from mtopt.combiners.random_weights import RLW
from mtopt.combiners.sago import SAGO
from mtopt.combiners.scale_invariant import SI
from mtopt.combiners.sdmgrad import SDMGrad
from mtopt.combiners.sinkhorn import MultiNormalized, Norm, check_norms, multi_normalized, sinkhorn_normalized
from mtopt.combiners.smooth_tchebycheff import STCH
from mtopt.combiners.smoothed import FollowsLearningRate, Smoothed
from mtopt.combiners.tchebycheff import Tchebycheff
from mtopt.combiners.trimmed_mean import TrimmedMean
from mtopt.combiners.uncertainty import UW
from mtopt.combiners.upgrad import UPGrad
from mtopt.linalg import Gradients, Place, gramian_of, norm_of

__all__ = [
    "ASF",
    "BLUR",
    "COSMOS",
    "DBMTL",
    "DWA",
    "EPO",
    "FAMO",
    "FERERO",
    "GEM",
    "GLS",
    "GRU",
    "HAMU",
    "IMTLG",
    "IMTLL",
    "LDCMTL",
    "MGDA",
    "MGDAUB",
    "PBI",
    "PCD",
    "PMGDA",
    "RACO",
    "RLW",
    "SAGO",
    "SI",
    "STCH",
    "TRAITS",
    "UW",
    "AlignedMTL",
    "CAGrad",
    "Clipped",
    "Combiner",
    "ConFIG",
    "ConicGrad",
    "Context",
    "DrawsCombiner",
    "DualProj",
    "Every",
    "ExcessMTL",
    "FairGrad",
    "Following",
    "FollowingDraws",
    "FollowsLearningRate",
    "GO4Align",
    "GradDrop",
    "GradNorm",
    "GradOPS",
    "GradVac",
    "GradientHistory",
    "Gradients",
    "GramianCombiner",
    "JacobianCombiner",
    "Krum",
    "Linear",
    "LossCombiner",
    "LossNGDiff",
    "MMPareto",
    "MSTGDStyle",
    "MUNBa",
    "MoCo",
    "MoCoPlus",
    "MoDo",
    "MultiNormalized",
    "NGDiff",
    "NashMTL",
    "Norm",
    "NormCombiner",
    "Normalized",
    "Outcome",
    "PCGrad",
    "ParetoMTL",
    "PerGroup",
    "Place",
    "SDMGrad",
    "Smoothed",
    "Tchebycheff",
    "TrimmedMean",
    "UPGrad",
    "check_norms",
    "combiner_class",
    "create_combiner",
    "gramian_of",
    "list_combiners",
    "multi_normalized",
    "norm_of",
    "register_combiner",
    "sinkhorn_normalized",
]

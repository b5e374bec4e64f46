//! Configuration of the losses.

use crate::ranges::{NonNegative, Rate};
use serde::{Deserialize, Serialize};

/// Losses and regularizers, and how modalities are kept in balance during training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LossConfig {
    /// Label smoothing of the cross entropy.
    pub label_smoothing: Rate,
    /// Weight of the losses of unimodal heads, one on each modality alone; without such heads when 0.
    pub unimodal_weight: NonNegative,
    /// Weight of the fusion operator's own loss (the similarity and difference terms of MISA, the load balancing of a
    /// mixture of experts).
    pub operator_weight: NonNegative,
    /// Strength (alpha) of on-the-fly gradient modulation, which slows down the modality that is ahead; 0 for none.
    /// Needs unimodal heads.
    ///
    /// From *Balanced Multimodal Learning via On-the-fly Gradient Modulation* (Peng et al., 2022,
    /// <https://arxiv.org/abs/2203.15332>).
    pub gradient_modulation: NonNegative,
    /// Weight of the regularization by functional entropy.
    ///
    /// From *Removing Bias in Multi-modal Classifiers: Regularization by Maximizing Functional Entropies* (Gat et al.,
    /// 2020, <https://arxiv.org/abs/2010.10802>).
    pub functional_entropy_weight: NonNegative,
    /// Weight of the distillation from the mean of the unimodal heads into the fused head. Needs unimodal heads.
    ///
    /// From *On Uni-Modal Feature Learning in Supervised Multi-Modal Learning* (Du et al., 2023,
    /// <https://arxiv.org/abs/2305.01233>).
    pub distillation_weight: NonNegative,
    /// Whether the losses of the heads are weighted by gradient blending, with weights estimated at each evaluation.
    /// Needs unimodal heads, validation rows and `train.evaluate_every_epochs`.
    ///
    /// From *What Makes Training Multi-Modal Classification Networks Hard?* (Wang et al., 2020,
    /// <https://arxiv.org/abs/1905.12681>).
    pub gradient_blending: bool,
    /// Whether each unimodal head is trained on labels of its own, generated once per epoch. For binary problems and
    /// regression; needs unimodal heads, which are then no estimates of the label: use `ensembling = "none"`.
    ///
    /// From *Learning Modality-Specific Representations with Self-Supervised Multi-Task Learning for Multimodal
    /// Sentiment Analysis* (Yu et al., 2021, <https://arxiv.org/abs/2102.04830>).
    pub unimodal_labels: bool,
    /// Alpha of the Beta distribution of manifold mixup, which mixes features and labels of two rows; 0 for none.
    ///
    /// From *Manifold Mixup: Better Representations by Interpolating Hidden States* (Verma et al., 2019,
    /// <https://arxiv.org/abs/1806.05236>).
    pub mixup_alpha: NonNegative,
    /// Alpha of the Beta distribution of `CutMix`, which pastes a rectangle of another image and mixes the labels by
    /// area; 0 for none. For images as the only modality, with an encoder that is trained.
    ///
    /// From *`CutMix`: Regularization Strategy to Train Strong Classifiers with Localizable Features* (Yun et al.,
    /// 2019, <https://arxiv.org/abs/1905.04899>).
    pub cutmix_alpha: NonNegative,
}

impl Default for LossConfig {
    fn default() -> Self {
        Self {
            label_smoothing: Rate::ZERO,
            unimodal_weight: NonNegative::from_ratio(3, 10),
            operator_weight: NonNegative::ONE,
            gradient_modulation: NonNegative::ZERO,
            functional_entropy_weight: NonNegative::ZERO,
            distillation_weight: NonNegative::ZERO,
            gradient_blending: false,
            unimodal_labels: false,
            mixup_alpha: NonNegative::ZERO,
            cutmix_alpha: NonNegative::ZERO,
        }
    }
}

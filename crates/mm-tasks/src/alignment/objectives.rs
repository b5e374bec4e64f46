//! The losses of neural alignment methods, one entry each.

use super::neural::{Batch, DeepCca, NeuralAlignment};
use mm_align::{
    MethodRegistry, Result,
    contrastive::{
        InfoNceOptions, Temperature, barlow_twins, cyclip_consistency, info_nce, sigmoid_loss, supervised_contrastive,
        triplet_loss, vicreg,
    },
    correlation::deep_cca_loss,
    discrepancy::{MmdEstimator, coral, mmd},
    kernel::median_heuristic_kernels,
};
use mm_core::Tensor;

const TRIPLET_MARGIN: f64 = 0.2;
const CYCLIP_WEIGHT: f64 = 0.25;
const BARLOW_TWINS_LAMBDA: f64 = 0.005;
const DEEP_CCA_RIDGE: f64 = 0.1;
const MMD_WEIGHT: f64 = 5.0;
const CORAL_WEIGHT: f64 = 1e4;

pub(super) fn register(registry: &mut MethodRegistry) {
    let method = |name, description, loss| NeuralAlignment {
        name,
        description,
        needs_labels: false,
        deep_cca: DeepCca::No,
        loss,
    };
    let plain: [(&str, &str, fn(&Batch<'_>) -> Result<Tensor>); 6] = [
        ("info_nce", "two networks, InfoNCE over the batch (van den Oord et al. 2018)", contrast),
        ("siglip", "two networks, sigmoid loss on every pair (Zhai et al. 2023)", |batch| {
            sigmoid_loss(batch.similarity, Temperature::Inverse(batch.scale), batch.bias, None)
        }),
        ("triplet", "two networks, triplet loss with hardest negatives (Faghri et al. 2018)", |batch| {
            triplet_loss(batch.similarity, TRIPLET_MARGIN, None)
        }),
        ("cyclip", "two networks, InfoNCE with cross-modal and in-modal consistency (Goel et al. 2022)", |batch| {
            let weight = CYCLIP_WEIGHT * batch.a.size(0)? as f64;
            Ok(contrast(batch)?.add(&cyclip_consistency(batch.a, batch.b)?.mul_scalar(weight)?)?)
        }),
        ("barlow_twins", "two networks, Barlow Twins (Zbontar et al. 2021)", |batch| {
            barlow_twins(batch.a, batch.b, BARLOW_TWINS_LAMBDA)
        }),
        ("vicreg", "two networks, VICReg (Bardes et al. 2022)", |batch| vicreg(batch.a, batch.b)),
    ];
    for (name, description, loss) in plain {
        registry.register(method(name, description, loss));
    }
    registry.register(NeuralAlignment {
        deep_cca: DeepCca::Plain,
        ..method("deep_cca", "two networks, deep CCA (Andrew et al. 2013)", correlate)
    });
    registry.register(NeuralAlignment {
        deep_cca: DeepCca::Autoencoder,
        ..method("deep_cca_autoencoder", "two networks, deep CCA with reconstruction (Wang et al. 2015)", correlate)
    });
    registry.register(method(
        "info_nce_mmd",
        "InfoNCE plus MMD between the modalities (Gretton et al. 2012)",
        |batch| {
            let (a, b) = (batch.a.normalize()?, batch.b.normalize()?);
            let discrepancy = mmd(&a, &b, &median_heuristic_kernels(&a, &b)?, MmdEstimator::Biased)?;
            Ok(contrast(batch)?.add(&discrepancy.mul_scalar(MMD_WEIGHT)?)?)
        },
    ));
    registry.register(method("info_nce_coral", "InfoNCE plus CORAL (Sun and Saenko 2016)", |batch| {
        let (a, b) = (batch.a.normalize()?, batch.b.normalize()?);
        Ok(contrast(batch)?.add(&coral(&a, &b)?.mul_scalar(CORAL_WEIGHT)?)?)
    }));
    registry.register(NeuralAlignment {
        needs_labels: true,
        ..method("supcon", "two networks, supervised contrastive loss (Khosla et al. 2020); needs labels", supervised)
    });
}

fn contrast(batch: &Batch<'_>) -> Result<Tensor> {
    info_nce(batch.similarity, Temperature::Inverse(batch.scale), InfoNceOptions::default())
}

fn correlate(batch: &Batch<'_>) -> Result<Tensor> {
    deep_cca_loss(batch.a, batch.b, DEEP_CCA_RIDGE)
}

fn supervised(batch: &Batch<'_>) -> Result<Tensor> {
    let labels = Tensor::from_slice(batch.labels.as_deref().unwrap_or_default())?;
    let same = labels.unsqueeze(0)?.eq(&labels.unsqueeze(1)?)?;
    supervised_contrastive(batch.similarity, Temperature::Inverse(batch.scale), &same)
}

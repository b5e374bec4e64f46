//! What stands before every operator: each modality's features brought to one width, what is missing dealt with, and modalities hidden at
//! random while training so that their absence is nothing new (`ModDrop`, Neverova 2016).

use crate::{Error, Result};
use mm_core::{
    DType, FeatureSet, Features, Init, Modality, Module, Pooling, Scope, Tensor,
    nn::{Activation, Linear, Mlp, MlpConfig, Norm, NormConfig},
    no_grad,
};
use serde::{Deserialize, Serialize};

/// What an operator gets in place of a modality that a row lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Missing {
    /// Zeros, and the operator is told: gates close, attention looks elsewhere, products leave it out.
    #[default]
    Mask,
    /// A learned vector.
    Token,
    /// Zeros, as if they had been seen.
    Zero,
    /// The mean of the training rows.
    Mean,
    /// What a network imagines from the modalities that are there; it learns from rows that have several.
    Imagined,
}

/// One modality as an operator takes it.
#[derive(Clone)]
pub(crate) struct Part {
    /// `[rows, width]`, or `[rows, length, width]` for operators on sequences; zeros where there is nothing.
    pub(crate) values: Tensor,
    /// `[rows, length]` bool for operators on sequences: which positions count.
    pub(crate) mask: Option<Tensor>,
    /// `[rows]` f32, 1 where the row has it.
    pub(crate) present: Tensor,
}

impl Part {
    /// `[rows, 1]`.
    pub(crate) fn flag(&self) -> Result<Tensor> {
        Ok(self.present.unsqueeze(1)?)
    }

    /// The positions that count, `[rows, length]` bool; all where nothing is padded.
    pub(crate) fn positions(&self) -> Result<Tensor> {
        match &self.mask {
            Some(mask) => Ok(mask.clone()),
            None => Ok(Tensor::ones(&self.values.shape()[..2], DType::Bool, self.values.device())?),
        }
    }

    /// One vector a row.
    pub(crate) fn pooled(&self) -> Result<Tensor> {
        if self.values.rank() == 2 {
            return Ok(self.values.clone());
        }
        Ok(Features::new(self.values.clone(), self.mask.clone())?.pool(Pooling::Mean)?)
    }
}

/// All modalities of a batch, in the order of their names.
pub(crate) struct Gathered {
    pub(crate) parts: Vec<Part>,
    /// Of what imagines.
    pub(crate) loss: Option<Tensor>,
    /// Where the rows are positions of sequences: their batch, their length, which positions count (`[batch, length]` bool), and the
    /// places of those in `batch · length`.
    pub(crate) positions: Option<(i64, i64, Tensor, Tensor)>,
}

struct Way {
    modality: Modality,
    projection: Option<(Linear, Norm)>,
    token: Option<Tensor>,
    mean: Option<Tensor>,
    imagine: Option<Mlp>,
    width: i64,
}

/// Settings of [`Inputs`].
#[derive(Clone, Copy)]
pub(crate) struct InputSettings {
    pub(crate) width: i64,
    pub(crate) dropout: f64,
    pub(crate) missing: Missing,
    pub(crate) modality_dropout: f64,
    pub(crate) project: bool,
    pub(crate) aligned: bool,
    pub(crate) sequences: bool,
}

pub(crate) struct Inputs {
    ways: Vec<Way>,
    settings: InputSettings,
}

impl Inputs {
    pub(crate) fn new(scope: &Scope<'_>, settings: InputSettings, widths: &[(Modality, i64)]) -> Result<Self> {
        let mut ways = Vec::new();
        for (modality, input) in widths {
            let place = scope.pp("inputs").pp(modality);
            let width = if settings.project { settings.width } else { *input };
            let projection = settings
                .project
                .then(|| {
                    Ok::<_, mm_core::Error>((
                        Linear::new(&place.pp("projection"), *input, width, true)?,
                        Norm::new(&place.pp("norm"), width, NormConfig::default())?,
                    ))
                })
                .transpose()?;
            let missing = settings.missing;
            let token =
                (missing == Missing::Token).then(|| place.param("token", &[width], Init::Normal(0.02))).transpose()?;
            let mean = (missing == Missing::Mean).then(|| place.buffer("mean", &[width], Init::Zeros)).transpose()?;
            let mlp = MlpConfig::new(width.max(32), Activation::Gelu);
            // It reads the mean of the others, which all have one width.
            let imagine = (missing == Missing::Imagined)
                .then(|| {
                    if settings.project {
                        Ok(Mlp::new(&place.pp("imagine"), width, &mlp)?)
                    } else {
                        Err(Error::config("fusion.missing", "imagined without project", "project = true"))
                    }
                })
                .transpose()?;
            ways.push(Way { modality: modality.clone(), projection, token, mean, imagine, width });
        }
        Ok(Self { ways, settings })
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &Modality> {
        self.ways.iter().map(|w| &w.modality)
    }

    pub(crate) fn widths(&self) -> Vec<i64> {
        self.ways.iter().map(|w| w.width).collect()
    }

    pub(crate) fn gather(&self, set: &FeatureSet, train: bool) -> Result<Gathered> {
        let device =
            self.ways.iter().find_map(|w| set.get(&w.modality)).map(|f| f.values.device()).ok_or_else(|| {
                let found = set.modalities().map(Modality::name).collect::<Vec<_>>().join(", ");
                let wanted = self.names().map(Modality::name).collect::<Vec<_>>().join(", ");
                Error::config("fusion", format!("the modalities [{found}]"), format!("at least one of [{wanted}]"))
            })?;
        let rows = set.rows();
        let positions = if self.settings.aligned && !self.settings.sequences { self.positions(set)? } else { None };
        let count = match &positions {
            Some((.., places)) => places.size(0)?,
            None => rows,
        };
        let mut parts = Vec::new();
        for way in &self.ways {
            let both = set.get(&way.modality).zip(set.present(&way.modality));
            let (values, mask, present) = if let Some((features, present)) = both {
                let present = present.to_dtype(DType::F32)?;
                if let Some((batch, length, _, places)) = &positions {
                    let flat = features.values.flatten(0, 1)?.index_select(0, places)?; // [positions, input]
                    let mut there = present.unsqueeze(1)?.expand(&[*batch, *length])?;
                    if let Some(mask) = &features.mask {
                        there = there.mul(&mask.to_dtype(DType::F32)?)?;
                    }
                    (flat, None, there.reshape(&[-1])?.index_select(0, places)?)
                } else if self.settings.sequences {
                    let length = features.values.size(1)?;
                    let mut mask = present.gt_scalar(0.5)?.unsqueeze(1)?.expand(&[rows, length])?;
                    if let Some(own) = &features.mask {
                        mask = mask.logical_and(own)?;
                    }
                    // A row whose every position is padding has nothing.
                    let any = mask.to_dtype(DType::F32)?.amax(1, false)?;
                    (features.values.clone(), Some(mask), present.mul(&any)?)
                } else {
                    (features.pool(Pooling::Mean)?, None, present)
                }
            } else {
                let input = match &way.projection {
                    Some((linear, _)) => linear.weight().size(1)?,
                    None => way.width,
                };
                let shape: &[i64] = if self.settings.sequences { &[count, 1, input] } else { &[count, input] };
                let mask =
                    self.settings.sequences.then(|| Tensor::zeros(&[count, 1], DType::Bool, device)).transpose()?;
                let none = Tensor::zeros(&[count], DType::F32, device)?;
                (Tensor::zeros(shape, DType::F32, device)?, mask, none)
            };
            // Whatever stands where a row has nothing (padding, not-a-number) goes no further.
            let there = match &mask {
                Some(mask) => mask.unsqueeze(-1)?,
                None => present.gt_scalar(0.5)?.unsqueeze(1)?,
            };
            let values = values.where_cond(&there, &Tensor::zeros(&[1], DType::F32, device)?)?;
            let mut values = match &way.projection {
                Some((linear, norm)) => norm.forward(&linear.forward(&values, train)?, train)?.gelu()?,
                None => values,
            };
            values = values.dropout(self.settings.dropout, train)?.mul(&there.to_dtype(DType::F32)?)?;
            parts.push(Part { values, mask, present });
        }
        if train && self.settings.modality_dropout > 0.0 {
            hide(&mut parts, self.settings.modality_dropout)?;
        }
        let loss = self.fill(&mut parts, train)?;
        Ok(Gathered { parts, loss, positions })
    }

    /// The common length of all sequences, and where there is anything.
    fn positions(&self, set: &FeatureSet) -> Result<Option<(i64, i64, Tensor, Tensor)>> {
        let (mut shape, mut any): (Option<(i64, i64)>, Option<Tensor>) = (None, None);
        for way in &self.ways {
            let Some(features) = set.get(&way.modality) else { continue };
            let found = (features.values.size(0)?, features.values.size(1)?);
            if *shape.get_or_insert(found) != found {
                let wanted = format!("{shape:?} as the modalities before it (fusion.aligned is on)");
                return Err(Error::config(
                    format!("batch and length of {}", way.modality),
                    format!("{found:?}"),
                    wanted,
                ));
            }
            let mask = match &features.mask {
                Some(mask) => mask.clone(),
                None => Tensor::ones(&[found.0, found.1], DType::Bool, features.values.device())?,
            };
            any = Some(match any {
                Some(before) => before.logical_or(&mask)?,
                None => mask,
            });
        }
        let (Some((batch, length)), Some(any)) = (shape, any) else { return Ok(None) };
        let places = any.reshape(&[-1])?.nonzero()?;
        Ok(Some((batch, length, any, places)))
    }

    fn fill(&self, parts: &mut [Part], train: bool) -> Result<Option<Tensor>> {
        let missing = self.settings.missing;
        if missing == Missing::Mask {
            return Ok(None);
        }
        let pooled = parts.iter().map(Part::pooled).collect::<Result<Vec<_>>>()?;
        let present: Vec<Tensor> = parts.iter().map(|p| p.present.clone()).collect();
        let mut loss: Option<Tensor> = None;
        for (number, (way, part)) in self.ways.iter().zip(parts.iter_mut()).enumerate() {
            let flag = present[number].unsqueeze(1)?; // [rows, 1]
            let (filling, known) = match missing {
                Missing::Token => (way.token.clone(), None),
                Missing::Mean => {
                    if let (Some(mean), true) = (&way.mean, train) {
                        no_grad(|| -> Result<()> {
                            let rows = flag.sum()?.to_f64()?;
                            if rows > 0.0 {
                                let now = pooled[number].mul(&flag)?.sum_dim(&[0], false)?.mul_scalar(1.0 / rows)?;
                                mean.scale_add_(0.95, &now.detach()?, 0.05)?;
                            }
                            Ok(())
                        })?;
                    }
                    (way.mean.clone(), None)
                }
                Missing::Imagined => {
                    let (mut sum, mut count) = (pooled[number].zeros_like()?, flag.zeros_like()?);
                    for (other, values) in pooled.iter().enumerate().filter(|(o, _)| *o != number) {
                        let there = present[other].unsqueeze(1)?;
                        sum = sum.add(&values.mul(&there)?)?;
                        count = count.add(&there)?;
                    }
                    let known = count.clamp(0.0, 1.0)?;
                    let Some(network) = &way.imagine else { continue };
                    let imagined = network.forward(&sum.div(&count.clamp_min(1.0)?)?, train)?.mul(&known)?;
                    let both = known.mul(&flag)?;
                    let off = imagined.sub(&pooled[number].detach()?)?.pow(2.0)?.mean_dim(&[1], true)?;
                    let rows = both.sum()?.clamp_min(1.0)?;
                    let own = off.mul(&both)?.sum()?.div(&rows)?;
                    loss = Some(match loss {
                        Some(sum) => sum.add(&own)?,
                        None => own,
                    });
                    (Some(imagined), Some(known))
                }
                Missing::Mask | Missing::Zero => (None, None),
            };
            let absent = flag.neg()?.add_scalar(1.0)?; // [rows, 1]
            if let Some(filling) = &filling {
                let filled = absent.mul(filling)?; // [rows, width]
                if part.values.rank() == 2 {
                    part.values = part.values.add(&filled)?;
                } else {
                    // One position stands for the whole sequence.
                    let length = part.values.size(1)?;
                    part.values = part.values.add(&filled.unsqueeze(1)?.pad(&[0, 0, 0, length - 1], 0.0)?)?;
                }
            }
            let seen = match known {
                Some(known) => flag.add(&absent.mul(&known)?)?,
                None => flag.ones_like()?,
            };
            if let Some(mask) = &part.mask {
                let length = mask.size(1)?;
                let first = seen.mul(&absent)?.gt_scalar(0.5)?.pad(&[0, length - 1], 0.0)?;
                part.mask = Some(mask.logical_or(&first)?);
            }
            part.present = seen.squeeze(1)?;
        }
        Ok(loss)
    }
}

/// Hides modalities of rows at random, but never a row's last one.
fn hide(parts: &mut [Part], rate: f64) -> Result<()> {
    let present = Tensor::stack(&parts.iter().map(|p| &p.present).collect::<Vec<_>>(), 1)?; // [rows, modalities]
    let drawn = Tensor::rand(&present.shape(), DType::F32, present.device())?.mul(&present)?;
    let kept = drawn.gt_scalar(rate)?;
    // The luckiest of a row stays, whatever was drawn.
    let luckiest = drawn.argmax(1)?.one_hot(parts.len() as i64)?.gt_scalar(0.0)?;
    let kept = kept.logical_or(&luckiest)?.to_dtype(DType::F32)?.mul(&present)?;
    for (number, part) in parts.iter_mut().enumerate() {
        let keep = kept.select(1, number as i64)?; // [rows]
        let mut shape = vec![1; part.values.rank()];
        shape[0] = -1;
        part.values = part.values.mul(&keep.reshape(&shape)?)?;
        if let Some(mask) = &part.mask {
            part.mask = Some(mask.logical_and(&keep.gt_scalar(0.5)?.unsqueeze(1)?)?);
        }
        part.present = keep;
    }
    Ok(())
}

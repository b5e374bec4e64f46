//! The affine map.

use super::Activation;
use crate::{DType, Init, Module, Result, Scope, Tensor, autocast, checkpoint, lora::LoraPair, nf4::Nf4, onednn};
use std::cell::{OnceCell, RefCell};

/// `x · weightᵀ + bias`, from width `input` to width `output`.
pub struct Linear {
    weight: Tensor,
    /// Its further rows, where a frozen weight comes in pieces. They are put together to be laid out, and for nothing else.
    more: Box<[Tensor]>,
    bias: Option<Tensor>,
    /// A frozen weight as the processor likes it best, made at its first use.
    packed: OnceCell<Packed>,
    /// The same of a weight that learns, for as long as nothing learns, and the weight's version that it was made of.
    lent: RefCell<Option<(i64, Tensor)>>,
    /// Whether it is frozen, and the processor has operators for it.
    served: bool,
    /// Inputs of at most so many rows do not go through those.
    few: usize,
    /// What is learned beside the weight.
    adapter: Option<LoraPair>,
    /// The weight, where it is held in four bits; `weight` is empty then.
    four_bit: Option<Nf4>,
}

/// To lay a weight out anew takes longer than its product with so many rows.
const FEW: usize = 64;

struct Packed {
    weight: Tensor,
    bias: Option<Tensor>,
}

/// What weight and bias are multiplied by when they are packed, so that a scaled activation needs no pass of its own.
#[derive(Clone, Copy)]
pub(crate) struct Factors(pub(crate) f64, pub(crate) f64);

impl Linear {
    /// A layer whose `weight` `[output, input]` and `bias` `[output]` lie under `scope`; fresh ones are uniform in ±1/√input.
    pub fn new(scope: &Scope<'_>, input: i64, output: i64, bias: bool) -> Result<Self> {
        let bound = 1.0 / (input.max(1) as f64).sqrt();
        let four_bit = scope.nf4(&[output, input])?;
        let weight = match &four_bit {
            Some(_) => Tensor::zeros(&[0, input], DType::F32, scope.device())?,
            None => scope.param("weight", &[output, input], Init::Uniform(bound))?,
        };
        let bias = bias.then(|| scope.param("bias", &[output], Init::Uniform(bound))).transpose()?;
        let adapter = scope.lora(input, output)?;
        let served = scope.is_frozen() && adapter.is_none() && four_bit.is_none() && onednn::supports_weight(&weight);
        let few = if scope.is_decode_mode() { 0 } else { FEW };
        let (more, packed, lent) = (Box::default(), OnceCell::new(), RefCell::default());
        Ok(Self { weight, more, bias, packed, lent, served, few, adapter, four_bit })
    }

    /// A layer over tensors that exist (packed or tied weights).
    pub fn from_parts(weight: Tensor, bias: Option<Tensor>) -> Self {
        let served = !weight.requires_grad() && onednn::supports_weight(&weight);
        Self {
            weight,
            more: Box::default(),
            bias,
            packed: OnceCell::new(),
            lent: RefCell::default(),
            served,
            few: FEW,
            adapter: None,
            four_bit: None,
        }
    }

    /// A frozen layer that gives beside each other what layers of these weights would give, in one product. Where the processor has a layout of
    /// its own the pieces stay where they are (in the checkpoint's file) until that is made: no number is held twice.
    pub(crate) fn stacked(weights: [&Tensor; 3], bias: Option<Tensor>) -> Result<Self> {
        if !weights.iter().all(|w| onednn::supports_weight(w)) {
            return Ok(Self::from_parts(Tensor::cat(&weights, 0)?, bias));
        }
        let [first, more @ ..] = weights;
        Ok(Self { more: Box::new(more.map(Tensor::clone)), ..Self::from_parts(first.clone(), bias) })
    }

    /// The same for a layer made at this place: where that is stepped, a few rows go through the fused operators too.
    pub fn in_scope(mut self, scope: &Scope<'_>) -> Self {
        if scope.is_decode_mode() {
            self.few = 0;
        }
        self
    }

    /// The same with a weight that will be laid out at its first use laid out at once: of a large one (a vocabulary) both layouts are resident
    /// for a moment, which costs least while little else is.
    pub fn prepack(self) -> Result<Self> {
        if self.served && self.few == 0 {
            self.packed(PLAIN)?;
        }
        Ok(self)
    }

    /// `[output, input]`; without rows where it is held in four bits.
    pub fn weight(&self) -> &Tensor {
        &self.weight
    }

    /// `[output]`, if it has one.
    pub fn bias(&self) -> Option<&Tensor> {
        self.bias.as_ref()
    }

    /// `activation(x · weightᵀ + bias)`, in one pass where the processor can.
    pub fn forward_activation(&self, input: &Tensor, activation: Activation) -> Result<Tensor> {
        self.activated(input, activation, PLAIN)
    }

    /// Whether this input goes through the fused operators. A few rows do not, unless they come again and again: to lay a weight out anew
    /// takes longer than their product with it, and a program that embeds one picture should not wait for that. The rule looks at the shape alone, so that
    /// the same input gives the same numbers whatever came before.
    pub(crate) fn fuses(&self, input: &Tensor) -> bool {
        self.served && self.many(input) && onednn::accepts_input(input, &self.weight)
    }

    fn many(&self, input: &Tensor) -> bool {
        let width = input.size(-1).ok();
        let many = width.is_some_and(|w| w > 0 && input.numel() / w as usize > self.few);
        many && width == self.weight.size(1).ok()
    }

    /// `x · weightᵀ + bias` of layers over one input in one product, while they learn: fewer operators there and on the way back, the input's
    /// gradient in one piece. None where they are not alike, or not enough rows pay for laying the weights side by side.
    pub(crate) fn together<const N: usize>(layers: [&Linear; N], input: &Tensor) -> Result<Option<Vec<Tensor>>> {
        let plain = |l: &&Linear| {
            l.weight.requires_grad() && l.adapter.is_none() && l.bias.is_some() == layers[0].bias.is_some()
        };
        if !(layers.iter().all(plain) && layers[0].many(input) && onednn::grad_enabled()) {
            return Ok(None);
        }
        let weight = Tensor::cat(&layers.map(|l| &l.weight), 0)?;
        let biases: Option<Vec<&Tensor>> = layers.iter().map(|l| l.bias.as_ref()).collect();
        let bias = biases.map(|b| Tensor::cat(&b, 0)).transpose()?;
        let sizes = layers.iter().map(|l| l.weight.size(0)).collect::<Result<Vec<_>>>()?;
        layers.iter().for_each(|l| drop(l.lent.take()));
        input.linear(&weight, bias.as_ref())?.split(&sizes, -1).map(Some)
    }

    /// A weight that learns, laid out for these operators, where gradients are off just now (evaluation, the first pass of gradient
    /// caching). It is kept until the weight changes, or until gradients are wanted again.
    fn lent(&self, input: &Tensor) -> Result<Option<Tensor>> {
        let learns = !self.served && self.adapter.is_none() && self.four_bit.is_none() && !autocast::is_enabled();
        let idle = onednn::supports_weight(&self.weight) && !onednn::grad_enabled();
        if !(learns && idle && self.many(input) && onednn::accepts_input(input, &self.weight)) {
            return Ok(None);
        }
        let version = self.weight.version()?;
        let mut kept = self.lent.borrow_mut();
        if let Some((_, weight)) = kept.as_ref().filter(|k| k.0 == version) {
            return Ok(Some(weight.clone()));
        }
        let weight = onednn::pack_linear(&self.weight)?;
        *kept = Some((version, weight.clone()));
        Ok(Some(weight))
    }

    fn packed(&self, Factors(weight, bias): Factors) -> Result<&Packed> {
        if let Some(packed) = self.packed.get() {
            return Ok(packed);
        }
        let scaled = |t: &Tensor, by: f64| if by == 1.0 { Ok(t.clone()) } else { t.mul_scalar(by) };
        let whole = match &*self.more {
            [] => self.weight.clone(),
            more => Tensor::cat(&std::iter::once(&self.weight).chain(more).collect::<Vec<_>>(), 0)?,
        };
        let packed = Packed {
            weight: onednn::pack_linear(&scaled(&whole, weight)?)?,
            bias: self.bias.as_ref().map(|b| scaled(b, bias)).transpose()?,
        };
        std::iter::once(&self.weight).chain(&*self.more).for_each(checkpoint::release);
        Ok(self.packed.get_or_init(|| packed))
    }

    /// [`Linear::forward_activation`] with weights that are multiplied; `factors` must be the same at each call.
    pub(crate) fn activated(&self, input: &Tensor, activation: Activation, factors: Factors) -> Result<Tensor> {
        if self.fuses(input) && onednn::fuses_activation(activation) {
            let packed = self.packed(factors)?;
            return onednn::linear(input, &packed.weight, packed.bias.as_ref(), activation);
        }
        if onednn::fuses_activation(activation)
            && let Some(weight) = self.lent(input)?
        {
            return onednn::linear(input, &weight, self.bias.as_ref(), activation);
        }
        let plain = match (&self.four_bit, &self.bias) {
            (Some(weight), Some(bias)) => weight.linear(input)?.add(bias)?,
            (Some(weight), None) => weight.linear(input)?,
            (None, bias) if self.more.is_empty() => input.linear(&self.weight, bias.as_ref())?,
            (None, bias) => self.piecewise(input, bias.as_ref())?,
        };
        if plain.requires_grad() {
            self.lent.take();
        }
        activation.apply(&match &self.adapter {
            Some(adapter) => plain.add(&adapter.forward(input)?)?,
            None => plain,
        })
    }

    fn piecewise(&self, input: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
        let mut start = 0;
        let pieces = std::iter::once(&self.weight).chain(&*self.more).map(|weight| {
            let rows = weight.size(0)?;
            let bias = bias.map(|b| b.narrow(0, start, rows)).transpose()?;
            start += rows;
            input.linear(weight, bias.as_ref())
        });
        Tensor::cat(&pieces.collect::<Result<Vec<_>>>()?.iter().collect::<Vec<_>>(), -1)
    }

    /// `x · weightᵀ + bias + residual`, likewise.
    pub(crate) fn added(&self, input: &Tensor, residual: Option<&Tensor>, factors: Factors) -> Result<Tensor> {
        let Some(residual) = residual else { return self.activated(input, Activation::Identity, factors) };
        if self.fuses(input) && onednn::accepts_input(residual, &self.weight) {
            let packed = self.packed(factors)?;
            return onednn::linear_add(input, &packed.weight, packed.bias.as_ref(), residual);
        }
        if onednn::accepts_input(residual, &self.weight)
            && let Some(weight) = self.lent(input)?
        {
            return onednn::linear_add(input, &weight, self.bias.as_ref(), residual);
        }
        residual.add(&self.activated(input, Activation::Identity, factors)?)
    }
}

impl Module for Linear {
    fn forward(&self, input: &Tensor, _train: bool) -> Result<Tensor> {
        self.activated(input, Activation::Identity, PLAIN)
    }
}

/// Weights as they are.
pub(crate) const PLAIN: Factors = Factors(1.0, 1.0);

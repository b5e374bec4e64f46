//! The affine layer.

use super::{
    Activation,
    prepack::{PackScale, Packed, PackedCache},
};
use crate::{Device, Init, Module, Result, Scope, Tensor, autocast, checkpoint, lora::LoraPair, nf4::Nf4, onednn};
use std::cell::Ref;

/// Packing a weight takes longer than its product with this many rows.
const MIN_PACKED_ROWS: usize = 64;

/// Storage of a weight `[out_features, in_features]`.
enum Weight {
    Dense(Tensor),
    /// Consecutive rows of a frozen weight, left where they are (in the checkpoint's file) until they are packed
    /// together.
    Sharded(Box<[Tensor]>),
    /// Four bits per value.
    Nf4(Nf4),
}

impl Weight {
    fn forward(&self, input: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
        match (self, bias) {
            (Self::Dense(weight), bias) => input.linear(weight, bias),
            (Self::Sharded(shards), bias) => forward_shards(shards, input, bias),
            (Self::Nf4(weight), Some(bias)) => weight.linear(input)?.add(bias),
            (Self::Nf4(weight), None) => weight.linear(input),
        }
    }

    /// The tensors that oneDNN's operators can take over; none of a four-bit weight.
    fn shards(&self) -> &[Tensor] {
        match self {
            Self::Dense(weight) => std::slice::from_ref(weight),
            Self::Sharded(shards) => shards,
            Self::Nf4(_) => &[],
        }
    }

    fn requires_grad(&self) -> bool {
        matches!(self, Self::Dense(weight) if weight.requires_grad())
    }
}

fn forward_shards(shards: &[Tensor], input: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let mut start = 0;
    let parts = shards.iter().map(|weight| {
        let rows = weight.size(0)?;
        let bias = bias.map(|b| b.narrow(0, start, rows)).transpose()?;
        start += rows;
        input.linear(weight, bias.as_ref())
    });
    Tensor::cat(&parts.collect::<Result<Vec<_>>>()?.iter().collect::<Vec<_>>(), -1)
}

/// `x · weightᵀ + bias`, from `in_features` to `out_features` dimensions.
///
/// ```
/// use mm_core::{Device, Module, Params, Tensor, DType, nn::Linear};
/// # fn main() -> mm_core::Result<()> {
/// let params = Params::new(Device::Cpu);
/// let layer = Linear::new(&params.scope().pp("proj"), 8, 4, true)?;
/// let y = layer.forward(&Tensor::zeros(&[2, 8], DType::F32, Device::Cpu)?, false)?;
/// assert_eq!(y.shape(), [2, 4]);
/// # Ok(())
/// # }
/// ```
pub struct Linear {
    weight: Weight,
    bias: Option<Tensor>,
    lora: Option<LoraPair>,
    in_features: i64,
    out_features: i64,
    device: Device,
    /// The weight in oneDNN's layout: of a frozen weight from its first use on, of a trainable one while gradients are
    /// off.
    packed: PackedCache,
    /// Whether the weight is frozen and oneDNN has operators for it.
    use_onednn: bool,
    /// Inputs of at most this many rows are not worth packing for.
    min_packed_rows: usize,
}

impl Linear {
    /// A layer with `weight` `[out_features, in_features]` and maybe `bias` `[out_features]` under `scope`; new ones
    /// are uniform in ±1/√`in_features`.
    pub fn new(scope: &Scope<'_>, in_features: i64, out_features: i64, bias: bool) -> Result<Self> {
        let init = Init::Uniform(1.0 / (in_features.max(1) as f64).sqrt());
        let shape = [out_features, in_features];
        let weight = match scope.nf4(&shape)? {
            Some(weight) => Weight::Nf4(weight),
            None => Weight::Dense(scope.param("weight", &shape, init)?),
        };
        let bias = bias.then(|| scope.param("bias", &[out_features], init)).transpose()?;
        let lora = scope.lora(in_features, out_features)?;
        let frozen = scope.is_frozen() && lora.is_none();
        let layer = Self::assemble(weight, bias, lora, shape, scope.device(), frozen);
        Ok(layer.in_scope(scope))
    }

    /// A layer over existing tensors (packed or tied weights).
    pub fn from_parts(weight: Tensor, bias: Option<Tensor>) -> Self {
        let shape = weight.shape();
        let shape = [shape.first().copied().unwrap_or(0), shape.get(1).copied().unwrap_or(0)];
        let (device, frozen) = (weight.device(), !weight.requires_grad());
        Self::assemble(Weight::Dense(weight), bias, None, shape, device, frozen)
    }

    /// A frozen layer whose output is the concatenation of the outputs of layers with these weights, in one product.
    /// Where oneDNN has a layout of its own, the weights stay where they are until they are packed, so that no value is
    /// in memory twice.
    pub(crate) fn concatenated(weights: [&Tensor; 3], bias: Option<Tensor>) -> Result<Self> {
        if !weights.iter().all(|w| onednn::supports_weight(w)) {
            return Ok(Self::from_parts(Tensor::cat(&weights, 0)?, bias));
        }
        let rows = weights.iter().map(|w| w.size(0)).sum::<Result<i64>>()?;
        let (shape, device) = ([rows, weights[0].size(1)?], weights[0].device());
        let frozen = !weights[0].requires_grad();
        let shards = Weight::Sharded(Box::new(weights.map(Tensor::clone)));
        Ok(Self::assemble(shards, bias, None, shape, device, frozen))
    }

    fn assemble(
        weight: Weight,
        bias: Option<Tensor>,
        lora: Option<LoraPair>,
        [out_features, in_features]: [i64; 2],
        device: Device,
        frozen: bool,
    ) -> Self {
        let use_onednn = frozen && weight.shards().first().is_some_and(onednn::supports_weight);
        let (packed, min_packed_rows) = (PackedCache::default(), MIN_PACKED_ROWS);
        Self { weight, bias, lora, in_features, out_features, device, packed, use_onednn, min_packed_rows }
    }

    /// Adapts a layer from [`Linear::from_parts`] to where it is used: in decode mode even a few rows go through the
    /// packed weight.
    pub fn in_scope(mut self, scope: &Scope<'_>) -> Self {
        if scope.is_decode_mode() {
            self.min_packed_rows = 0;
        }
        self
    }

    /// Packs a weight now that would be packed at its first use: for a moment both layouts of a large one (a
    /// vocabulary) are in memory, which costs least while little else is. The one value that stands for a missing
    /// weight until that is reported is not contiguous; packed, it would have the size that a config states.
    pub fn prepack(self) -> Result<Self> {
        if self.use_onednn
            && self.min_packed_rows == 0
            && self.weight.shards().iter().all(|weight| weight.0.is_contiguous())
        {
            self.packed.get(PackScale::ONE, None, || self.pack(PackScale::ONE, None))?;
        }
        Ok(self)
    }

    /// Dimension of the input.
    pub fn in_features(&self) -> i64 {
        self.in_features
    }

    /// Dimension of the output.
    pub fn out_features(&self) -> i64 {
        self.out_features
    }

    /// Where the weight is.
    pub fn device(&self) -> Device {
        self.device
    }

    /// `[out_features, in_features]`; none of a four-bit or sharded weight.
    pub fn weight(&self) -> Option<&Tensor> {
        match &self.weight {
            Weight::Dense(weight) => Some(weight),
            Weight::Sharded(_) | Weight::Nf4(_) => None,
        }
    }

    /// `[out_features]`, if it has one.
    pub fn bias(&self) -> Option<&Tensor> {
        self.bias.as_ref()
    }

    /// `activation(x · weightᵀ + bias)`, in one pass where oneDNN can.
    pub fn forward_activation(&self, input: &Tensor, activation: Activation) -> Result<Tensor> {
        self.forward_scaled(input, activation, PackScale::ONE)
    }

    /// Whether the weight is frozen and oneDNN can apply it.
    pub(crate) fn is_onednn(&self) -> bool {
        self.use_onednn
    }

    /// Whether this input goes through oneDNN's operators. The rule depends on the shape alone, so that the same input
    /// gives the same values whatever came before.
    pub(crate) fn uses_onednn(&self, input: &Tensor) -> bool {
        self.use_onednn && self.is_worth_packing(input)
    }

    /// Whether the input has enough rows to pay for packing the weight, and a shape and dtype that oneDNN takes.
    fn is_worth_packing(&self, input: &Tensor) -> bool {
        let accepts = |w: &Tensor| onednn::accepts_input(input, w);
        self.has_many_rows(input) && self.weight.shards().first().is_some_and(accepts)
    }

    fn has_many_rows(&self, input: &Tensor) -> bool {
        let dim = self.in_features;
        dim > 0 && input.size(-1).is_ok_and(|d| d == dim) && input.numel() / dim as usize > self.min_packed_rows
    }

    /// Outputs of several trainable layers over one input in one product: fewer operators in both passes, and the
    /// input's gradient in one piece. None where the layers differ in kind, or where too few rows pay for joining the
    /// weights.
    pub(crate) fn forward_fused<const N: usize>(layers: [&Linear; N], input: &Tensor) -> Result<Option<Vec<Tensor>>> {
        let fusable =
            |l: &&Linear| l.weight.requires_grad() && l.lora.is_none() && l.bias.is_some() == layers[0].bias.is_some();
        if !(layers.iter().all(fusable) && layers[0].has_many_rows(input) && onednn::grad_enabled()) {
            return Ok(None);
        }
        let Some(weights) = layers.iter().map(|l| l.weight()).collect::<Option<Vec<_>>>() else { return Ok(None) };
        let weight = Tensor::cat(&weights, 0)?;
        let biases: Option<Vec<&Tensor>> = layers.iter().map(|l| l.bias.as_ref()).collect();
        let bias = biases.map(|b| Tensor::cat(&b, 0)).transpose()?;
        let sizes = layers.map(|l| l.out_features);
        layers.iter().for_each(|l| l.packed.clear());
        input.linear(&weight, bias.as_ref())?.split(&sizes, -1).map(Some)
    }

    /// The packed weight for this input; none where the plain operators serve.
    ///
    /// A trainable weight is packed while gradients are off (evaluation, the first pass of gradient caching) and packed
    /// again when it has changed.
    fn packed(&self, input: &Tensor, scale: PackScale) -> Result<Option<Ref<'_, Packed>>> {
        if self.use_onednn {
            if !self.is_worth_packing(input) {
                return Ok(None);
            }
            return self.packed.get(scale, None, || self.pack(scale, None)).map(Some);
        }
        let Weight::Dense(weight) = &self.weight else { return Ok(None) };
        let idle = self.lora.is_none() && !autocast::is_enabled() && onednn::supports_weight(weight);
        if scale != PackScale::ONE || !idle || onednn::grad_enabled() || !self.is_worth_packing(input) {
            return Ok(None);
        }
        let version = Some(weight.version()?);
        self.packed.get(scale, version, || self.pack(scale, version)).map(Some)
    }

    fn pack(&self, scale: PackScale, version: Option<i64>) -> Result<Packed> {
        let scaled = |t: &Tensor, by: f64| if by == 1.0 { Ok(t.clone()) } else { t.mul_scalar(by) };
        let shards = self.weight.shards();
        let whole = match shards {
            [weight] => weight.clone(),
            shards => Tensor::cat(&shards.iter().collect::<Vec<_>>(), 0)?,
        };
        let weight = onednn::pack_linear(&scaled(&whole, scale.weight)?)?;
        let bias = self.bias.as_ref().map(|b| scaled(b, scale.bias)).transpose()?;
        if version.is_none() {
            shards.iter().for_each(checkpoint::release);
        }
        Ok(Packed::new(weight, bias, scale, version))
    }

    /// [`Linear::forward_activation`] with weight and bias multiplied by `scale`, for an input that
    /// [`Linear::uses_onednn`].
    pub(crate) fn forward_scaled(&self, input: &Tensor, activation: Activation, scale: PackScale) -> Result<Tensor> {
        if onednn::fuses_activation(activation)
            && let Some(packed) = self.packed(input, scale)?
        {
            return onednn::linear(input, &packed.weight, packed.bias.as_ref(), activation);
        }
        let out = self.weight.forward(input, self.bias.as_ref())?;
        if out.requires_grad() && !self.use_onednn {
            self.packed.clear();
        }
        activation.apply(&match &self.lora {
            Some(lora) => out.add(&lora.forward(input)?)?,
            None => out,
        })
    }

    /// `x · weightᵀ + bias + residual`, likewise.
    pub(crate) fn forward_residual(
        &self,
        input: &Tensor,
        residual: Option<&Tensor>,
        scale: PackScale,
    ) -> Result<Tensor> {
        let Some(residual) = residual else { return self.forward_scaled(input, Activation::Identity, scale) };
        let accepted = self.weight.shards().first().is_some_and(|w| onednn::accepts_input(residual, w));
        if accepted && let Some(packed) = self.packed(input, scale)? {
            return onednn::linear_add(input, &packed.weight, packed.bias.as_ref(), residual);
        }
        residual.add(&self.forward_scaled(input, Activation::Identity, scale)?)
    }
}

impl Module for Linear {
    fn forward(&self, input: &Tensor, _train: bool) -> Result<Tensor> {
        self.forward_scaled(input, Activation::Identity, PackScale::ONE)
    }
}

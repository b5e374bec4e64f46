//! Batches of sequences of different lengths without their padding.
//!
//! The idea is that of flash-attn's `unpad_input` (*FlashAttention-2*, Dao, 2023, <https://arxiv.org/abs/2307.08691>)
//! and of effective transformers: only attention has to know which tokens belong together.

use crate::{Error, Result, Tensor};

/// The number of tokens that are computed with for so many: some more, so that products have few distinct shapes, whose
/// plans are kept. A multiple of 16, and of a 32nd of the next power of two.
fn rounded(count: usize) -> usize {
    count.next_multiple_of((count.next_power_of_two() / 32).max(16))
}

/// The places of the tokens in a padded batch. Layers that treat each token by itself (projections, normalizations,
/// MLPs) run on the tokens alone, `[1, tokens, dim]`; attention pads them.
///
/// ```
/// use mm_core::{Tensor, nn::Unpadding};
/// # fn main() -> mm_core::Result<()> {
/// // Rows of 40 and 8 tokens.
/// let mask = Tensor::from_vec(&[[true; 40].as_slice(), &[true; 8], &[false; 32]].concat(), &[2, 40])?;
/// let unpadding = Unpadding::new(&mask)?.unwrap();
/// let x = Tensor::from_vec(&[1.0f32; 2 * 40 * 3], &[2, 40, 3])?;
/// let tokens = unpadding.unpad(&x)?;
/// assert_eq!(tokens.shape(), [1, 48, 3]);
/// assert_eq!(unpadding.pad(&tokens)?.shape(), [2, 40, 3]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Unpadding {
    /// Of each token its place in the padded batch, `[tokens]`; the last ones repeat the first token's.
    places: Tensor,
    /// Of each place its token, `[batch · length]`; the first token of the same row where there is padding, so that no
    /// row depends on another.
    tokens: Tensor,
    batch: i64,
    length: i64,
}

impl Unpadding {
    /// That of a mask `[batch, length]`, true for tokens; `None` for a single row, and without tokens. With little padding
    /// too: batches of many numbers of rows and lengths have few numbers of tokens, so that few plans are kept.
    ///
    /// # Errors
    /// If the mask has another rank.
    pub fn new(mask: &Tensor) -> Result<Option<Self>> {
        let [batch, length] = mask.shape()[..] else {
            return Err(Error::shape("padding mask", &mask.shape(), "[batch, length]"));
        };
        let valid = mask.to_vec::<bool>()?;
        let mut places: Vec<i64> = (0i64..).zip(&valid).filter(|(_, valid)| **valid).map(|(place, _)| place).collect();
        let count = rounded(places.len());
        if places.is_empty() || batch == 1 {
            return Ok(None);
        }
        let mut tokens = vec![0i64; valid.len()];
        let (mut next, last) = (0, places.len() as i64 - 1);
        for (row, valid) in tokens.chunks_mut(length as usize).zip(valid.chunks(length as usize)) {
            row.fill(next.min(last));
            for (token, _) in row.iter_mut().zip(valid).filter(|(_, valid)| **valid) {
                *token = next;
                next += 1;
            }
        }
        places.resize(count, places[0]);
        let [places, tokens] = [&places, &tokens].map(|all| Tensor::from_slice(all)?.to_device(mask.device()));
        Ok(Some(Self { places: places?, tokens: tokens?, batch, length }))
    }

    /// `[batch, length, dim]` → `[1, tokens, dim]`.
    ///
    /// # Errors
    /// If the tensor has another shape.
    pub fn unpad(&self, x: &Tensor) -> Result<Tensor> {
        let shape = x.shape();
        if shape.len() != 3 || shape[..2] != [self.batch, self.length] {
            return Err(Error::shape("padded tokens", &shape, format!("[{}, {}, dim]", self.batch, self.length)));
        }
        x.reshape(&[-1, shape[2]])?.index_select(0, &self.places)?.unsqueeze(0)
    }

    /// `[1, tokens, dim]` → `[batch, length, dim]`, with values of the row's first token for padding.
    ///
    /// # Errors
    /// If the tensor has another shape.
    pub fn pad(&self, x: &Tensor) -> Result<Tensor> {
        let (shape, count) = (x.shape(), self.places.size(0)?);
        if shape.len() != 3 || shape[..2] != [1, count] {
            return Err(Error::shape("tokens without padding", &shape, format!("[1, {count}, dim]")));
        }
        x.squeeze(0)?.index_select(0, &self.tokens)?.reshape(&[self.batch, self.length, shape[2]])
    }

    /// Rows of the padded batch.
    pub(crate) fn batch(&self) -> i64 {
        self.batch
    }

    /// Tokens of a row of the padded batch.
    pub(crate) fn length(&self) -> i64 {
        self.length
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        DType, Device, Params,
        nn::{
            Activation, AttentionConfig, BlockConfig, ForwardArgs, Mask, MlpConfig, Position, Transformer,
            TransformerConfig,
        },
        no_grad,
    };

    /// Rows of these lengths.
    fn mask(lengths: &[usize]) -> Tensor {
        let longest = lengths.iter().copied().max().unwrap_or(0);
        let valid: Vec<bool> = lengths.iter().flat_map(|length| (0..longest).map(move |n| n < *length)).collect();
        Tensor::from_vec(&valid, &[lengths.len() as i64, longest as i64]).unwrap()
    }

    #[test]
    fn tokens_come_back_to_their_places() {
        let unpadding = Unpadding::new(&mask(&[2, 30, 1, 9])).unwrap().unwrap();
        let x = Tensor::randn(&[4, 30, 3], DType::F32, Device::Cpu).unwrap();
        let tokens = unpadding.unpad(&x).unwrap();
        assert_eq!(tokens.shape(), [1, 48, 3]); // 42 tokens
        let padded = unpadding.pad(&tokens).unwrap();
        for (row, length) in [(0, 2), (1, 30), (2, 1), (3, 9)] {
            let part = |x: &Tensor| x.select(0, row)?.narrow(0, 0, length)?.to_vec::<f32>();
            assert_eq!(part(&padded).unwrap(), part(&x).unwrap());
        }
        // Padding takes the first token of its row, so that a row that is not finite stays alone.
        let first = |x: &Tensor, place| x.select(0, 1)?.select(0, place)?.to_vec::<f32>();
        let short = unpadding.pad(&tokens).unwrap().select(0, 2).unwrap();
        assert_eq!(
            short.select(0, 29).unwrap().to_vec::<f32>().unwrap(),
            x.select(0, 2).unwrap().select(0, 0).unwrap().to_vec::<f32>().unwrap()
        );
        assert_eq!(first(&padded, 29).unwrap(), first(&x, 29).unwrap());
        assert!(unpadding.unpad(&tokens).is_err() && unpadding.pad(&x).is_err());
        // Rows without tokens.
        let unpadding = Unpadding::new(&mask(&[0, 40, 0])).unwrap().unwrap();
        let x = Tensor::randn(&[3, 40, 3], DType::F32, Device::Cpu).unwrap();
        let padded = unpadding.pad(&unpadding.unpad(&x).unwrap()).unwrap();
        assert_eq!(first(&padded, 39).unwrap(), first(&x, 39).unwrap());
    }

    #[test]
    fn batches_have_few_numbers_of_tokens() {
        let tokens = |lengths: &[usize]| Unpadding::new(&mask(lengths)).unwrap().unwrap().places.size(0).unwrap();
        assert_eq!([tokens(&[16, 16]), tokens(&[16, 17]), tokens(&[16, 16, 15, 1])], [32, 48, 48]);
        assert_eq!([512, 513, 1000, 1025].map(rounded), [512, 544, 1024, 1088]);
        assert!(Unpadding::new(&mask(&[3])).unwrap().is_none());
        assert!(Unpadding::new(&Tensor::zeros(&[2, 3], DType::Bool, Device::Cpu).unwrap()).unwrap().is_none());
    }

    /// Blocks of each kind give every token what they give it in the padded batch.
    #[test]
    fn blocks_give_the_same_features_without_padding() {
        let mlp = MlpConfig::new(24, Activation::Gelu);
        let rotary = AttentionConfig { position: Position::Rotary { base: 1e4 }, ..AttentionConfig::new(12, 3) };
        let causal = AttentionConfig { causal: true, ..AttentionConfig::new(12, 3) };
        let blocks = [
            BlockConfig::post_norm(AttentionConfig::new(12, 3), mlp),
            BlockConfig::pre_norm(rotary, mlp),
            BlockConfig { layer_scale: Some(0.5), ..BlockConfig::pre_norm(causal, mlp) },
        ];
        let lengths = [2, 30, 1, 9, 17];
        let padding = mask(&lengths);
        let unpadding = Unpadding::new(&padding).unwrap().unwrap();
        let padding = Mask::Padding(padding);
        for (n, block) in blocks.into_iter().enumerate() {
            for frozen in [false, true] {
                let params = Params::new(Device::Cpu);
                let scope = if frozen { params.scope().frozen() } else { params.scope() };
                let blocks = Transformer::new(&scope, &TransformerConfig::new(2, block.clone())).unwrap();
                let x = Tensor::randn(&[5, 30, 12], DType::F32, Device::Cpu).unwrap();
                let run = |x: &Tensor, unpadding| {
                    let args = ForwardArgs { mask: Some(&padding), unpadding, ..ForwardArgs::default() };
                    no_grad(|| blocks.forward(x, args)).unwrap()
                };
                let expected = run(&x, None);
                let tokens = run(&unpadding.unpad(&x).unwrap(), Some(&unpadding));
                let found = unpadding.pad(&tokens).unwrap();
                for (row, length) in (0..).zip(lengths) {
                    let part = |x: &Tensor| x.select(0, row)?.narrow(0, 0, length as i64)?.to_vec::<f32>();
                    let (found, expected) = (part(&found).unwrap(), part(&expected).unwrap());
                    let near = found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-5);
                    assert!(near, "block {n}, row {row}: {found:?} {expected:?}");
                }
            }
        }
    }
}

//! How many sequences of different lengths are computed together.

/// Rows, at least, of a batch that is cut short for its padding: fewer would use the processor badly.
const MIN_ROWS: usize = 8;

/// Rows of a batch whose lengths ascend.
#[derive(Default)]
pub(crate) struct Lengths {
    rows: usize,
    longest: usize,
    sum: usize,
    sum_of_squares: usize,
}

impl Lengths {
    fn with(&self, length: usize) -> Self {
        Self {
            rows: self.rows + 1,
            longest: length,
            sum: self.sum + length,
            sum_of_squares: self.sum_of_squares + length * length,
        }
    }

    /// Whether more than an eighth of the batch is padding.
    pub(crate) fn are_padded(&self) -> bool {
        let padded = self.rows * self.longest;
        (padded - self.sum) * 8 > padded
    }

    /// Whether the padding in attention alone, of layers of dimension `dim`, takes more than an eighth of the time of the
    /// tokens' other products: 4·dim operations for each pair of places (done at a third of the speed of large products),
    /// and 24·dim² for each token.
    pub(crate) fn are_padded_in_attention(&self, dim: usize) -> bool {
        (self.rows * self.longest * self.longest - self.sum_of_squares) * 4 > dim * self.sum
    }
}

/// How many of the rows, whose lengths ascend, are to be computed together so that their padding is not `too_much`.
pub(crate) fn limit_padding(lengths: impl Iterator<Item = usize>, too_much: impl Fn(&Lengths) -> bool) -> usize {
    let mut all = Lengths::default();
    for length in lengths {
        let more = all.with(length);
        if all.rows >= MIN_ROWS && too_much(&more) {
            break;
        }
        all = more;
    }
    all.rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_ends_where_its_padding_would_exceed_an_eighth() {
        let size = |lengths: &[usize]| limit_padding(lengths.iter().copied(), Lengths::are_padded);
        assert_eq!(size(&[7; 32]), 32);
        // 8 × 10 and one of 20: 80 of 180 would be padding.
        assert_eq!(size(&[10, 10, 10, 10, 10, 10, 10, 10, 20, 20]), 8);
        // The least number of rows is computed together whatever the padding.
        assert_eq!(size(&[1, 100, 100]), 3);
        // 16 × 10 and one of 11: 16 of 187.
        assert_eq!(size(&[[10; 16].as_slice(), &[11]].concat()), 17);
    }

    #[test]
    fn where_attention_alone_is_padded_a_batch_holds_texts_of_many_lengths() {
        let size =
            |lengths: &[usize], dim| limit_padding(lengths.iter().copied(), |all| all.are_padded_in_attention(dim));
        let texts: Vec<usize> = (3..35).collect();
        assert_eq!(size(&texts, 384), 32);
        // Of a narrow network attention takes the larger part.
        assert_eq!(size(&texts, 128), 26);
        // A long text is computed without the short ones.
        assert_eq!(size(&[[20; 31].as_slice(), &[512]].concat(), 384), 31);
    }
}

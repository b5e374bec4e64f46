//! `NumPy`'s number types.

/// A `NumPy` number type.
#[derive(Debug, Clone, Copy)]
pub(super) struct NumberType {
    kind: char,
    /// Bytes per number.
    pub(super) size: usize,
    big_endian: bool,
}

impl NumberType {
    /// A type by its name (`f4`) and byte order (`<`, `>` or `|`).
    pub(super) fn new(name: &str, order: char) -> Result<Self, String> {
        let mut letters = name.chars();
        let kind = letters.next().unwrap_or(' ');
        let size: usize = letters.as_str().parse().unwrap_or(0);
        let known = matches!((kind, size), ('f', 2 | 4 | 8) | ('i' | 'u', 1 | 2 | 4 | 8) | ('b', 1));
        if known {
            Ok(Self { kind, size, big_endian: order == '>' })
        } else {
            Err(format!("found an array of type `{name}`, expected numbers or text"))
        }
    }

    /// Numbers from their bytes.
    pub(super) fn read(self, bytes: &[u8]) -> Vec<f64> {
        let one = |raw: &[u8]| {
            let mut wide = [0u8; 8];
            for (n, byte) in raw.iter().enumerate() {
                wide[if self.big_endian { self.size - 1 - n } else { n }] = *byte;
            }
            let low = u64::from_le_bytes(wide);
            match (self.kind, self.size) {
                ('f', 2) => half::f16::from_bits(low as u16).to_f64(),
                ('f', 4) => f64::from(f32::from_bits(low as u32)),
                ('f', _) => f64::from_bits(low),
                ('i', size) => {
                    let unused = 64 - 8 * size as u32;
                    ((low << unused) as i64 >> unused) as f64
                }
                _ => low as f64,
            }
        };
        bytes.chunks_exact(self.size).map(one).collect()
    }
}

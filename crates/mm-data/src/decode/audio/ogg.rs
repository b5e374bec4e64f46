//! The pages of an Ogg file. Readers skip damaged pages and stop at the end of the file; here both are errors.

use std::ops::Range;

/// Where each of the joined files is. Each starts with pages that are marked as the first of a stream.
///
/// # Errors
/// When pages do not follow each other without gaps, are incomplete, or have wrong checksums.
pub(super) fn files(bytes: &[u8]) -> Result<Vec<Range<usize>>, String> {
    let table: [u32; 256] = std::array::from_fn(|i| {
        (0..8).fold((i as u32) << 24, |crc, _| crc << 1 ^ if crc >> 31 == 1 { 0x04c1_1db7 } else { 0 })
    });
    let (mut at, mut starts, mut was_first) = (0, Vec::new(), false);
    while at < bytes.len() {
        let page = &bytes[at..];
        if !page.starts_with(b"OggS") {
            // What follows the last page is no audio.
            return match page.windows(4).position(|w| w == b"OggS") {
                Some(length) => {
                    Err(format!("damaged ogg: found {length} bytes at {at} that are no page, expected one"))
                }
                None if at + 4 > bytes.len() || b"OggS".starts_with(page) => Err(cut()),
                None => Ok(ranges(&starts, at)),
            };
        }
        let length = page_length(page).ok_or_else(cut)?;
        let checksum = u32::from_le_bytes([page[22], page[23], page[24], page[25]]);
        // The checksum is computed with zeros in its place.
        let crc = page[..length].iter().enumerate().fold(0u32, |crc, (i, byte)| {
            let byte = if (22..26).contains(&i) { 0 } else { *byte };
            crc << 8 ^ table[usize::from((crc >> 24) as u8 ^ byte)]
        });
        if crc != checksum {
            return Err(format!("damaged ogg: the page at byte {at} has another checksum than its content"));
        }
        let is_first = page[5] & 2 != 0;
        if is_first && !was_first {
            starts.push(at);
        }
        was_first = is_first;
        at += length;
    }
    Ok(ranges(&starts, at))
}

fn ranges(starts: &[usize], end: usize) -> Vec<Range<usize>> {
    let ends = starts.iter().skip(1).copied().chain([end]);
    starts.iter().copied().zip(ends).map(|(start, end)| start..end).collect()
}

fn cut() -> String {
    "damaged ogg: its last page is not whole; the file is cut short".into()
}

/// The length of the page that these bytes start with; `None` if it is incomplete.
fn page_length(page: &[u8]) -> Option<usize> {
    let segments = usize::from(*page.get(26)?);
    let header = 27 + segments;
    let length = header + page.get(27..header)?.iter().map(|s| usize::from(*s)).sum::<usize>();
    (length <= page.len()).then_some(length)
}

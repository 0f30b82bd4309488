//! Files that tell damage from another version.
//!
//! A sealed file begins with a word that says what it is, the number of its format, and a checksum
//! of the format and the content. Later versions keep this beginning, whatever follows it.

/// What a sealed file begins with.
pub(super) const HEADER: usize = size_of::<Kind>() + size_of::<u32>() + size_of::<u64>();

/// The first word of a file.
pub(super) type Kind = [u8; 4];

/// What a file's bytes are.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Opened<'a> {
    /// The content is what was written.
    Whole {
        /// The number of its format.
        format: u32,
        /// What follows the header.
        content: &'a [u8],
    },
    /// The bytes are not those that were written.
    Damaged,
    /// The file was not sealed.
    Unsealed,
}

/// The header of a file with this content.
pub(super) fn header(kind: Kind, format: u32, content: &[u8]) -> [u8; HEADER] {
    let format = format.to_le_bytes();
    let sum = checksum(&[&format, content]).to_le_bytes();
    let mut header = [0; HEADER];
    let bytes = kind.iter().chain(&format).chain(&sum);
    header
        .iter_mut()
        .zip(bytes)
        .for_each(|(to, from)| *to = *from);
    header
}

/// Looks at a file's bytes.
pub(super) fn open(kind: Kind, bytes: &[u8]) -> Opened<'_> {
    let Some((found, rest)) = bytes.split_first_chunk::<4>() else {
        return Opened::Damaged;
    };
    if *found != kind {
        return Opened::Unsealed;
    }
    let parts = rest
        .split_first_chunk::<4>()
        .and_then(|(format, rest)| Some((format, rest.split_first_chunk::<8>()?)));
    match parts {
        Some((format, (sum, content)))
            if checksum(&[format, content]) == u64::from_le_bytes(*sum) =>
        {
            Opened::Whole {
                format: u32::from_le_bytes(*format),
                content,
            }
        }
        _ => Opened::Damaged,
    }
}

/// Tells bytes from almost the same bytes, and from any in which one bit differs.
pub(super) fn checksum(parts: &[&[u8]]) -> u64 {
    // FNV-1a by words, of each part and its length: every step can be undone, so that a difference
    // in one word is never lost. It guards against accidents; only the owner can write here.
    let mut hash = 0xcbf2_9ce4_8422_2325;
    let mut step = |word: u64| hash = (hash ^ word).wrapping_mul(0x0100_0000_01b3);
    for part in parts {
        let (words, rest) = part.as_chunks();
        words
            .iter()
            .for_each(|word| step(u64::from_le_bytes(*word)));
        rest.iter().for_each(|byte| step(u64::from(*byte)));
        step(part.len() as u64);
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_in_any_bit_is_noticed() {
        let content: Vec<u8> = (0..37).collect();
        let file = [&header(*b"test", 7, &content)[..], &content].concat();
        assert_eq!(
            open(*b"test", &file),
            Opened::Whole {
                format: 7,
                content: &content
            }
        );
        for bit in 0..file.len() * 8 {
            let mut damaged = file.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let opened = open(*b"test", &damaged);
            assert!(!matches!(opened, Opened::Whole { .. }), "bit {bit}");
        }
        for length in 0..file.len() {
            let opened = open(*b"test", &file[..length]);
            assert_eq!(opened, Opened::Damaged, "{length} bytes");
        }
    }
}

//! Bytes as the corpus writes them: hexadecimal words, and `78*1400` for a long run of one byte.

use anyhow::{Context, Result, ensure};

/// Words of four bytes that must be alike before they are written as a run.
const RUN: usize = 4;
/// How long a line becomes, its indentation included.
const WIDTH: usize = 100;

/// Reads one line.
pub(super) fn read(line: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for word in line.split_whitespace().filter(|word| *word != "-") {
        if let Some((byte, count)) = word.split_once('*') {
            let byte = one(byte)?;
            let count: usize = count
                .parse()
                .with_context(|| format!("`{word}`, as in 78*1400"))?;
            bytes.resize(bytes.len() + count, byte);
            continue;
        }
        ensure!(word.len().is_multiple_of(2), "`{word}` has half a byte");
        for pair in word.as_bytes().chunks(2) {
            bytes.push(one(str::from_utf8(pair)?)?);
        }
    }
    Ok(bytes)
}

fn one(digits: &str) -> Result<u8> {
    u8::from_str_radix(digits, 16).with_context(|| format!("`{digits}` is no byte"))
}

/// The lines for a frame: the parts of its Ethernet header, then words of four bytes.
pub(super) fn lines(frame: &[u8], bare: bool) -> Vec<String> {
    let header: &[usize] = if bare { &[] } else { &[6, 6, 2] };
    let mut words = Vec::new();
    let mut rest = frame;
    for length in header {
        let (part, behind) = rest.split_at((*length).min(rest.len()));
        words.push(hexadecimal(part));
        rest = behind;
    }
    while let Some(first) = rest.first() {
        let alike = rest.iter().take_while(|byte| *byte == first).count() / 4 * 4;
        let run = if alike >= RUN * 4 { alike } else { 0 };
        let (part, behind) = rest.split_at(if run > 0 { run } else { rest.len().min(4) });
        words.push(if run > 0 {
            format!("{first:02x}*{run}")
        } else {
            hexadecimal(part)
        });
        rest = behind;
    }
    words.retain(|word| !word.is_empty());
    if words.is_empty() {
        words.push("-".to_owned());
    }
    let mut lines: Vec<String> = Vec::new();
    for word in words {
        match lines.last_mut() {
            Some(line) if line.len() + 1 + word.len() <= WIDTH => {
                line.push(' ');
                line.push_str(&word);
            }
            _ => lines.push(format!("    {word}")),
        }
    }
    lines
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut frame: Vec<u8> = (0..60).collect();
        frame.extend([0x78; 1401]);
        frame.extend([1, 2, 3]);
        for length in [0, 1, 13, 14, 15, 60, 75, 76, frame.len()] {
            let frame = &frame[..length];
            let mut read_again = Vec::new();
            for line in lines(frame, false) {
                assert!(line.starts_with("    ") && line.len() <= WIDTH, "{line}");
                read_again.extend(read(&line).unwrap());
            }
            assert_eq!(read_again, frame);
        }
    }

    #[test]
    fn a_long_run_is_written_short() {
        let lines = lines(&[0x78; 14 + 1400], false);
        assert_eq!(lines, ["    787878787878 787878787878 7878 78*1400"]);
    }
}

//! A file that is turned over before it grows too large.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::mem;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::record::HEADER;

/// When a file is turned over, and how many older ones stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// The most bytes a file has.
    pub bytes: u64,
    /// Older files: `FILE.1` is the newest of them.
    pub keep: u32,
}

/// A flow log's file, which begins with the names of its fields and holds whole lines only.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    rotation: Rotation,
    file: File,
    /// Bytes of whole lines in the file.
    length: u64,
    /// Lines that are not in the file yet.
    waiting: Vec<u8>,
}

impl LogFile {
    /// Opens the file to write on where its last whole line ends.
    pub fn open(path: &Path, rotation: Rotation) -> io::Result<Self> {
        let file = append(path)?;
        let length = whole_lines(&file)?;
        let mut log = Self {
            path: path.to_owned(),
            rotation,
            file,
            length,
            waiting: Vec::new(),
        };
        log.begin()?;
        Ok(log)
    }

    /// Writes the names of the fields into a new file.
    fn begin(&mut self) -> io::Result<()> {
        match self.length {
            0 => {
                self.put(HEADER);
                self.flush()
            }
            _ => Ok(()),
        }
    }

    /// Writes a line, into a new file if it no longer fits.
    pub fn line(&mut self, line: &str) -> io::Result<()> {
        let length = self.length + self.waiting.len() as u64;
        let is_fresh = length <= HEADER.len() as u64 + 1;
        if !is_fresh && length + line.len() as u64 + 1 > self.rotation.bytes {
            self.turn_over()?;
        }
        self.put(line);
        Ok(())
    }

    fn put(&mut self, line: &str) {
        self.waiting.extend_from_slice(line.as_bytes());
        self.waiting.push(b'\n');
    }

    /// Hands everything to the kernel. What it does not take whole is not there at all: the lines
    /// that wait are lost, and the file ends with the line before them.
    pub fn flush(&mut self) -> io::Result<()> {
        let lines = mem::take(&mut self.waiting);
        match self.file.write_all(&lines) {
            Ok(()) => {
                self.length += lines.len() as u64;
                Ok(())
            }
            Err(error) => {
                self.file.set_len(self.length)?;
                Err(error)
            }
        }
    }

    /// Opens the file anew by its name, for whoever has moved or removed it.
    pub fn reopen(&mut self) -> io::Result<()> {
        self.file = append(&self.path)?;
        self.length = whole_lines(&self.file)?;
        self.begin()
    }

    /// Whether the file has been removed, so that nothing that is written can be read.
    pub fn is_removed(&self) -> io::Result<bool> {
        Ok(self.file.metadata()?.nlink() == 0)
    }

    fn turn_over(&mut self) -> io::Result<()> {
        self.flush()?;
        let older = |number: u32| {
            let mut name = self.path.clone().into_os_string();
            name.push(format!(".{number}"));
            PathBuf::from(name)
        };
        let keep = self.rotation.keep;
        for number in (1..keep).rev() {
            rename_if_there(&older(number), &older(number + 1))?;
        }
        match keep {
            0 => fs::remove_file(&self.path)?,
            _ => fs::rename(&self.path, older(1))?,
        }
        self.reopen()
    }
}

/// How long the file is once a line is taken away that a full disk or a crash has cut short.
fn whole_lines(file: &File) -> io::Result<u64> {
    let mut end = file.metadata()?.len();
    let mut piece = [0; 4096];
    while end > 0 {
        let start = end.saturating_sub(piece.len() as u64);
        let piece = &mut piece[..(end - start) as usize];
        file.read_exact_at(piece, start)?;
        if let Some(at) = piece.iter().rposition(|byte| *byte == b'\n') {
            end = start + at as u64 + 1;
            break;
        }
        end = start;
    }
    if end < file.metadata()?.len() {
        file.set_len(end)?;
    }
    Ok(end)
}

fn append(path: &Path) -> io::Result<File> {
    // Who talks to whom is for root, and for the group that ships logs.
    OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o640)
        .open(path)
}

fn rename_if_there(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_file_is_turned_over_and_the_oldest_goes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let rotation = Rotation {
            bytes: HEADER.len() as u64 + 1 + 12,
            keep: 2,
        };
        let mut log = LogFile::open(&path, rotation).unwrap();
        for number in 0..8 {
            log.line(&format!("line {number}")).unwrap();
        }
        log.flush().unwrap();
        let lines = |name: &str| {
            let text = fs::read_to_string(folder.path().join(name)).unwrap();
            let mut lines = text.lines().map(str::to_owned).collect::<Vec<_>>();
            assert_eq!(lines.remove(0), HEADER);
            lines
        };
        assert_eq!(lines("log"), ["line 7"]);
        assert_eq!(lines("log.1"), ["line 6"]);
        assert_eq!(lines("log.2"), ["line 5"]);
        assert!(!folder.path().join("log.3").exists());
    }

    const ROOMY: Rotation = Rotation {
        bytes: 1 << 20,
        keep: 1,
    };

    #[test]
    fn a_line_that_was_cut_short_goes_before_the_next_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        for cut in ["thr".to_owned(), "x".repeat(10_000)] {
            fs::write(&path, format!("{HEADER}\none\n{cut}")).unwrap();
            let mut log = LogFile::open(&path, ROOMY).unwrap();
            log.line("two").unwrap();
            log.flush().unwrap();
            let text = fs::read_to_string(&path).unwrap();
            assert_eq!(text, format!("{HEADER}\none\ntwo\n"));
        }
    }

    #[test]
    fn a_removed_file_is_opened_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut log = LogFile::open(&path, ROOMY).unwrap();
        assert!(!log.is_removed().unwrap());
        fs::remove_file(&path).unwrap();
        assert!(log.is_removed().unwrap());
        log.reopen().unwrap();
        log.line("one").unwrap();
        log.flush().unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text, format!("{HEADER}\none\n"));
    }

    #[test]
    fn a_file_that_is_there_is_written_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        for line in ["one", "two"] {
            let mut log = LogFile::open(&path, ROOMY).unwrap();
            log.line(line).unwrap();
            log.flush().unwrap();
        }
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text, format!("{HEADER}\none\ntwo\n"));
    }
}

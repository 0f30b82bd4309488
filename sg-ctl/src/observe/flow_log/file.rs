//! A file that is turned over before it grows too large.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
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

/// A flow log's file, which begins with the names of its fields.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    rotation: Rotation,
    to: BufWriter<File>,
    length: u64,
}

impl LogFile {
    /// Opens the file to write on where it ends.
    pub fn open(path: &Path, rotation: Rotation) -> io::Result<Self> {
        let file = append(path)?;
        let length = file.metadata()?.len();
        let mut log = Self {
            path: path.to_owned(),
            rotation,
            to: BufWriter::new(file),
            length,
        };
        if length == 0 {
            log.put(HEADER)?;
            log.flush()?;
        }
        Ok(log)
    }

    /// Writes a line, into a new file if it no longer fits.
    pub fn line(&mut self, line: &str) -> io::Result<()> {
        let is_fresh = self.length <= HEADER.len() as u64 + 1;
        if !is_fresh && self.length + line.len() as u64 + 1 > self.rotation.bytes {
            self.turn_over()?;
        }
        self.put(line)
    }

    fn put(&mut self, line: &str) -> io::Result<()> {
        self.length += line.len() as u64 + 1;
        writeln!(self.to, "{line}")
    }

    /// Hands everything to the kernel.
    pub fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
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
        self.to = BufWriter::new(append(&self.path)?);
        self.length = 0;
        self.put(HEADER)
    }
}

fn append(path: &Path) -> io::Result<File> {
    // Who talks to whom is for root, and for the group that ships logs.
    OpenOptions::new()
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

    #[test]
    fn a_file_that_is_there_is_written_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let rotation = Rotation {
            bytes: 1 << 20,
            keep: 1,
        };
        for line in ["one", "two"] {
            let mut log = LogFile::open(&path, rotation).unwrap();
            log.line(line).unwrap();
            log.flush().unwrap();
        }
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text, format!("{HEADER}\none\ntwo\n"));
    }
}

//! What holds for any bytes at all: of the parser, of the decision, and of policy files.
//!
//! The fuzz targets look for bytes that break one of these; the tests show the bytes that are known.
//! A property says nothing of which inputs are worth trying, but for its seeds, which are the
//! corpus.

mod frames;
mod policy_files;
mod stories;

use anyhow::Result;

use crate::corpus::Corpus;

/// Something that holds for any bytes.
#[derive(Clone, Copy, Debug)]
pub struct Property {
    /// What it is called, as a target of `cargo xtask fuzz` too.
    pub name: &'static str,
    /// Fails, or panics, where it is broken.
    pub hold: fn(&[u8]) -> Result<()>,
    /// Bytes that reach far.
    pub seeds: fn(&Corpus) -> Result<Vec<Vec<u8>>>,
}

/// A frame's headers are those that a naive reading finds, by the long way and by the short ones.
pub const PARSE: Property = Property {
    name: "parse",
    hold: frames::hold,
    seeds: frames::seeds,
};

/// Frames one after the other are judged alike by all ways, and pass only if the specification says so.
pub const DECIDE: Property = Property {
    name: "decide",
    hold: stories::hold,
    seeds: stories::seeds,
};

/// A file that is accepted says what it says again when it is exported.
pub const POLICY_FILE: Property = Property {
    name: "policy_file",
    hold: policy_files::hold,
    seeds: policy_files::seeds,
};

/// All of them.
pub const ALL: [Property; 3] = [PARSE, DECIDE, POLICY_FILE];

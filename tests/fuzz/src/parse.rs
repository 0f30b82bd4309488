//! The target `parse`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tests::properties::PARSE;

fuzz_target!(init: fuzz::plant(&PARSE), |bytes: &[u8]| fuzz::check(&PARSE, bytes));

//! The target `decide`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tests::properties::DECIDE;

fuzz_target!(init: fuzz::plant(&DECIDE), |bytes: &[u8]| fuzz::check(&DECIDE, bytes));

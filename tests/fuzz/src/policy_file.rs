//! The target `policy_file`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tests::properties::POLICY_FILE;

fuzz_target!(init: fuzz::plant(&POLICY_FILE), |bytes: &[u8]| fuzz::check(&POLICY_FILE, bytes));

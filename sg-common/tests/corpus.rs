//! The corpus by the decision over the host's tables, without building the kernel's half.

#[path = "../../tests/tests/packets/packets_are_judged_right.rs"]
mod packets_are_judged_right;

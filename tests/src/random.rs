//! Random policies and frames from one seed, drawn from a universe so small that they meet often.
//!
//! The generators know the policy's model, as they make policies, but never judge a frame: what
//! they return is bytes, and the evaluators are compared with one another.

pub mod frames;
pub mod policy;

use std::env;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use fastrand::Rng;
use ipnet::IpNet;

/// Used unless `SG_SEED` names another, so that two runs of the tests are the same run.
const SEED: u64 = 0x5ec_6209;

/// A generator for the test of this name; prints how to get the same one again.
pub fn seeded(test: &str) -> Rng {
    let chosen = env::var("SG_SEED").ok().and_then(|text| text.parse().ok());
    let seed = chosen.unwrap_or(SEED);
    println!("{test}: SG_SEED={seed}");
    Rng::with_seed(seed)
}

/// One of about fifty unicast addresses.
pub fn address(rng: &mut Rng) -> IpAddr {
    if rng.bool() {
        ipv4(rng).into()
    } else {
        ipv6(rng).into()
    }
}

/// One of the IPv4 addresses.
pub fn ipv4(rng: &mut Rng) -> Ipv4Addr {
    match rng.u8(..10) {
        0..6 => Ipv4Addr::new(10, 0, rng.u8(..2), rng.u8(..8)),
        6 | 7 => Ipv4Addr::new(10, 1, 1, 1),
        8 => Ipv4Addr::new(192, 0, 2, rng.u8(1..4)),
        _ => Ipv4Addr::new(198, 51, 100, 7),
    }
}

/// One of the IPv6 addresses.
pub fn ipv6(rng: &mut Rng) -> Ipv6Addr {
    let last = u16::from(rng.u8(1..10));
    match rng.u8(..10) {
        0..7 => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last),
        7 | 8 => Ipv6Addr::new(0x2001, 0xdb8, 0xaa, 0, 0, 0, 0, last),
        _ => Ipv6Addr::new(0x2001, 0xdb8, 0xaa, 0, 0x8000, 0, 0, last),
    }
}

/// A prefix around one of the addresses: often the ones that users write, at times any length.
pub fn prefix(rng: &mut Rng) -> IpNet {
    let address = address(rng);
    let (usual, longest): (&[u8], u8) = match address {
        IpAddr::V4(_) => (&[0, 8, 16, 23, 24, 29, 30, 31, 32, 32], 32),
        IpAddr::V6(_) => (&[0, 32, 48, 64, 65, 124, 126, 127, 128, 128], 128),
    };
    let length = if rng.u8(..4) == 0 {
        rng.u8(..=longest)
    } else {
        pick(rng, usual)
    };
    IpNet::new(address, length)
        .expect("the length fits the family")
        .trunc()
}

/// A protocol number that has no ports: the usual ones, the ones at the edges, any.
pub fn other_protocol(rng: &mut Rng) -> u8 {
    let number = match rng.bool() {
        true => pick(
            rng,
            &[0, 2, 4, 41, 43, 44, 47, 50, 51, 59, 60, 132, 136, 254, 255],
        ),
        false => rng.u8(..),
    };
    without_header(number)
}

/// The number itself, unless it is one whose packets need a header of their own.
fn without_header(number: u8) -> u8 {
    if matches!(number, 1 | 6 | 17 | 58) {
        47
    } else {
        number
    }
}

/// One of these.
fn pick<T: Copy>(rng: &mut Rng, choices: &[T]) -> T {
    rng.choice(choices.iter().copied())
        .expect("there are choices")
}

/// True so many times in a hundred.
fn percent(rng: &mut Rng, chance: u8) -> bool {
    rng.u8(..100) < chance
}

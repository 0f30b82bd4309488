//! Any bytes are survived: the properties that fuzzing looks for breaks of hold for the corpus, for
//! what lies near it, and for every input that has broken one.

use anyhow::{Context as _, Result, ensure};
use fastrand::Rng;
use tests::corpus::Corpus;
use tests::properties::{ALL, DECIDE, PARSE, POLICY_FILE, Property};
use tests::random::seeded;

/// Inputs made of each property's seeds.
const MADE: usize = 20_000;

/// What a seed becomes: bytes flipped, cut out, doubled, or those of another seed from here on.
fn mutated(rng: &mut Rng, seeds: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = rng.choice(seeds).cloned().unwrap_or_default();
    for _ in 0..rng.usize(1..5) {
        let at = rng.usize(..=bytes.len());
        let end = bytes.len().min(at + rng.usize(..16));
        match rng.u8(..6) {
            0 if at < bytes.len() => bytes[at] ^= 1 << rng.u8(..8),
            1 if at < bytes.len() => bytes[at] = rng.u8(..),
            2 => bytes.truncate(at),
            3 => drop(bytes.drain(at..end)),
            4 => {
                let doubled = bytes[at..end].to_vec();
                bytes.splice(at..at, doubled);
            }
            _ => {
                let other = rng.choice(seeds).cloned().unwrap_or_default();
                bytes.truncate(at);
                bytes.extend(other.get(at..).unwrap_or_default());
            }
        }
    }
    bytes
}

fn holds(property: &Property, bytes: &[u8]) -> Result<()> {
    (property.hold)(bytes)
        .with_context(|| format!("{}: {:?}", property.name, String::from_utf8_lossy(bytes)))
}

fn holds_near_the_corpus(property: &Property) -> Result<()> {
    let seeds = (property.seeds)(&Corpus::read()?)?;
    ensure!(!seeds.is_empty(), "nothing to begin with");
    let mut rng = seeded(property.name);
    for seed in &seeds {
        holds(property, seed)?;
    }
    for _ in 0..MADE {
        holds(property, &mutated(&mut rng, &seeds))?;
    }
    Ok(())
}

#[test]
fn headers_are_what_a_naive_reader_finds() -> Result<()> {
    holds_near_the_corpus(&PARSE)
}

#[test]
fn every_way_of_judging_a_story_agrees_with_the_specification() -> Result<()> {
    holds_near_the_corpus(&DECIDE)
}

#[test]
fn an_accepted_policy_file_is_what_its_export_says() -> Result<()> {
    holds_near_the_corpus(&POLICY_FILE)
}

#[test]
fn nothing_at_all_is_survived() -> Result<()> {
    ALL.iter().try_for_each(|property| holds(property, &[]))
}

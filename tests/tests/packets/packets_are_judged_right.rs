//! Every packet is judged right: each case of the corpus, by the decision over the host's tables,
//! with the naive specification having its say.

use std::collections::{BTreeMap, BTreeSet};
use std::env;

use anyhow::{Result, ensure};
use tests::corpus::{Corpus, tell, write};
use tests::evaluators::HostEvaluator;
use tests::specification::Specified;

/// Tells a theme, and shows each case that fails as a whole. With `SG_CORPUS=write` the file's bytes
/// and changes of the flow table are made those of its words.
fn check(name: &str) -> Result<()> {
    let corpus = Corpus::read()?;
    let theme = corpus.theme(name)?;
    let mut failures = Vec::new();
    let mut changes = BTreeMap::new();
    let mut evaluator = Specified::over(HostEvaluator::new());
    for case in &theme.cases {
        let heard = tell(case, &mut evaluator)?;
        changes.extend(heard.changes);
        failures.extend(heard.failure);
    }
    if env::var("SG_CORPUS").is_ok_and(|value| value == "write") {
        write(theme, &changes)?;
    }
    ensure!(
        failures.is_empty(),
        "{} of {} cases fail\n\n{}",
        failures.len(),
        theme.cases.len(),
        failures.join("\n")
    );
    Ok(())
}

macro_rules! themes {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() -> Result<()> {
                check(stringify!($name))
            }
        )*

        #[test]
        fn no_file_of_the_corpus_is_left_out() -> Result<()> {
            let told = BTreeSet::from([$(stringify!($name).to_owned(),)*]);
            let there: BTreeSet<_> = Corpus::read()?.themes.into_iter().map(|theme| theme.name).collect();
            assert_eq!(told, there);
            Ok(())
        }
    };
}

themes! {
    discovery
    flows
    fragments
    frames
    guests
    icmp_errors
    ipv4
    ipv6
    removal
    rules
    tcp
    transport
}

#[test]
fn words_and_bytes_are_the_same_packets() -> Result<()> {
    for (theme, case) in Corpus::read()?.cases() {
        for packet in case.packets() {
            ensure!(
                packet.agrees_with_itself(),
                "{theme}.txt:{}: `{}` is not the bytes below it; SG_CORPUS=write writes them",
                packet.line,
                packet.written
            );
        }
    }
    Ok(())
}

#[test]
fn no_two_cases_show_the_same_fact() -> Result<()> {
    let corpus = Corpus::read()?;
    let mut facts = BTreeSet::new();
    for (theme, case) in corpus.cases() {
        ensure!(facts.insert(&case.fact), "{theme}.txt: {} again", case.fact);
        ensure!(
            case.packets().count() > 0,
            "{theme}.txt: {} has no packet",
            case.fact
        );
    }
    let packets: usize = corpus.cases().map(|(_, case)| case.packets().count()).sum();
    println!("{} cases, {packets} packets", facts.len());
    Ok(())
}

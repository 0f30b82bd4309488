//! Any bytes as a policy file.

use anyhow::{Context as _, Result, anyhow, ensure};
use sg_ctl::policy::export::export;
use sg_ctl::policy::file::PolicyFile;
use sg_ctl::policy::model::Vpc;

use crate::corpus::{Corpus, Step};

pub(super) fn seeds(corpus: &Corpus) -> Result<Vec<Vec<u8>>> {
    let steps = corpus.cases().flat_map(|(_, case)| &case.steps);
    let mut texts: Vec<Vec<u8>> = steps
        .filter_map(|step| match step {
            Step::Under(text) => Some(text.yaml.clone().into_bytes()),
            _ => None,
        })
        .collect();
    texts.sort();
    texts.dedup();
    Ok(texts)
}

pub(super) fn hold(bytes: &[u8]) -> Result<()> {
    let Ok(text) = str::from_utf8(bytes) else {
        return Ok(());
    };
    let file = match PolicyFile::parse("file", text) {
        Ok(file) => file,
        Err(findings) => {
            // A refusal names its place and its cure in words.
            ensure!(
                !findings.to_string().is_empty(),
                "it is refused without a word"
            );
            return Ok(());
        }
    };
    let vpc = read_as_new(&file)?;
    let exported = export(file.vpc_name(), &vpc);
    let again = PolicyFile::parse("export", &exported)
        .map_err(|findings| anyhow!("its export is refused: {findings}\n{exported}"))?;
    ensure!(
        again.vpc_name() == file.vpc_name(),
        "its export is of VPC {}, not {}",
        again.vpc_name(),
        file.vpc_name()
    );
    let same = again
        .to_vpc(Some(&vpc))
        .map_err(|findings| anyhow!("{findings}"))?;
    ensure!(
        same == vpc,
        "its export says something else:\n{exported}\n{vpc:?}\n{same:?}"
    );
    let vpc = read_as_new(&again).context("exported")?;
    let twice = export(again.vpc_name(), &vpc);
    ensure!(twice == exported, "exported twice:\n{exported}\n{twice}");
    Ok(())
}

fn read_as_new(file: &PolicyFile) -> Result<Vpc> {
    file.to_vpc(None).map_err(|findings| anyhow!("{findings}"))
}
